// Package simulation plays days of the service in milliseconds: several nodes on
// one database, their clients, a carrier and listeners, under a clock that jumps
// from one event to the next, with faults everywhere, and all of it decided by a
// seed. Only tests and tools import it.
//
// What is simulated is the world. The handlers of the API, the workers, the
// senders and the store are the ones that serve, the store on SQLite in memory.
// What takes time in the world, an answer of the carrier, a post, a slow write,
// is a strand: a goroutine that runs while all others stand still, until it waits
// (strand.go). So nothing depends on the order in which a machine runs goroutines,
// and the same seed gives the same history, byte for byte.
//
// A model of a few lines (model.go) is told what the database took and says, step
// by step, what that makes of pools, SIMs and tasks. It knows no lease, no SQL and
// no phase. Each request is expected to be accepted or refused as the model says;
// each callback to say what the carrier said; and when the day is over and the
// last work is done, nothing may be due, lost, or there twice.
//
// What is seldom reached is counted by name (branches.go): a run that never came
// to one of them has not tested it and fails. Mutation breaks the service on
// purpose, so that tests know that the checks can fail.
package simulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// Options of a simulation. The zero value works.
type Options struct {
	Hours    int      // simulated before the faults end and the last work is done; 0: 24
	Mutation Mutation // breaks something; empty: nothing
	Tail     int      // lines of the history that a failure keeps; 0: 60
}

// Result is what came of one seed.
type Result struct {
	Seed      uint64
	History   string // the hash of all that happened, in its order
	Events    int    // things that happened
	Devices   int    // whose work was accepted
	Simulated time.Duration
	Reached   map[string]int // rare branches, by name
	Failure   error          // what was found wrong; nil: nothing
	Tail      []string       // the end of the history, of a failure

	hours    int
	mutation Mutation
}

// dayHours is how long a seed's day is unless its options say otherwise.
const dayHours = 24

// Repeat is the command that runs the seed again, with its history.
func (r *Result) Repeat() string {
	command := fmt.Sprintf("go run ./tools/simulation -seed %d -seeds 1 -history", r.Seed)
	if r.hours != dayHours {
		command += fmt.Sprintf(" -hours %d", r.hours)
	}
	if r.mutation != "" {
		command += fmt.Sprintf(" -mutation %q", r.mutation)
	}
	return command
}

// begin is when every simulated day begins: before midnight, so that it has two
// days of policies.
func begin() time.Time { return time.Date(2026, time.March, 3, 17, 0, 0, 0, time.UTC) }

// Simulator runs seeds. It keeps a database that each begins with.
type Simulator struct {
	dir      string
	template string
}

const (
	clientKey    = "simulated"
	clientSecret = "the secret of the simulated application"
	clientUser   = "someone"
	clientWord   = "the password of someone"
)

// accounts are those of every seed.
func accounts() []license.AccountName {
	return []license.AccountName{"0000000001-00001", "0000000002-00001", "0000000003-00001"}
}

// New makes a simulator; Close removes what it keeps.
func New(ctx context.Context) (*Simulator, error) {
	dir, err := os.MkdirTemp("", "simlatch-simulation-")
	if err != nil {
		return nil, err
	}
	s := &Simulator{dir: dir, template: filepath.Join(dir, "template.db")}
	if err := s.plant(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("making the database that seeds begin with: %w", err), s.Close())
	}
	return s, nil
}

// Close removes the simulator's files.
func (s *Simulator) Close() error { return os.RemoveAll(s.dir) }

// plant makes the template: what needs no chance.
func (s *Simulator) plant(ctx context.Context) (err error) {
	db, err := store.Open(ctx, store.InMemory, store.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.Migrate(ctx); err != nil {
		return err
	}
	for _, a := range accounts() {
		if err := db.AddAccount(ctx, a, begin()); err != nil {
			return err
		}
	}
	if err := db.AddApplication(ctx, clientKey, auth.HashSecret(clientSecret), begin()); err != nil {
		return err
	}
	u := auth.User{Name: clientUser, PasswordHash: auth.HashKnownPassword(clientWord), Accounts: accounts()}
	if err := db.AddUser(ctx, u, begin()); err != nil {
		return err
	}
	return db.Snapshot(ctx, s.template)
}

// Run plays one seed. The error is of the machinery; what the service did wrong
// is the result's Failure.
func (s *Simulator) Run(ctx context.Context, seed uint64, o Options) (r Result, err error) {
	if o.Hours == 0 {
		o.Hours = dayHours
	}
	if o.Tail == 0 {
		o.Tail = 60
	}
	w := newWorld(seed, o)
	if w.store, err = store.Open(ctx, store.InMemory, store.Options{From: s.template, Clock: clock{w: w}}); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.store.Close()) }()
	w.ctx = ctx
	w.play()
	return w.result(), ctx.Err()
}
