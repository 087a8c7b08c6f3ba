package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/simlatch/simlatch/internal/load"
)

// endToEnd measures large requests in, callbacks out.
func (b *bench) endToEnd(ctx context.Context, engine string) ([]row, error) {
	sink := &load.Sink{}
	listener, err := b.listen(ctx, sink, nil)
	if err != nil {
		return nil, err
	}
	c, err := b.newCallers(ctx, siteOptions{engine: engine}, b.reference, sink, listener.URL)
	if err != nil {
		return nil, err
	}
	n := b.o.sizes.endToEnd * b.o.sizes.large
	posts, serves := processMeter(b.reference), processMeter(c.site.process)
	meters := []*meter{serves}
	if engine == postgres {
		database, err := b.postgresMeter(ctx)
		if err != nil {
			return nil, err
		}
		meters = append(meters, database)
	}
	values, err := b.rounds(ctx, metered(c.bare(), n, posts), metered(c.ours(), n, meters...), c.memory())
	if err = errors.Join(err, sink.Check(), c.site.close(ctx)); err != nil {
		return nil, err
	}
	rows := endToEndRows(b.o.sizes.large, engine, values)
	rows = append(rows, newRow("the server's CPU for a device, "+engine, "µs", "bare's for a callback", serves.counted(), posts.counted()))
	for _, database := range meters[1:] {
		rows = append(rows, newRow("the database's CPU for a device, "+engine, "µs", "", database.counted(), nil))
	}
	return rows, nil
}

func endToEndRows(large int, engine string, values [][]float64) []row {
	work := fmt.Sprintf("end to end, %s devices a request, %s", thousands(large), engine)
	floor := map[string]float64{sqlite: 0.45, postgres: 0.40}[engine]
	return []row{
		newRow(work, "devices/s", "bare", values[1], values[0]).wanted(floor, 0.60),
		newRow(work, "devices/s", "memory", values[1], values[2]).wanted(0.5, 0.75),
	}
}

// endToEndTLS measures the same with listeners over TLS 1.3.
func (b *bench) endToEndTLS(ctx context.Context, protocol string) ([]row, error) {
	caFile, secure, err := b.certificate(protocol)
	if err != nil {
		return nil, err
	}
	sink := &load.Sink{}
	listener, err := b.listen(ctx, sink, secure)
	if err != nil {
		return nil, err
	}
	ref, err := b.startReference(ctx, "SSL_CERT_FILE="+caFile)
	if err != nil {
		return nil, err
	}
	c, err := b.newCallers(ctx, siteOptions{engine: sqlite, caFile: caFile}, ref, sink, listener.URL)
	if err != nil {
		return nil, err
	}
	values, err := b.rounds(ctx, c.bare(), c.ours())
	if err = errors.Join(err, sink.Check(), ref.stop(), c.site.close(ctx)); err != nil {
		return nil, err
	}
	over := map[string]string{"http/1.1": "TLS 1.3, kept connections", "h2": "TLS 1.3, HTTP/2"}[protocol]
	work := "the same, listener over " + over + ", " + sqlite
	return []row{newRow(work, "devices/s", "bare over the same", values[1], values[0]).wanted(0.5, 0.7)}, nil
}

// callers are those that call one sink: the server and the references.
type callers struct {
	b         *bench
	site      *site
	reference *process
	sink      *load.Sink
	url       string // of the sink
	posted    int    // SIMs that bare has named so far
	requests  int
}

// newCallers starts a server for a round of endToEnd each, and registers the
// sink with it.
func (b *bench) newCallers(ctx context.Context, o siteOptions, ref *process, sink *load.Sink, url string) (*callers, error) {
	o.sims = []int{b.o.sizes.large * b.o.sizes.endToEnd * (b.o.sizes.runs + 1)}
	s, err := b.newSite(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx, 0, url); err != nil {
		return nil, err
	}
	return &callers{b: b, site: s, reference: ref, sink: sink, url: url}, nil
}

