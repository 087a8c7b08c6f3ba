package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/simlatch/simlatch/internal/load"
)

// What hostile listeners are measured with.
const (
	listenersEach = 50  // hostile ones, and good ones
	goodSize      = 600 // devices of each good one in a round
	hostileSize   = 100
	hostileRounds = 2

	// The good ones should keep so much of their rate; the step fails below the other.
	keptLeast, keptFar = 0.9, 0.5
)

// A spiteful listener holds up whoever calls it, until it is calm.
type spiteful struct {
	sink *load.Sink
	how  func(http.ResponseWriter, *http.Request)
	calm *atomic.Bool
	hit  *atomic.Int64 // calls that it did not answer well
}

func (s *spiteful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.calm.Load() {
		s.sink.ServeHTTP(w, r)
		return
	}
	s.hit.Add(1)
	s.how(w, r)
}

// spites are the kinds of hostile listeners. None ever answers a 2xx whole.
var spites = []func(http.ResponseWriter, *http.Request){
	func(_ http.ResponseWriter, r *http.Request) { // hangs
		_, _ = io.Copy(io.Discard, r.Body) // only then the server sees the caller go
		<-r.Context().Done()
	},
	func(w http.ResponseWriter, r *http.Request) { // drips a byte a second
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_, err = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Drip: ")
		for ; err == nil && sleep(r.Context(), time.Second); _, err = io.WriteString(c, "x") {
		}
	},
	func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, // resets
	func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
}

// hostile measures what 50 good listeners get beside 50 hostile ones, against
// what they get without.
func hostile(ctx context.Context, o *options) ([]row, error) {
	return onEngines(ctx, o, func(ctx context.Context, engine string, so siteOptions) ([]row, error) {
		so.sims = make([]int, 2*listenersEach)
		for i := range so.sims {
			so.sims[i] = max(goodSize, hostileSize)
		}
		so.args = []string{"--callback-interval", "5s", "--callback-attempts", "1000"}
		s, err := newSite(ctx, o.binary, so)
		if err != nil {
			return nil, err
		}
		p := &pillory{site: s, good: s.tenants[:listenersEach], bad: s.tenants[listenersEach:]}
		r, err := p.run(ctx, o, engine)
		return []row{r}, errors.Join(err, s.close())
	})
}

// A pillory is the good listeners and the hostile ones.
type pillory struct {
	site              *site
	good, bad         []*tenant
	goodLots, badLots []*lot
	calm              atomic.Bool
	hit               atomic.Int64
}

func (p *pillory) run(ctx context.Context, o *options, engine string) (r row, err error) {
	r = row{Test: "50 good listeners beside 50 hostile ones", On: engine}
	for i, t := range p.site.tenants {
		var h http.Handler = &t.sink
		if i >= len(p.good) {
			h = &spiteful{&t.sink, spites[i%len(spites)], &p.calm, &p.hit}
		}
		end, err := p.site.listen(ctx, t, h)
		if err != nil {
			return r, err
		}
		defer end()
		if i < len(p.good) {
			p.goodLots = append(p.goodLots, t.lots(1, goodSize)...)
		} else {
			p.badLots = append(p.badLots, t.lots(1, hostileSize)...)
		}
	}
	defer p.calm.Store(true)
	var kept, without []float64
	for round := range hostileRounds + 1 { // the first warms up
		first, err := p.rate(ctx)
		if err != nil {
			return r, err
		}
		beside, posts, err := p.beside(ctx)
		if err != nil {
			return r, err
		}
		second, err := p.rate(ctx)
		if err != nil {
			return r, err
		}
		alone := (first + second) / 2
		fmt.Fprintf(o.out, "%s, round %d: %.0f devices/s alone, %.0f beside (%.2f), in which the hostile ones were posted to %d times\n", engine, round, alone, beside, beside/alone, posts)
		if round == 0 {
			continue
		}
		r.Tried += int(posts)
		r.Work += 3*len(p.good)*goodSize + len(p.bad)*hostileSize
		kept, without = append(kept, beside/alone), append(without, alone)
	}
	have := median(kept)
	r.Note = fmt.Sprintf("%.2f of %.0f devices/s", have, median(without))
	if have < keptLeast {
		r.Note += fmt.Sprintf(" (missed: at least %g)", keptLeast)
	}
	if have < keptFar {
		r.Wrong++
	}
	for _, t := range p.site.tenants {
		err = errors.Join(err, t.sink.Check())
	}
	return r, errors.Join(err, p.site.verify())
}

// rate is how many devices a second the good listeners hear of, when all their
// accounts send a request at once.
func (p *pillory) rate(ctx context.Context) (float64, error) {
	sleep(ctx, time.Second) // until what was before is written down, and what fails at once has failed
	begun := time.Now()
	if err := sendAll(ctx, p.good, p.goodLots); err != nil {
		return 0, err
	}
	if err := waitAll(ctx, p.goodLots); err != nil {
		return 0, err
	}
	return float64(len(p.good)*goodSize) / time.Since(begun).Seconds(), nil
}

// beside is rate while the hostile ones have something to be told, of which they
// were told in vain at least once each. Afterwards they are calm and hear all of it.
func (p *pillory) beside(ctx context.Context) (rate float64, posts int64, err error) {
	p.calm.Store(false)
	before := p.hit.Load()
	if err := sendAll(ctx, p.bad, p.badLots); err != nil {
		return 0, 0, err
	}
	for late := time.Now().Add(workPatience); p.hit.Load()-before < int64(2*len(p.bad)); {
		if time.Now().After(late) || !sleep(ctx, 10*time.Millisecond) {
			return 0, 0, errors.Join(ctx.Err(), errors.New("the hostile listeners were not posted to"))
		}
	}
	rate, err = p.rate(ctx)
	posts = p.hit.Load() - before
	p.calm.Store(true)
	return rate, posts, errors.Join(err, waitAll(ctx, p.badLots))
}

// sendAll has each tenant send its lot at once.
func sendAll(ctx context.Context, tenants []*tenant, lots []*lot) error {
	errs := make([]error, len(tenants))
	var group sync.WaitGroup
	for i, t := range tenants {
		group.Go(func() { _, errs[i] = t.send(ctx, lots[i]) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func waitAll(ctx context.Context, lots []*lot) error {
	for _, l := range lots {
		if err := l.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}
