package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/load"
)

// What noisy neighbours are measured with.
const (
	noiseSize   = 10_000 // devices in a request of the noisy account
	noiseLots   = 12     // requests that it can have open
	quietLots   = 200
	quietPause  = 5 * time.Millisecond // of the quiet account between two requests
	quietFor    = 5 * time.Second      // a round
	quietRounds = 3

	// The quiet account should wait at most so many times as long, and on SQLite for
	// so many large requests more. The step fails where it is farMissed times that.
	timesMost = 3
	moreMost  = 1
	farMissed = 10
)

// heard is how long the quiet account waited in a round.
type heard struct {
	answer, callback load.Percentiles // from the request
}

// noise is what the noisy account did in a round.
type noise struct {
	requests int
	answer   load.Percentiles
}

// neighbours measures how long a request of one device takes, from request to
// callback, beside an account that sends requests of 10,000 without a pause.
func neighbours(ctx context.Context, o *options) ([]row, error) {
	return onEngines(ctx, o, func(ctx context.Context, engine string, site siteOptions) ([]row, error) {
		site.sims, site.apart = []int{noiseLots * noiseSize, quietLots}, true
		s, err := newSite(ctx, o.binary, site)
		if err != nil {
			return nil, err
		}
		n := &neighbourhood{site: s, engine: engine, o: o}
		r, err := n.run(ctx)
		return []row{r}, errors.Join(err, s.close())
	})
}

type neighbourhood struct {
	site       *site
	engine     string
	o          *options
	loud, soft *tenant
	loudLots   []*lot
	softLots   []*lot
	next       int // quiet lot
}

func (n *neighbourhood) run(ctx context.Context) (r row, err error) {
	r = row{Test: "a request of one device beside an account with requests of 10,000", On: n.engine}
	n.loud, n.soft = n.site.tenants[0], n.site.tenants[1]
	for _, t := range n.site.tenants {
		end, err := n.site.listen(ctx, t, &t.sink)
		if err != nil {
			return r, err
		}
		defer end()
	}
	n.loudLots, n.softLots = n.loud.lots(noiseLots, noiseSize), n.soft.lots(quietLots, 1)
	var ratios, more, alone, beside []float64
	for round := range quietRounds + 1 { // the first warms up
		a, err := n.quiet(ctx)
		if err != nil {
			return r, err
		}
		b, loud, err := n.disturbed(ctx)
		if err != nil {
			return r, err
		}
		fmt.Fprintf(n.o.out, "%s, round %d: alone p50 %.1f p99 %.1f ms (answer %.1f) of %d; beside p50 %.1f p99 %.1f max %.1f ms (answer p50 %.1f p99 %.1f) of %d; the noisy one's %d answers p50 %.0f max %.0f ms\n",
			n.engine, round, a.callback.P50, a.callback.P99, a.answer.P99, a.callback.Count,
			b.callback.P50, b.callback.P99, b.callback.Max, b.answer.P50, b.answer.P99, b.callback.Count, loud.requests, loud.answer.P50, loud.answer.Max)
		if round == 0 {
			continue
		}
		r.Tried += b.callback.Count
		r.Work += loud.requests*noiseSize + b.callback.Count
		alone, beside = append(alone, a.callback.P99), append(beside, b.callback.P99)
		ratios = append(ratios, b.callback.P99/a.callback.P99)
		more = append(more, (b.callback.P99-a.callback.P99)/loud.answer.P50)
	}
	have, most := median(ratios), float64(timesMost)
	if n.engine == "sqlite" {
		have, most = median(more), moreMost
	}
	r.Note = fmt.Sprintf("p99 %.1f ms alone, %.1f ms beside: %.1f times; %.2f of a large request's answer more%s",
		median(alone), median(beside), median(ratios), median(more), missed(have, most))
	if have > farMissed*most {
		r.Wrong++
	}
	return r, errors.Join(n.loud.sink.Check(), n.soft.sink.Check(), n.site.verify())
}

// quiet sends requests of one device for a while, each after the callback of the
// one before.
func (n *neighbourhood) quiet(ctx context.Context) (h heard, err error) {
	var answers, callbacks []time.Duration
	for end := time.Now().Add(quietFor); time.Now().Before(end); n.next++ {
		l := n.softLots[n.next%len(n.softLots)]
		took, err := n.soft.send(ctx, l)
		if err == nil {
			err = l.wait(ctx)
		}
		if err != nil {
			return h, fmt.Errorf("the quiet account: %w", err)
		}
		answers, callbacks = append(answers, took), append(callbacks, l.batch.Latencies()...)
		sleep(ctx, quietPause)
	}
	return heard{load.PercentilesOf(answers), load.PercentilesOf(callbacks)}, ctx.Err()
}

// disturbed is quiet beside the noisy account, which is at it before and after.
// It returns when all of the noise has ended.
func (n *neighbourhood) disturbed(ctx context.Context) (h heard, loud noise, err error) {
	stop, begun := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	var failed error
	group.Go(func() { loud, failed = n.noise(ctx, begun, stop) })
	<-begun
	h, err = n.quiet(ctx)
	close(stop)
	group.Wait()
	if err = errors.Join(err, failed); err != nil {
		return h, loud, err
	}
	for _, l := range n.loudLots {
		if err := l.wait(ctx); err != nil {
			return h, loud, fmt.Errorf("the noisy account: %w", err)
		}
	}
	return h, loud, nil
}

// noise sends one large request after the other until it is stopped, and says when
// the first was answered.
func (n *neighbourhood) noise(ctx context.Context, begun chan<- struct{}, stop <-chan struct{}) (loud noise, err error) {
	var answers []time.Duration
	for i := 0; ; i++ {
		l := n.loudLots[i%len(n.loudLots)]
		err := l.wait(ctx)
		if err == nil {
			var took time.Duration
			took, err = n.loud.send(ctx, l)
			answers = append(answers, took)
		}
		if i == 0 {
			close(begun)
		}
		if err != nil {
			return loud, fmt.Errorf("the noisy account: %w", err)
		}
		select {
		case <-stop:
			return noise{len(answers), load.PercentilesOf(answers)}, nil
		default:
		}
	}
}
