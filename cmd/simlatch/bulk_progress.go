package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/simlatch/simlatch/internal/bulk"
)

// applyDisplay shows how far a run has come: bars on a terminal, elsewhere a
// line every few seconds.
type applyDisplay struct {
	run   *bulk.Run
	out   io.Writer
	start time.Time
	first bulk.Progress // when it began: an earlier run may have done the most

	bars *mpb.Progress // nil without a terminal
	bar  [3]*mpb.Bar   // accepted, assigned, failed

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// display shows a run until end is called. done is what becomes of a device that
// succeeds.
func display(ctx context.Context, out io.Writer, run *bulk.Run, done string) *applyDisplay {
	d := &applyDisplay{run: run, out: out, start: time.Now(), first: run.Progress()}
	ctx, d.stop = context.WithCancel(ctx)
	every := progressEvery
	if isTerminal(out) {
		every = 200 * time.Millisecond
		d.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(64), mpb.WithRefreshRate(every))
		for i, name := range []string{"accepted", done, "failed"} {
			d.bar[i] = d.bars.AddBar(int64(d.first.Total),
				mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)),
				mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Any(func(decor.Statistics) string { return d.pace(i) })))
		}
	}
	d.wg.Go(func() { d.follow(ctx, every) })
	return d
}

func (d *applyDisplay) follow(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.show()
		case <-ctx.Done():
			return
		}
	}
}

func (d *applyDisplay) show() {
	p := d.run.Progress()
	if d.bars == nil {
		say(d.out, "simlatch: accepted %s, done %s, failed %s of %s%s", thousands(p.Accepted), thousands(p.Done),
			thousands(p.Failed+p.Unknown), thousands(p.Total), d.pace(1))
		return
	}
	for i, n := range []int{p.Accepted, p.Done, p.Failed + p.Unknown} {
		d.bar[i].SetCurrent(int64(n))
	}
}

// pace is how fast the second bar goes, and how long it has to go.
func (d *applyDisplay) pace(bar int) string {
	p := d.run.Progress()
	rate := float64(p.Ended()-d.first.Ended()) / time.Since(d.start).Seconds()
	if bar != 1 || rate <= 0 {
		return ""
	}
	text := fmt.Sprintf(", %s/s", thousands(int(rate)))
	if left := time.Duration(float64(p.Total-p.Ended()) / rate * float64(time.Second)); left > 0 {
		text += fmt.Sprintf(", about %s left", max(left, time.Second).Round(time.Second))
	}
	return text
}

// notice says something without disturbing the bars.
func (d *applyDisplay) notice(text string) {
	if d.bars != nil {
		fmt.Fprintf(d.bars, "simlatch: %s\n", text)
		return
	}
	say(d.out, "simlatch: %s", text)
}

// end leaves the display as it is.
func (d *applyDisplay) end() {
	d.stop()
	d.wg.Wait()
	if d.bars == nil {
		return
	}
	d.show()
	for _, b := range d.bar {
		b.Abort(false) // without effect on a complete one
	}
	d.bars.Wait()
}
