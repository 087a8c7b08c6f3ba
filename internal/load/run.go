package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// Config says what load to put on a server. All but Requests, Duration and
// Keep is required, and one of Requests and Duration.
type Config struct {
	Client  *m2m.Client // should not repeat calls by itself, which would hide latency
	Sink    *Sink       // what the account's listener is registered to be
	Account string
	SKU     string // one whose licenses can be taken back

	Devices     []m2m.Device  // none of which holds a license
	Size        int           // devices in a request
	Connections int           // calls at once
	Requests    int           // ends after so many; 0 is no limit
	Duration    time.Duration // ends after so long; 0 is no limit
	Keep        bool          // leaves the licenses where they are at the end
	Patience    time.Duration // for callbacks, after the last request
}

// Result is what became of the load.
type Result struct {
	Seconds  float64 `json:"seconds"` // from the first request to the last callback
	Accepted int     `json:"acceptedRequests"`
	Refused  int     `json:"refusedRequests"`
	Devices  int     `json:"acceptedDevices"`
	Failed   int     `json:"failedDevices"` // that their callback says failed
	Starved  int     `json:"starved"`       // times a connection had to wait for devices

	RequestsPerSecond float64        `json:"requestsPerSecond"` // while requests were sent
	DevicesPerSecond  float64        `json:"devicesPerSecond"`  // to the last callback
	Accept            Percentiles    `json:"accept"`            // from a request to its answer
	Callback          Percentiles    `json:"callback"`          // from a request to the callback of each of its devices
	Errors            map[string]int `json:"errors"`            // what refused requests were told
}

// Progress is how far a load has come.
type Progress struct {
	Accepted, Refused, Devices, Callbacks int
}

// errorsMost ends a load that is refused again and again.
const errorsMost = 100

// party is the devices of one request at a time. They are assigned a license,
// and when all callbacks have come it is taken back, and so on.
type party struct {
	devices []m2m.Device
	held    bool
}

// Load is one run of a Config.
type Load struct {
	cfg   Config
	free  chan *party
	begun atomic.Int64 // requests

	accepted, refused, devices, starved atomic.Int64

	mu       sync.Mutex // guards what follows
	accept   []time.Duration
	callback []time.Duration
	failed   int
	errors   map[string]int
	waiting  sync.WaitGroup
}

// New makes a load, or says why there is not enough to make one of.
func New(cfg Config) (*Load, error) {
	switch {
	case cfg.Size < 1 || cfg.Connections < 1:
		return nil, errors.New("a load has at least one connection and one device a request")
	case cfg.Requests <= 0 && cfg.Duration <= 0:
		return nil, errors.New("a load needs an end: a number of requests or a duration")
	case len(cfg.Devices) < cfg.Size:
		return nil, fmt.Errorf("a request of %d devices needs as many that hold no license; there are %d", cfg.Size, len(cfg.Devices))
	}
	l := &Load{cfg: cfg, free: make(chan *party, len(cfg.Devices)/cfg.Size), errors: map[string]int{}}
	for part := range slices.Chunk(cfg.Devices, cfg.Size) {
		if len(part) == cfg.Size {
			l.free <- &party{devices: slices.Clone(part)}
		}
	}
	return l, nil
}

// Progress tells how far the load has come. It may be called at any time.
func (l *Load) Progress() Progress {
	devices := int(l.devices.Load())
	return Progress{
		Accepted: int(l.accepted.Load()), Refused: int(l.refused.Load()), Devices: devices,
		Callbacks: max(0, devices-l.cfg.Sink.Open()),
	}
}

// Run puts the load on the server, waits for the callbacks and takes back the
// licenses. Its error says what was wrong with the callbacks, or that the load
// was refused again and again; the result is good as far as it goes.
func (l *Load) Run(ctx context.Context) (Result, error) {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	if l.cfg.Duration > 0 {
		timer := time.AfterFunc(l.cfg.Duration, stop)
		defer timer.Stop()
	}
	start := time.Now()
	var senders sync.WaitGroup
	for range l.cfg.Connections {
		senders.Go(func() { l.send(ctx, sending, stop) })
	}
	senders.Wait()
	sent := time.Since(start)
	err := l.settle(ctx)
	r := l.result(sent, time.Since(start))
	if int(l.refused.Load()) >= errorsMost {
		err = errors.Join(err, fmt.Errorf("the load was given up after %d refused requests", l.refused.Load()))
	}
	if !l.cfg.Keep && err == nil {
		err = l.restore(ctx)
	}
	return r, errors.Join(err, l.cfg.Sink.Check())
}

