package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/load"
)

// hanging is a listener that does not answer while it is closed.
type hanging struct {
	sink *load.Sink

	mu      sync.Mutex // guards what follows
	open    chan struct{}
	waiting chan struct{} // holds one once a call hangs
}

func (h *hanging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	open, waiting := h.open, h.waiting
	h.mu.Unlock()
	if open != nil {
		select {
		case waiting <- struct{}{}:
		default:
		}
		select {
		case <-open:
		case <-r.Context().Done():
			return
		}
	}
	h.sink.ServeHTTP(w, r)
}

// hang makes calls hang until the function it returns is called.
// waiting tells when one does.
func (h *hanging) hang() (waiting <-chan struct{}, release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	open := make(chan struct{})
	h.open, h.waiting = open, make(chan struct{}, 1)
	return h.waiting, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.open = nil
		close(open)
	}
}

// during has n callbacks of the first account hang while f runs, and then come.
func (h *hanging) during(ctx context.Context, s *site, n int, f func() error) error {
	w, err := s.take(0, 1, n)
	if err != nil {
		return err
	}
	waiting, release := h.hang()
	batch := h.sink.Expect(w.iccids[0])
	if _, _, err = closedLoop(ctx, s.url, 1, w.requests); err == nil {
		<-waiting
		err = f()
	}
	release()
	if err != nil {
		return err
	}
	ctx, cancel := within(ctx, patience)
	defer cancel()
	select {
	case <-batch.Done():
		return nil
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), h.sink.Check())
	}
}

// isolation measures a listener's rate while that of another account hangs,
// against the same without.
func (b *bench) isolation(ctx context.Context) ([]row, error) {
	first := &hanging{sink: &load.Sink{}}
	second := &load.Sink{}
	one, err := b.listen(ctx, first, nil)
	if err != nil {
		return nil, err
	}
	two, err := b.listen(ctx, second, nil)
	if err != nil {
		return nil, err
	}
	size := b.o.sizes
	hung := size.large / 10
	s, err := b.newSite(ctx, siteOptions{engine: sqlite, interval: size.retryInterval, sims: []int{
		hung * (size.runs + 1), 2 * size.large * size.endToEnd * (size.runs + 1),
	}})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.listen(ctx, 0, one.URL), s.listen(ctx, 1, two.URL)); err != nil {
		return nil, err
	}
	c := &callers{b: b, site: s, sink: second}
	alone := func(ctx context.Context) (float64, error) {
		w, err := s.take(1, size.endToEnd, size.large)
		if err != nil {
			return 0, err
		}
		return c.sent(ctx, s.url, w)
	}
	beside := func(ctx context.Context) (rate float64, err error) {
		err = first.during(ctx, s, hung, func() error {
			rate, err = alone(ctx)
			return err
		})
		return rate, err
	}
	values, err := b.rounds(ctx, contender{"alone", "devices/s", alone}, contender{"beside one that hangs", "devices/s", beside})
	if err = errors.Join(err, first.sink.Check(), second.Check(), s.close(ctx)); err != nil {
		return nil, err
	}
	return []row{newRow("a second listener's rate while the first hangs, "+sqlite, "devices/s", "without", values[1], values[0]).wanted(0.9, 0.97)}, nil
}

// refuseShare is how many devices there are for each one whose first callback
// the listener of the retries row refuses.
const refuseShare = 4

// refusals refuses the first callback of some devices and notes when.
type refusals struct {
	interval time.Duration

	mu      sync.Mutex // guards what follows
	refused map[string]time.Time
	late    []time.Duration
}

// begin begins a round.
func (r *refusals) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused, r.late = map[string]time.Time{}, nil
}

// end is how late the second attempts of a round were, in seconds: the 99th
// percentile.
func (r *refusals) end() (float64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.late) != len(r.refused) || len(r.late) == 0 {
		return 0, fmt.Errorf("%d of %d refused callbacks came again", len(r.late), len(r.refused))
	}
	return load.PercentilesOf(r.late).P99 / 1000, nil
}

// refuse is the Refuse of a sink.
func (r *refusals) refuse(iccid string, at time.Time) bool {
	if crc32.ChecksumIEEE([]byte(iccid))%refuseShare != 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before, again := r.refused[iccid]
	if !again {
		r.refused[iccid] = time.Now()
		return true
	}
	r.late = append(r.late, max(0, at.Sub(before)-r.interval))
	return false
}

// retries measures how late the second attempts are, on a schedule of seconds.
func (b *bench) retries(ctx context.Context) ([]row, error) {
	size := b.o.sizes
	r := &refusals{interval: size.retryInterval}
	sink := &load.Sink{Refuse: r.refuse}
	listener, err := b.listen(ctx, sink, nil)
	if err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, siteOptions{engine: sqlite, interval: size.retryInterval, sims: []int{size.retries * (size.runs + 1)}})
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx, 0, listener.URL); err != nil {
		return nil, err
	}
	c := &callers{b: b, site: s, sink: sink}
	values, err := b.rounds(ctx, contender{"retries, p99", "s late", func(ctx context.Context) (float64, error) {
		r.begin()
		w, err := s.take(0, 1, size.retries)
		if err != nil {
			return 0, err
		}
		if _, err := c.sent(ctx, s.url, w); err != nil {
			return 0, err
		}
		return r.end()
	}})
	if err = errors.Join(err, sink.Check(), s.close(ctx)); err != nil {
		return nil, err
	}
	work := fmt.Sprintf("lateness of retries on a schedule of %v, p99, %s", size.retryInterval, sqlite)
	return []row{newRow(work, "s", "", values[0], nil).wanted(0.5, 0.1)}, nil
}
