package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

// A matrix is the crash matrix on one engine: seeds, some of them at once.
type matrix struct {
	o       *options
	engine  string
	seeds   int
	at      int    // how many seeds run at once
	dir     string // for theirs
	server  string // of PostgreSQL
	durable bool

	mu     sync.Mutex // guards what follows
	deaths map[string]row
	passed map[string]bool
	sum    row
	failed error
}

// seedLimit bounds a seed.
const seedLimit = 5 * time.Minute

// crashes is the part of the table that is about crashes.
func crashes(ctx context.Context, o *options) (rows []row, err error) {
	dir, err := os.MkdirTemp("", "torture")
	if err != nil {
		return nil, err
	}
	if !o.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	list := []*matrix{{engine: "sqlite", seeds: 34, at: 3}}
	if cluster, ok := pgcluster.Asked(o.postgres); ok {
		c, err := pgcluster.Start(ctx, cluster)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, c.Stop()) }()
		list = append(list, &matrix{engine: "postgres", seeds: 28, at: 4, server: c.URL()},
			&matrix{engine: postgresDeaths, seeds: 4, at: 2, durable: cluster.Durable})
	}
	for _, m := range list {
		if o.engine != "" && o.engine != m.engine {
			continue
		}
		m.o, m.dir = o, dir
		if o.seeds > 0 {
			m.seeds = o.seeds
		}
		m.run(ctx)
		rows = append(rows, m.rows()...)
		err = errors.Join(err, m.failed)
		if ctx.Err() != nil {
			break
		}
	}
	return rows, err
}

// run runs all seeds, and some more where a point that is passed rarely was not
// passed often enough in its turn.
func (m *matrix) run(ctx context.Context) {
	m.deaths, m.passed = map[string]row{}, map[string]bool{}
	m.some(ctx, m.o.seed, m.seeds)
	for more := 0; m.whole() && m.missing() != nil && more < m.seeds && ctx.Err() == nil; more += m.at {
		m.some(ctx, m.o.seed+uint64(m.seeds+more), m.at)
	}
	if m.whole() {
		m.failed = errors.Join(m.failed, m.missing())
	}
}

// some runs some seeds.
func (m *matrix) some(ctx context.Context, first uint64, n int) {
	seeds := make(chan uint64)
	var group sync.WaitGroup
	for range min(m.at, n) {
		group.Go(func() {
			for seed := range seeds {
				p := planOf(seed, m.engine)
				if m.o.soon {
					p.atOnce()
				}
				m.seed(ctx, p)
			}
		})
	}
	for i := range uint64(n) {
		if ctx.Err() != nil {
			break
		}
		seeds <- first + i
	}
	close(seeds)
	group.Wait()
}

// whole reports whether there are so many seeds that each point has its turn.
func (m *matrix) whole() bool {
	return m.engine != postgresDeaths && m.seeds*(livesOfSeed-2) >= len(pointsOf(m.engine))
}

// seed runs one seed and adds what came of it.
func (m *matrix) seed(ctx context.Context, p plan) {
	begun := time.Now()
	w, deaths, err := m.try(ctx, p)
	m.mu.Lock()
	defer m.mu.Unlock()
	said := ""
	if w != nil {
		said = w.harm()
		m.count(w, deaths)
	}
	if err == nil && said == "" {
		m.failed = errors.Join(m.failed, os.RemoveAll(w.dir))
		fmt.Fprintf(m.o.out, "%s, seed %d: %d deaths, %d acknowledged, in %s\n", p.engine, p.seed, len(deaths), w.row.Work, time.Since(begun).Round(time.Second/10))
		return
	}
	fmt.Fprintf(m.o.out, "%s, seed %d: FAILED after %d deaths\n%s\n%v\n  to repeat it: %s\n", p.engine, p.seed, len(deaths), said, err, p.command())
	if err != nil {
		m.failed = errors.Join(m.failed, fmt.Errorf("%s, seed %d: %w", p.engine, p.seed, err))
	}
}

func (m *matrix) count(w *world, deaths []death) {
	for _, d := range deaths {
		if d.name == "" {
			continue
		}
		r := m.deaths[d.name]
		r.Tried++
		r.Work += d.work
		m.deaths[d.name] = r
	}
	passed, died, err := w.passed()
	m.failed = errors.Join(m.failed, err)
	for name, n := range died {
		seen := 0
		for _, d := range deaths {
			if d.name == name {
				seen++
			}
		}
		if seen != n {
			m.failed = errors.Join(m.failed, fmt.Errorf("%s, seed %d: %d servers died at %s, and %d were seen to", w.plan.engine, w.plan.seed, n, name, seen))
		}
	}
	for _, name := range passed {
		m.passed[name] = true
	}
	m.sum.Tried++
	m.sum.Work += w.row.Work
	m.sum.Lost += w.row.Lost
	m.sum.Double += w.row.Double
	m.sum.Wrong += w.row.Wrong
}

// try makes the world of a plan, lives it through and checks it.
func (m *matrix) try(ctx context.Context, p plan) (w *world, deaths []death, err error) {
	ctx, cancel := context.WithTimeout(ctx, seedLimit)
	defer cancel()
	dir := filepath.Join(m.dir, fmt.Sprintf("%s-%d", p.engine, p.seed))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	var h host
	database := "sqlite:" + filepath.Join(dir, "simlatch.db")
	switch p.engine {
	case postgresDeaths:
		c, err := pgcluster.Start(ctx, pgcluster.Options{Durable: true})
		if err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, c.Stop()) }()
		h, database = &mortal{c}, c.URL()
	case "postgres":
		var drop func() error
		if database, drop, err = schema(ctx, m.server); err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, drop()) }()
	}
	w, end, err := newWorld(ctx, p, m.o.binary, dir, database)
	if err != nil {
		return nil, nil, err
	}
	defer end()
	deaths, err = w.through(h)
	if err == nil {
		err = w.check(ctx)
	}
	cancel() // clients of a world that failed
	w.working.Wait()
	return w, deaths, err
}

// missing is an error where a point was never passed, or nobody died there.
func (m *matrix) missing() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, info := range crash.Points() {
		switch {
		case info.SQLite && m.engine != "sqlite":
		case !m.passed[info.Name]:
			err = errors.Join(err, fmt.Errorf("%s: point %s was never passed", m.engine, info.Name))
		case m.deaths[info.Name].Tried == 0:
			err = errors.Join(err, fmt.Errorf("%s: no server died at %s", m.engine, info.Name))
		}
	}
	return err
}

// rows are the matrix's lines of the table.
func (m *matrix) rows() (rows []row) {
	order := map[string]int{}
	for i, info := range crash.Points() {
		order[info.Name] = i + 1
	}
	crashes := 0
	names := slices.SortedFunc(maps.Keys(m.deaths), func(a, b string) int { return order[a] - order[b] })
	for _, name := range names {
		r := m.deaths[name]
		r.Test, r.On = name, m.engine
		crashes += r.Tried
		rows = append(rows, r)
	}
	sum := m.sum
	sum.Test, sum.On, sum.Note = "all that was acknowledged, after the last", m.engine, fmt.Sprintf("seeds from %d on, with %d crashes", m.o.seed, crashes)
	sum.Work = 0 // or it would count twice
	return append(rows, sum)
}
