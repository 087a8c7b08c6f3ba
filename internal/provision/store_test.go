package provision_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/provision"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// outbox is a Sink that takes everything.
type outbox struct {
	mu        sync.Mutex // guards what follows
	callbacks []license.Callback
}

func (*outbox) Reserve(_ license.AccountName, n int) int { return n }

func (o *outbox) Give(_ license.AccountName, _ int, callbacks []license.Callback) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.callbacks = append(o.callbacks, callbacks...)
}

func (*outbox) Wake() {}

func (o *outbox) count() (ok, failed int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.callbacks {
		if c.OK {
			ok++
		} else if c.Comment == carrier.SimulatedRefusal {
			failed++
		}
	}
	return ok, failed
}

// journey is a worker on a real store, with the simulated carrier.
type journey struct {
	store  *store.Store
	worker *provision.Worker
	outbox *outbox
	sims   []license.SIM
	asked  int
}

// accept accepts a request for sims as the API does and waits for its end.
func (j *journey) accept(t *testing.T, action license.Action, sims []license.SIM, born bool) license.Progress {
	t.Helper()
	j.asked++
	now := time.Now()
	var random [10]byte
	random[0] = byte(j.asked)
	id := license.NewRequestID(now, &repeat{random[:]})
	r, err := license.NewRequest(id, storetest.Account, license.SKUFlexible, action, storetest.Devices(sims), now)
	if err != nil {
		t.Fatal(err)
	}
	room := 0
	if born {
		room = j.worker.Reserve(storetest.Account, len(sims))
	}
	accepted, err := j.store.Accept(t.Context(), license.AcceptParams{
		Request: r, Application: "app", User: "user",
		Room: room, LeaseUntil: now.Add(20 * time.Second),
	})
	if err != nil {
		t.Fatalf("accepting %s of %d: %v", action, len(sims), err)
	}
	j.worker.Give(storetest.Account, room, accepted.Tasks)
	if accepted.More {
		j.worker.Wake()
	}
	for deadline := time.After(30 * time.Second); ; {
		p, err := j.store.Progress(t.Context(), storetest.Account, id)
		if err != nil {
			t.Fatal(err)
		}
		if p.Status() != license.StatusPending {
			return p
		}
		select {
		case <-deadline:
			t.Fatalf("request %s is at %+v", id, p)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// repeat reads the same bytes again and again.
type repeat struct{ b []byte }

func (r *repeat) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = r.b[i%len(r.b)]
	}
	return len(p), nil
}

func newJourney(t *testing.T, s *store.Store) *journey {
	t.Helper()
	j := &journey{store: s, outbox: &outbox{}, sims: storetest.Seed(t, s, storetest.Fixture{SIMs: 60})}
	l := license.Listener{Account: storetest.Account, Service: license.CarrierService, URL: "http://listener.example/"}
	if err := s.PutListener(t.Context(), l, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := carrier.NewSimulated(carrier.SimulatedConfig{RefuseRate: 0.3})
	if err != nil {
		t.Fatal(err)
	}
	if j.worker, err = provision.New(provision.Config{Queue: s, Carrier: c, Sink: j.outbox, Poll: 10 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- j.worker.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return j
}

// storetest verifies the ledger at the end.
func TestWithTheStore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		j := newJourney(t, s)
		first, second := j.accept(t, license.Assign, j.sims[:25], true), j.accept(t, license.Assign, j.sims[25:], false)
		done, failed := first.Done+second.Done, first.Failed+second.Failed
		if done == 0 || failed == 0 || done+failed != 60 {
			t.Fatalf("%d assigned and %d refused, want 60 in all and some of both", done, failed)
		}
		wantPool(t, s, int64(done))

		held, err := s.Devices(t.Context(), license.DeviceFilter{Accounts: []license.AccountName{storetest.Account}, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		var assigned []license.SIM
		for _, sim := range held {
			if sim.SKU != "" {
				assigned = append(assigned, sim)
			}
		}
		freed := j.accept(t, license.Unassign, assigned, true)
		if freed.Failed == 0 {
			t.Error("no unassign was refused")
		}
		wantPool(t, s, int64(done-freed.Done))

		ok, refused := done+freed.Done, failed+freed.Failed
		for deadline := time.After(10 * time.Second); ; {
			if gotOK, gotRefused := j.outbox.count(); gotOK == ok && gotRefused == refused {
				break
			}
			select {
			case <-deadline:
				gotOK, gotRefused := j.outbox.count()
				t.Fatalf("%d and %d callbacks, want %d and %d", gotOK, gotRefused, ok, refused)
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
}

func wantPool(t *testing.T, s *store.Store, assigned int64) {
	t.Helper()
	pools, err := s.Pools(t.Context(), storetest.Account)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pools {
		if p.SKU != license.SKUFlexible {
			continue
		}
		want := license.Pool{Account: storetest.Account, SKU: license.SKUFlexible, Purchased: 100, Assigned: assigned}
		if diff := cmp.Diff(want, p); diff != "" {
			t.Errorf("the pool (-want +got):\n%s", diff)
		}
	}
}
