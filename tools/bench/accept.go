package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/simlatch/simlatch/internal/load"
)

// connections are those of the rows of two-device requests, and what is wanted
// of each against a bare handler.
var connections = []struct {
	n          int
	floor, aim float64
}{{8, 0.06, 0.12}, {64, 0.16, 0.3}}

// handlerShare is how many more requests the bare handler gets, so that both
// sides are measured for about as long.
const handlerShare = 8

// acceptSmall measures accepted two-device requests. No listener is registered:
// the workers do their part beside it, but nothing is delivered.
func (b *bench) acceptSmall(ctx context.Context, engine string) ([]row, error) {
	sims := 0
	for _, c := range connections {
		sims += 2 * c.n * b.o.sizes.small * (b.o.sizes.runs + 1)
	}
	s, err := b.newSite(ctx, siteOptions{engine: engine, sims: []int{sims}})
	if err != nil {
		return nil, err
	}
	var rows []row
	for _, c := range connections {
		n := c.n * b.o.sizes.small
		values, err := b.rounds(ctx, b.bareHandler(c.n, n*handlerShare), s.accepts(c.n, n, 2, "requests/s"))
		if err != nil {
			return nil, err
		}
		work := fmt.Sprintf("accepted 2-device requests, %d connections, %s", c.n, engine)
		rows = append(rows, newRow(work, "requests/s", "bare handler", values[1], values[0]).wanted(c.floor, c.aim))
	}
	return rows, s.close(ctx)
}

// accepts sends requests and, out of the measured time, waits until the
// workers have ended them. The unit is requests/s or devices/s.
func (s *site) accepts(connections, requests, size int, unit string) contender {
	return contender{"simlatch", unit, func(ctx context.Context) (float64, error) {
		w, err := s.take(0, requests, size)
		if err != nil {
			return 0, err
		}
		stop := s.b.startProfile(s)
		answers, took, err := closedLoop(ctx, s.url, connections, w.requests)
		stop()
		if err != nil {
			return 0, err
		}
		seen := make(map[string]bool, len(answers))
		for _, answer := range answers {
			id, err := requestID(answer)
			if err != nil {
				return 0, err
			}
			if seen[id] {
				return 0, fmt.Errorf("two requests were accepted as %s", id)
			}
			seen[id] = true
		}
		n := requests
		if unit == "devices/s" {
			n *= size
		}
		return float64(n) / took.Seconds(), s.assigned(ctx)
	}}
}

// bareHandler sends two-device requests to a handler that only reads them.
func (b *bench) bareHandler(connections, requests int) contender {
	address := b.reference.url
	numbers := make([]int, 2*requests)
	for i := range numbers {
		numbers[i] = i
	}
	// As long as those that the server gets.
	header := map[string]string{"Authorization": "Bearer 00000000-0000-0000-0000-000000000000", "VZ-M2M-Token": "00000000-0000-0000-0000-000000000000"}
	w := render(address, header, load.Fleet{Mark: bareMark}, accounts[0], numbers, 2)
	return contender{"bare handler", "requests/s", func(ctx context.Context) (float64, error) {
		_, took, err := closedLoop(ctx, address, connections, w.requests)
		return float64(requests) / took.Seconds(), err
	}}
}

// acceptLarge measures the acceptance of large requests, one after the other,
// against what the machine can deliver as callbacks.
func (b *bench) acceptLarge(ctx context.Context, engine string) ([]row, error) {
	sink := &load.Sink{}
	listener, err := b.listen(ctx, sink, nil)
	if err != nil {
		return nil, err
	}
	size := b.o.sizes
	s, err := b.newSite(ctx, siteOptions{engine: engine, sims: []int{size.large * size.accept * (size.runs + 1)}})
	if err != nil {
		return nil, err
	}
	c := &callers{b: b, site: s, reference: b.reference, sink: sink, url: listener.URL}
	values, err := b.rounds(ctx, c.bare(), s.accepts(1, size.accept, size.large, "devices/s"))
	if err = errors.Join(err, sink.Check(), s.close(ctx)); err != nil {
		return nil, err
	}
	work := fmt.Sprintf("accepting %s-device requests, %s", thousands(size.large), engine)
	return []row{newRow(work, "devices/s", "bare", values[1], values[0]).wanted(1.5, 3)}, nil
}
