package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/exchange"
)

// conformance is one run of exchanges against a server, and what it gave.
type conformance struct {
	server string
	runner *exchange.Runner
	vars   map[string]string

	results []exchange.Result
	total   int // exchanges that were to run or be skipped
	took    time.Duration
}

// run runs the exchanges one after another until ctx ends. Its error says that
// there is nothing to report.
func (c *conformance) run(ctx context.Context, s streams, exchanges []exchange.Exchange) error {
	start := time.Now()
	skipped := make([]string, len(exchanges))
	entered := false
	for i, x := range exchanges {
		skipped[i] = c.lacks(x)
		if skipped[i] != "" || entered {
			continue
		}
		// One look at the door, lest a wrong URL or password fail them all.
		if err := c.runner.Enter(ctx, x); err != nil {
			return fmt.Errorf("nothing can be compared: %w", err)
		}
		entered = true
	}
	c.total = len(exchanges)
	p := newProgress(ctx, s.err, "exchanges", c.total)
	defer p.end()
	for i, x := range exchanges {
		res := exchange.Result{Exchange: x.Name, Title: x.Title, Sources: x.Sources, Skipped: skipped[i]}
		if res.Skipped == "" {
			res = c.runner.Run(ctx, x)
		}
		if ctx.Err() != nil {
			break // half an exchange tells nothing
		}
		c.results = append(c.results, res)
		p.add(1)
	}
	c.took = time.Since(start)
	return nil
}

// lacks says what an exchange needs and the seed does not have. A mistake in an
// exchange would have been told before.
func (c *conformance) lacks(x exchange.Exchange) string {
	err := x.Check(c.vars)
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), x.Name+": ")
}

// verdict is the error that gives the run its exit status.
func (c *conformance) verdict(ctx context.Context) error {
	n := c.count()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("ended after %d of %d exchanges: %w", len(c.results), c.total, context.Cause(ctx))
	case n.differ > 0:
		return withStatus(exitPartly, fmt.Errorf("not as recorded: %d of the %d exchanges that were run", n.differ, n.differ+n.conform))
	case n.conform == 0:
		return errors.New("nothing was run: all exchanges were skipped")
	}
	return nil
}

// outcomes counts exchanges by how they ended.
type outcomes struct{ conform, differ, skipped, notRun int }

func (c *conformance) count() (n outcomes) {
	n.notRun = c.total - len(c.results)
	for _, r := range c.results {
		switch {
		case r.Skipped != "":
			n.skipped++
		case r.Failed():
			n.differ++
		default:
			n.conform++
		}
	}
	return n
}

// listExchanges prints what there is to run.
func listExchanges(w io.Writer, form string, exchanges []exchange.Exchange) error {
	if form != formJSON {
		form = formTable
	}
	return writeList(w, form, []column[exchange.Exchange]{
		{"name", "NAME", func(x exchange.Exchange) any { return x.Name }},
		{"needs", "NEEDS", func(x exchange.Exchange) any {
			needs := []string{}
			for _, n := range x.Needs {
				needs = append(needs, string(n))
			}
			return needs
		}},
		{"steps", "STEPS", func(x exchange.Exchange) any { return len(x.Steps) }},
		{"title", "SHOWS", func(x exchange.Exchange) any { return x.Title }},
	}, exchanges)
}
