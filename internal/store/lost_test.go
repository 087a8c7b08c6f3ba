package store_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// A gate stands between a store and PostgreSQL. Once armed, it lets the next
// COMMIT through and breaks the connection in the place of its answer.
type gate struct {
	armed atomic.Bool
	lost  atomic.Int64
}

// openBehind opens a database through a gate.
func openBehind(t *testing.T, rawURL string) (*store.Store, *gate) {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, server := &gate{}, u.Host
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go g.relay(client, server)
		}
	}()
	t.Cleanup(func() { _ = l.Close() })
	u.Host = l.Addr().String()
	q := u.Query()
	q.Set("sslmode", "disable")
	u.RawQuery = q.Encode()
	s, err := store.Open(t.Context(), u.String(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, g
}

func (g *gate) relay(client net.Conn, server string) {
	defer func() { _ = client.Close() }()
	remote, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", server)
	if err != nil {
		return
	}
	defer func() { _ = remote.Close() }()
	var losing atomic.Bool
	go func() {
		defer func() { _ = client.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := remote.Read(buf)
			if losing.Load() {
				g.lost.Add(1)
				return
			}
			if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if bytes.Contains(buf[:n], []byte("commit\x00")) && g.armed.CompareAndSwap(true, false) {
			losing.Store(true)
		}
		if _, werr := remote.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// TestLostCommit has the answer to a commit lost: the write is repeated, and
// what it does is done once.
func TestLostCommit(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		if e.Name != "postgres" {
			continue
		}
		db := e.NewDatabase(t)
		b := newBench(t, db.Open(t), storetest.Fixture{})
		b.listen()
		s, g := openBehind(t, db.URL)
		losing := func(name string, write func(t *testing.T)) {
			t.Run(name, func(t *testing.T) {
				lost := g.lost.Load()
				g.armed.Store(true)
				write(t)
				if g.lost.Load() != lost+1 {
					t.Error("no commit was lost: the test is blind")
				}
				b.verify()
			})
		}
		losing("purchase", func(t *testing.T) {
			p, err := s.AddPurchase(t.Context(), license.Purchase{
				Account: storetest.Account, SKU: license.SKUFlexible, Units: 10, Reason: "test",
			}, b.now)
			if err != nil || p.Purchased != 110 {
				t.Errorf("AddPurchase: %+v, %v; want 110 purchased", p, err)
			}
			if p := b.pool(license.SKUFlexible); p.Purchased != 110 {
				t.Errorf("%d purchased, want 110", p.Purchased)
			}
		})
		losing("accept", func(t *testing.T) {
			p := b.params(license.Assign, license.SKUFlexible, b.sims[:3]...)
			p.IdempotencyKey, p.BodyHash = "key", "hash"
			a, err := s.Accept(t.Context(), p)
			if err != nil || a.ID != p.Request.ID || !a.Replay {
				t.Errorf("Accept: %+v, %v; want a replay of %s", a, err, p.Request.ID)
			}
			b.wantPool(license.SKUFlexible, 3, 0)
		})
		tasks := b.claim(3)
		losing("settle", func(t *testing.T) {
			_, err := s.SettleTasks(t.Context(), license.SettleParams{Now: b.now, Outcomes: outcomes(tasks, license.Done)})
			if err != nil {
				t.Errorf("SettleTasks: %v", err)
			}
			b.wantPool(license.SKUFlexible, 0, 3)
		})
		losing("settle late", func(t *testing.T) {
			id := b.accept(license.Assign, license.SKUFlexible, b.sims[3])
			p := license.LateParams{Account: storetest.Account, Now: b.now, Outcomes: []license.LateOutcome{lateOutcome(id, b.sims[3], license.Refused)}}
			if settled, err := s.SettleLate(t.Context(), p); err != nil || settled.Results[0] != license.LateRepeated {
				t.Errorf("SettleLate: %+v, %v; want it repeated", settled, err)
			}
			b.wantPool(license.SKUFlexible, 0, 3)
		})
		calls := b.claimCallbacks(1)
		losing("finish", func(t *testing.T) {
			err := s.FinishCallbacks(t.Context(), b.now, []license.Delivery{{Callback: calls[0], Verdict: license.Again, Status: 500, At: b.now, Due: b.now}})
			if err != nil {
				t.Errorf("FinishCallbacks: %v", err)
			}
			for _, c := range b.claimCallbacks(3) {
				if c.Device == calls[0].Device && c.Attempt != 1 {
					t.Errorf("%d attempts were counted, want 1", c.Attempt)
				}
			}
		})
	}
}

// TestImportLosesItsConnection has the connection break in the midst of an
// import: that is an outage, and no fault of the file.
func TestImportLosesItsConnection(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		if e.Name != "postgres" {
			continue
		}
		db := e.NewDatabase(t)
		db.URL += "&application_name=loser" // there are others on the server
		b := newBench(t, db.Open(t), storetest.Fixture{SIMs: -1})
		raw := db.SQL(t)
		_, err := b.s.Import(t.Context(), func(yield func(license.SIM, error) bool) {
			const more = 5000 // than are kept before the first statement
			for i := range more {
				if !yield(storetest.SIM(storetest.Account, i), nil) {
					return
				}
			}
			_, err := raw.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = 'loser'`)
			if err != nil {
				t.Error(err)
			}
			yield(storetest.SIM(storetest.Account, more), nil)
		}, b.now, nil)
		var unavailable *license.UnavailableError
		var conflict *store.ConflictError
		if !errors.As(err, &unavailable) || errors.As(err, &conflict) {
			t.Errorf("Import: %v, want an UnavailableError", err)
		}
	}
}