// send sends one request after the other until sending ends. A request that was
// begun is ended.
func (l *Load) send(ctx, sending context.Context, stop func()) {
	for sending.Err() == nil {
		if n := l.begun.Add(1); l.cfg.Requests > 0 && n > int64(l.cfg.Requests) {
			return
		}
		var p *party
		select {
		case p = <-l.free:
		default:
			l.starved.Add(1)
			select {
			case p = <-l.free:
			case <-sending.Done():
				return
			}
		}
		l.request(ctx, p)
		if l.refused.Load() >= errorsMost {
			stop()
		}
	}
}

// request sends the next request about a party, and gives the party free when
// its callbacks have come.
func (l *Load) request(ctx context.Context, p *party) {
	batch := l.cfg.Sink.Expect(iccids(p.devices))
	start := time.Now()
	id, err := l.call(ctx, p)
	took := time.Since(start)
	if err != nil {
		batch.Refused()
		l.refused.Add(1)
		l.mu.Lock()
		l.errors[err.Error()]++
		l.mu.Unlock()
		if refusal := (*m2m.Error)(nil); errors.As(err, &refusal) && refusal.Status < 500 {
			l.free <- p // nothing has changed; after anything else nobody knows
		}
		return
	}
	batch.Answered(id)
	l.accepted.Add(1)
	l.devices.Add(int64(len(p.devices)))
	l.mu.Lock()
	l.accept = append(l.accept, took)
	l.mu.Unlock()
	l.waiting.Go(func() { l.await(ctx, p, batch) })
}

func (l *Load) call(ctx context.Context, p *party) (string, error) {
	r := m2m.LicenseRequest{AccountName: l.cfg.Account, SKUNumber: l.cfg.SKU, Devices: p.devices}
	if p.held {
		return l.cfg.Client.Unassign(ctx, r)
	}
	return l.cfg.Client.Assign(ctx, r)
}

// await waits for the callbacks of a party. Devices that failed have no further
// part in the load.
func (l *Load) await(ctx context.Context, p *party, batch *Batch) {
	patience := time.NewTimer(l.cfg.Patience + l.cfg.Duration)
	defer patience.Stop()
	select {
	case <-batch.Done():
	case <-patience.C:
		return
	case <-ctx.Done():
		return
	}
	failed := batch.Failed()
	l.mu.Lock()
	l.callback = append(l.callback, batch.Latencies()...)
	l.failed += len(failed)
	l.mu.Unlock()
	p.devices = slices.DeleteFunc(p.devices, func(d m2m.Device) bool { return slices.Contains(failed, iccid(d)) })
	p.held = !p.held
	if len(p.devices) > 0 {
		l.free <- p
	}
}

// settle waits for the callbacks of all requests.
func (l *Load) settle(ctx context.Context) error {
	done := make(chan struct{})
	go func() { l.waiting.Wait(); close(done) }()
	timer := time.NewTimer(l.cfg.Patience)
	defer timer.Stop()
	select {
	case <-done:
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("not all callbacks had come %s after the last request", l.cfg.Patience)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restore takes back the licenses that are still held.
func (l *Load) restore(ctx context.Context) error {
	for range len(l.free) {
		p := <-l.free
		if !p.held {
			continue
		}
		batch := l.cfg.Sink.Expect(iccids(p.devices))
		id, err := l.call(ctx, p)
		if err != nil {
			batch.Refused()
			return fmt.Errorf("taking the licenses back: %w", err)
		}
		batch.Answered(id)
		l.waiting.Go(func() { l.await(ctx, p, batch) })
	}
	if err := l.settle(ctx); err != nil {
		return fmt.Errorf("taking the licenses back: %w", err)
	}
	return nil
}

func (l *Load) result(sent, took time.Duration) Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Result{
		Seconds: took.Seconds(), Accepted: int(l.accepted.Load()), Refused: int(l.refused.Load()),
		Devices: int(l.devices.Load()), Failed: l.failed, Starved: int(l.starved.Load()),
		RequestsPerSecond: float64(l.accepted.Load()) / sent.Seconds(),
		DevicesPerSecond:  float64(len(l.callback)) / took.Seconds(),
		Accept:            PercentilesOf(slices.Clone(l.accept)), Callback: PercentilesOf(slices.Clone(l.callback)), Errors: l.errors,
	}
}

func iccids(devices []m2m.Device) []string {
	list := make([]string, len(devices))
	for i, d := range devices {
		list[i] = iccid(d)
	}
	return list
}

func iccid(d m2m.Device) string { return (&message{DeviceIDs: d.DeviceIDs}).iccid() }
