package main

import (
	"context"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress shows how far something has come: a bar on a terminal, elsewhere a
// line every few seconds.
type progress struct {
	what  string
	total int
	done  int
	quiet bool // says nothing of what was done before anybody could wonder

	bars *mpb.Progress // nil without a terminal
	bar  *mpb.Bar
	out  io.Writer
	said time.Time
}

// progressEvery is the time between two lines where there is no terminal.
const progressEvery = 5 * time.Second

func newProgress(ctx context.Context, w io.Writer, what string, total int) *progress {
	p := &progress{what: what, total: total, out: w, said: time.Now()}
	if isTerminal(w) {
		p.bars = mpb.NewWithContext(ctx, mpb.WithOutput(w), mpb.WithWidth(40))
		p.bar = p.bars.AddBar(int64(total),
			mpb.PrependDecorators(decor.Name(what+" "), decor.CountersNoUnit("%d / %d", decor.WCSyncSpace)),
			mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageSpeed(0, "%.0f/s")))
	}
	return p
}

// add counts n more.
func (p *progress) add(n int) {
	p.done += n
	switch now := time.Now(); {
	case p.bar != nil:
		p.bar.IncrBy(n)
	case now.Sub(p.said) >= progressEvery || p.done == p.total && !p.quiet:
		p.said = now
		say(p.out, "simlatch: %s %s of %s", p.what, thousands(p.done), thousands(p.total))
	}
}

// end leaves the display as it is, complete or not.
func (p *progress) end() {
	if p.bar == nil {
		return
	}
	p.bar.Abort(false) // without effect on a complete one
	p.bars.Wait()
}
