package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
)

// How a life ends.
const (
	endPoint    = "point"              // at a point in the code
	endShutdown = "point at shutdown"  // at a point that only a shutdown passes
	endKill     = "SIGKILL"            // from outside, anywhere
	endBackend  = "SIGKILL of backend" // of PostgreSQL, which then ends all of them; the server lives
	endServer   = "stop -m immediate"  // of PostgreSQL, and started again; the server lives
)

// A life is one start of the server, and how it ends.
type life struct {
	end      string
	at       crash.Point // of endPoint and endShutdown
	passage  int
	after    time.Duration // before what comes from outside
	patience time.Duration // for the point to be passed
	// migrations are more of them than the life before it had.
	migrations int
}

func (l life) name() string {
	if l.end == endPoint || l.end == endShutdown {
		return crash.Points()[l.at].Name
	}
	return l.end
}

// A plan is all that a seed decides.
type plan struct {
	seed   uint64
	engine string
	// first are lives on a database that has no schema yet, before there is work.
	first []life
	lives []life
	// bystander is another node on the database, which does not die.
	bystander bool

	soon            bool // each point kills when it is first passed
	clients, chunks int  // of SIMs, for each client
	large           int  // SIMs in one chunk; the others have up to 8
	refuse, late    int  // per cent of what the carrier is asked
	imports         []int
}

// How many lives a seed has.
const (
	livesOfSeed  = 10
	deathsOfHost = 8 // of PostgreSQL, in a seed of them
)

// postgresDeaths marks the seeds in which PostgreSQL dies, not the server.
const postgresDeaths = "postgres dies"

// planOf is the plan of a seed: always the same. Seeds that follow each other
// have all points between them.
func planOf(seed uint64, engine string) plan {
	r := rand.New(rand.NewPCG(seed, 8))
	p := plan{
		seed: seed, engine: engine, clients: 2 + r.IntN(4), chunks: 4 + r.IntN(12), large: 20 + r.IntN(120),
		refuse: 1 + r.IntN(25), late: 3 + r.IntN(20), bystander: engine != "sqlite" && seed%2 == 0,
	}
	for range 4 {
		p.imports = append(p.imports, []int{1, 40, 700, 2500}[r.IntN(4)])
	}
	if engine == postgresDeaths {
		p.bystander = false
		for i := range deathsOfHost {
			p.lives = append(p.lives, life{end: []string{endBackend, endServer}[i%2], after: span(r, 100, 600)})
		}
		return p
	}
	migration := []crash.Point{crash.MigrateLocked, crash.MigrateBegun, crash.MigrateWritten, crash.MigrateDone}
	p.first = []life{pointLife(r, migration[seed%uint64(len(migration))], engine)}
	deck := pointsOf(engine)
	stride := uint64(19)
	for gcd(stride, uint64(len(deck))) != 1 {
		stride++
	}
	for i := range uint64(livesOfSeed - 2) {
		l := pointLife(r, deck[((seed*(livesOfSeed-2)+i)*stride)%uint64(len(deck))], engine)
		if l.at >= crash.MigrateLocked && l.at <= crash.MigrateDone {
			l.migrations = 3
			l.passage = min(l.passage, 1+r.IntN(l.migrations))
		}
		p.lives = append(p.lives, l)
	}
	p.lives = append(p.lives, life{end: endKill, after: span(r, 20, 500)})
	r.Shuffle(len(p.lives), func(i, k int) { p.lives[i], p.lives[k] = p.lives[k], p.lives[i] })
	p.order()
	return p
}

// order puts lives that need the leases of a dead node to end, which takes time on
// PostgreSQL, last.
func (p *plan) order() {
	if p.engine == "sqlite" {
		return
	}
	var soon, late []life
	for _, l := range p.lives {
		if l.patience > time.Second*10 {
			late = append(late, l)
		} else {
			soon = append(soon, l)
		}
	}
	p.lives = append(soon, late...)
	p.bystander = p.bystander && len(late) == 0 // or it would take those leases
}

// atOnce has each point kill when it is first passed.
func (p *plan) atOnce() {
	p.soon = true
	for _, lives := range [][]life{p.first, p.lives} {
		for i := range lives {
			lives[i].passage = min(1, lives[i].passage)
		}
	}
}

// leasePatience is longer than a lease.
const leasePatience = 30 * time.Second

func pointLife(r *rand.Rand, at crash.Point, engine string) life {
	most := crash.Points()[at].Passages
	if most == 0 {
		most = 8
	}
	l := life{end: endPoint, at: at, passage: 1 + r.IntN(most), patience: 8 * time.Second}
	switch at { //nolint:exhaustive // of those that want something else
	case crash.GiveBackBegun, crash.GiveBackWritten, crash.GiveBackCommitted:
		l.end, l.after = endShutdown, span(r, 200, 500)
	case crash.ReclaimBegun, crash.ReclaimWritten, crash.ReclaimCommitted:
		if engine != "sqlite" {
			l.patience = leasePatience
		}
	}
	return l
}

// pointsOf are the points that a server with work passes on an engine.
func pointsOf(engine string) (deck []crash.Point) {
	for i, info := range crash.Points() {
		if !info.SQLite || engine == "sqlite" {
			deck = append(deck, crash.Point(i))
		}
	}
	return deck
}

func span(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+r.IntN(to-from)) * time.Millisecond
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// command is how to repeat the plan alone.
func (p *plan) command() string {
	soon := ""
	if p.soon {
		soon = " -soon"
	}
	return fmt.Sprintf("make torture TORTURE_ARGS='-only crash -engine \"%s\" -seed %d -seeds 1%s'", p.engine, p.seed, soon)
}