// ours sends a round's requests over one connection, each when the one before
// is accepted, and waits for the last callback.
func (c *callers) ours() contender {
	return contender{"simlatch", "devices/s", func(ctx context.Context) (float64, error) {
		w, err := c.site.take(0, c.b.o.sizes.endToEnd, c.b.o.sizes.large)
		if err != nil {
			return 0, err
		}
		defer c.b.startProfile(c.site)()
		return c.sent(ctx, c.site.url, w)
	}}
}

// memory does the same with the pipeline that keeps nothing.
func (c *callers) memory() contender {
	return contender{"memory", "devices/s", func(ctx context.Context) (float64, error) {
		address := c.reference.url
		numbers := make([]int, c.b.o.sizes.endToEnd*c.b.o.sizes.large)
		for i := range numbers {
			numbers[i] = c.posted + i
		}
		c.posted += len(numbers)
		w := render(address, nil, load.Fleet{Mark: bareMark}, accounts[0], numbers, c.b.o.sizes.large)
		for i := range w.requests {
			path := fmt.Sprintf("/memory?request=%s&sink=%s", c.request(), url.QueryEscape(c.url))
			w.requests[i] = repath(w.requests[i], assignPath, path)
		}
		return c.sent(ctx, address, w)
	}}
}

// sent sends work and waits for all of its callbacks.
func (c *callers) sent(ctx context.Context, address string, w work) (float64, error) {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	batches, devices := make([]*load.Batch, len(w.iccids)), 0
	for i, iccids := range w.iccids {
		batches[i] = c.sink.Expect(iccids)
		devices += len(iccids)
	}
	start := time.Now()
	answers, _, err := closedLoop(ctx, address, 1, w.requests)
	if err != nil {
		return 0, err
	}
	if err := c.done(ctx, batches); err != nil {
		return 0, err
	}
	took := time.Since(start)
	for i, answer := range answers {
		id, err := requestID(answer)
		if err != nil {
			return 0, err
		}
		batches[i].Answered(id)
		if n := len(batches[i].Failed()); n > 0 {
			return 0, fmt.Errorf("%d callbacks say that their devices failed", n)
		}
	}
	return float64(devices) / took.Seconds(), c.sink.Check()
}

func (c *callers) done(ctx context.Context, batches []*load.Batch) error {
	for _, batch := range batches {
		select {
		case <-batch.Done():
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), c.sink.Check())
		}
	}
	return nil
}

func (c *callers) request() string {
	c.requests++
	return fmt.Sprintf("0193e6a0-0000-7000-8000-%012d", c.requests)
}

// bare has the same number of callbacks posted from memory.
func (c *callers) bare() contender {
	return contender{"bare", "devices/s", func(ctx context.Context) (float64, error) {
		return c.postBare(ctx, c.b.o.sizes.endToEnd*c.b.o.sizes.large)
	}}
}

func (c *callers) postBare(ctx context.Context, n int) (float64, error) {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	address := c.reference.url
	w, err := dial(ctx, address)
	if err != nil {
		return 0, err
	}
	defer w.close()
	defer context.AfterFunc(ctx, w.close)()
	q := url.Values{
		"sink": {c.url}, "from": {fmt.Sprint(c.posted)}, "count": {fmt.Sprint(n)}, "request": {c.request()},
	}
	iccids := make([]string, n)
	for i := range iccids {
		iccids[i] = load.Fleet{Mark: bareMark}.ICCID(c.posted + i)
	}
	c.posted += n
	if _, err := w.do(post(address, "/bare/prepare?"+q.Encode(), nil, nil)); err != nil {
		return 0, err
	}
	batch := c.sink.Expect(iccids)
	start := time.Now()
	if _, err := w.do(post(address, "/bare/go", nil, nil)); err != nil {
		return 0, err
	}
	if err := c.done(ctx, []*load.Batch{batch}); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), c.sink.Check()
}
