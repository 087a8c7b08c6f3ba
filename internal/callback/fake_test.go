package callback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

const testAccount = license.AccountName("0000123456-00001")

// outbox is a small outbox in memory, for injecting faults and looking inside.
type outbox struct {
	mu        sync.Mutex
	rows      []*row
	listeners map[license.AccountName]license.Listener
	changes   uint64
	fault     func(op string) error
	claims    []license.ClaimParams
	finished  []license.Delivery
	batches   []int
	given     []time.Time // when callbacks were given back, each
}

type row struct {
	callback license.Callback
	due      time.Time
	verdict  license.DeliveryVerdict
	ended    bool
}

func newOutbox() *outbox {
	return &outbox{listeners: make(map[license.AccountName]license.Listener)}
}

func (o *outbox) failing(op string) error {
	if o.fault == nil {
		return nil
	}
	return o.fault(op)
}

func (o *outbox) DueAccounts(_ context.Context, phase license.Phase, now time.Time) ([]license.Due, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if phase != license.PhaseListener {
		return nil, fmt.Errorf("asked for phase %s", phase)
	}
	var all []license.Due
	for _, r := range o.rows {
		if r.ended || r.due.After(now) {
			continue
		}
		i := slices.IndexFunc(all, func(d license.Due) bool { return d.Account == r.callback.Account })
		if i < 0 {
			i, all = len(all), append(all, license.Due{Account: r.callback.Account, Oldest: r.due})
		}
		all[i].Count++
	}
	return all, o.failing("due")
}

func (o *outbox) ClaimCallbacks(_ context.Context, p license.ClaimParams) ([]license.Callback, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing("claim"); err != nil {
		return nil, err
	}
	o.claims = append(o.claims, p)
	var out []license.Callback
	for _, r := range o.rows {
		if len(out) < p.Limit && !r.ended && !r.due.After(p.Now) && r.callback.Account == p.Account {
			r.due = p.Until
			r.callback.Lease++
			r.callback.Until = p.Until
			out = append(out, r.callback)
		}
	}
	return out, nil
}

func (o *outbox) FinishCallbacks(_ context.Context, _ time.Time, out []license.Delivery) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing("finish"); err != nil {
		return err
	}
	o.batches = append(o.batches, len(out))
	o.finished = append(o.finished, out...)
	for _, d := range out {
		for _, r := range o.rows {
			if r.callback.Request != d.Callback.Request || r.callback.Device != d.Callback.Device || r.callback.Lease != d.Callback.Lease {
				continue
			}
			r.verdict, r.due = d.Verdict, d.Due
			r.ended = d.Verdict != license.Again
			if d.Verdict != license.Unsent {
				r.callback.Attempt++
			}
		}
	}
	return nil
}

func (o *outbox) GiveCallbacksBack(ctx context.Context, now time.Time, callbacks []license.Callback) (given int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := errors.Join(ctx.Err(), o.failing("give back")); err != nil {
		return 0, err
	}
	for _, c := range callbacks {
		for _, r := range o.rows {
			if r.callback.Request == c.Request && r.callback.Device == c.Device && r.callback.Lease == c.Lease && !r.ended {
				r.due = now
				r.callback.Lease++
				o.given = append(o.given, time.Now())
				given++
			}
		}
	}
	return given, nil
}

func (o *outbox) Listener(_ context.Context, account license.AccountName, service string) (license.Listener, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.failing("listener"); err != nil {
		return license.Listener{}, err
	}
	l, ok := o.listeners[account]
	if !ok || service != license.CarrierService {
		return license.Listener{}, fmt.Errorf("listener: %w", license.ErrNotFound)
	}
	return l, nil
}

func (o *outbox) ListenerChanges() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changes
}

// register puts a listener; elsewhere says that another node did.
func (o *outbox) register(l license.Listener, elsewhere bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	l.Service = license.CarrierService
	o.listeners[l.Account] = l
	if !elsewhere {
		o.changes++
	}
}

// add puts n callbacks of an account, due at once.
func (o *outbox) add(account license.AccountName, n int) []license.Callback {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []license.Callback
	for range n {
		c := message(account, len(o.rows))
		o.rows = append(o.rows, &row{callback: c})
		out = append(out, c)
	}
	return out
}

// addLeased is add with callbacks born leased until then.
func (o *outbox) addLeased(account license.AccountName, n int, until time.Time) []license.Callback {
	out := o.add(account, n)
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range out {
		out[i].Lease, out[i].Until = 1, until
		r := o.rows[len(o.rows)-n+i]
		r.callback, r.due = out[i], until
	}
	return out
}

// ends lists how the callbacks stand.
func (o *outbox) ends() (ended int, verdicts map[license.DeliveryVerdict]int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	verdicts = make(map[license.DeliveryVerdict]int)
	for _, r := range o.rows {
		if r.ended {
			ended++
			verdicts[r.verdict]++
		}
	}
	return ended, verdicts
}

func (o *outbox) deliveries() []license.Delivery {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.finished)
}

// back lists when callbacks were given back.
func (o *outbox) back() []time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.given)
}

func (o *outbox) setFault(f func(op string) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fault = f
}

func message(account license.AccountName, i int) license.Callback {
	return license.Callback{
		Request: "0192f0c1-79ff-7b35-82df-94446785b6e0", Action: license.Assign, SKU: license.SKUFlexible, Account: account,
		Device: license.Device{ICCID: license.ICCID(fmt.Sprintf("8914800000%010d", i)), IMEI: license.IMEI(fmt.Sprintf("49015420%07d", i)), MDN: "5551230001"},
		OK:     true,
	}
}

// web is an in-memory network for a synctest bubble: hosts by name.
type web struct {
	mu    sync.Mutex
	hosts map[string]*pipes
	dials int
}

func (w *web) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	w.mu.Lock()
	p := w.hosts[addr]
	w.dials++
	w.mu.Unlock()
	if p == nil {
		return nil, errors.New("connection refused")
	}
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// host serves h at http://name, until the test ends.
func (w *web) host(t *testing.T, name string, h http.HandlerFunc) {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	w.mu.Lock()
	w.hosts[name+":80"] = p
	w.mu.Unlock()
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(p) }()
	t.Cleanup(func() { _ = srv.Close() })
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// bench is a sender under test inside a bubble.
type bench struct {
	*Sender
	out  *outbox
	web  *web
	stop func() // ends Run and waits for it
}

// bubble runs f with a sender on an in-memory network and simulated time.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{out: newOutbox(), web: &web{hosts: make(map[string]*pipes)}}
		cfg.Outbox = b.out
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.transport.DialContext = b.web.dial
		b.Sender = s
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		b.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		defer b.stop()
		synctest.Wait()
		f(t, b)
	})
}

// listen registers the account's listener at http://name with a handler that
// gets the message.
func (b *bench) listen(t *testing.T, account license.AccountName, name string, h func(w http.ResponseWriter, r *http.Request, m m2m.CallbackMessage)) {
	b.web.host(t, name, func(w http.ResponseWriter, r *http.Request) {
		var m m2m.CallbackMessage
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Errorf("decoding a callback: %v", err)
		}
		h(w, r, m)
	})
	b.out.register(license.Listener{Account: account, URL: "http://" + name + "/cb"}, false)
}

// advance lets time pass and everything that it brings about happen.
func advance(d time.Duration) {
	synctest.Wait()
	<-time.After(d)
	synctest.Wait()
}

// loopback allows what httptest listens on.
func loopback() *Guard {
	return NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")})
}
