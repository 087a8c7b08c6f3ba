package main

import (
	"context"
	"errors"
	"fmt"
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
	site     *site
	engine   string
	o        *options
	loud     *noisy
	soft     *tenant
	softLots []*lot
	next     int // quiet lot
}

func (n *neighbourhood) run(ctx context.Context) (r row, err error) {
	r = row{Test: "a request of one device beside an account with requests of 10,000", On: n.engine}
	if n.loud, err = newNoisy(ctx, n.site); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, n.loud.close()) }()
	n.soft = n.site.tenants[1]
	end, err := n.site.listen(ctx, n.soft, &n.soft.sink)
	if err != nil {
		return r, err
	}
	defer end()
	n.softLots = n.soft.lots(quietLots, 1)
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
			b.callback.P50, b.callback.P99, b.callback.Max, b.answer.P50, b.answer.P99, b.callback.Count, loud.Requests, loud.Answer.P50, loud.Answer.Max)
		if round == 0 {
			continue
		}
		r.Tried += b.callback.Count
		r.Work += loud.Requests*noiseSize + b.callback.Count
		alone, beside = append(alone, a.callback.P99), append(beside, b.callback.P99)
		ratios = append(ratios, b.callback.P99/a.callback.P99)
		more = append(more, (b.callback.P99-a.callback.P99)/loud.Answer.P50)
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
	return r, errors.Join(n.soft.sink.Check(), n.site.verify())
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
	if err := n.loud.begin(); err != nil {
		return h, loud, fmt.Errorf("the noisy account: %w", err)
	}
	h, err = n.quiet(ctx)
	loud, failed := n.loud.stop()
	return h, loud, errors.Join(err, failed)
}
