package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestCompany has many small requests of one account come at once, of every kind
// and fate: each hears of its own, whoever it shares a transaction with.
func TestCompany(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const each = 8
		b := newBench(t, s, storetest.Fixture{
			SIMs:  6 * each,
			Pools: map[license.SKU]int64{license.SKUFlexible: 100, license.SKUBundle: 3},
		})
		b.accept(license.Assign, license.SKUFlexible, b.sims[:3*each]...)
		b.settle(outcomes(b.claim(2*each), license.Done)...) // and the third lot stays at the carrier
		type request struct {
			params license.AcceptParams
			want   string
		}
		var requests []request
		ask := func(want string, action license.Action, sku license.SKU, lot, i int) *license.AcceptParams {
			requests = append(requests, request{b.params(action, sku, b.sims[lot*each+i]), want})
			return &requests[len(requests)-1].params
		}
		for i := range each {
			ask("accepted", license.Unassign, license.SKUFlexible, 0, i)
			ask(license.ErrHeld.Error(), license.Assign, license.SKUFlexible, 1, i)
			ask(license.ErrHeld.Error(), license.Unassign, license.SKUFlexible, 2, i)
			ask("accepted", license.Assign, license.SKUFlexible, 3, i)
			// Eight for three licenses.
			ask("accepted or insufficient", license.Assign, license.SKUBundle, 4, i)
			// Twice under one key.
			for range 2 {
				p := ask("accepted or replayed", license.Assign, license.SKUFlexible, 5, i)
				p.IdempotencyKey, p.BodyHash = fmt.Sprint("key ", i), "the body"
			}
		}
		for i := range 2 {
			p := ask(license.ErrUnknownDevice.Error(), license.Assign, license.SKUFlexible, 3, i)
			p.Request.Devices[0].ICCID = license.ICCID(fmt.Sprintf("8914800000000000%04d", 9000+i))
		}
		rand.Shuffle(len(requests), func(i, j int) { requests[i], requests[j] = requests[j], requests[i] })
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[string]int{}
		for _, r := range requests {
			wg.Go(func() {
				a, err := s.Accept(t.Context(), r.params)
				fate := "accepted"
				for _, rule := range []error{license.ErrHeld, license.ErrUnknownDevice, license.ErrInsufficient} {
					if errors.Is(err, rule) {
						fate, err = rule.Error(), nil
					}
				}
				if err != nil {
					fate = err.Error()
				} else if a.Replay {
					fate = "replayed"
				}
				mu.Lock()
				defer mu.Unlock()
				got[r.want+": "+fate]++
			})
		}
		wg.Wait()
		want := map[string]int{
			"accepted: accepted": 2 * each,
			license.ErrHeld.Error() + ": " + license.ErrHeld.Error():                   2 * each,
			license.ErrUnknownDevice.Error() + ": " + license.ErrUnknownDevice.Error(): 2,
			"accepted or insufficient: accepted":                                       3,
			"accepted or insufficient: " + license.ErrInsufficient.Error():             each - 3,
			"accepted or replayed: accepted":                                           each,
			"accepted or replayed: replayed":                                           each,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("fates (-want +got):\n%s", diff)
		}
		b.wantPool(license.SKUBundle, 3, 0)
		b.wantPool(license.SKUFlexible, 3*each, 2*each)
	})
}

// TestCompanyOfThoseWhoGiveUp has callers give up while they wait, at any moment:
// whoever hears of success has a request, and the others' turns are not lost.
func TestCompanyOfThoseWhoGiveUp(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const callers = 120
		b := newBench(t, s, storetest.Fixture{SIMs: callers, Pools: map[license.SKU]int64{license.SKUFlexible: callers}})
		var wg sync.WaitGroup
		told := make([]error, callers)
		ids := make([]license.RequestID, callers)
		for i := range callers {
			p := b.params(license.Assign, license.SKUFlexible, b.sims[i])
			ids[i] = p.Request.ID
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(20*time.Millisecond))
			if i%2 == 0 {
				ctx = t.Context() // patient
			}
			wg.Go(func() {
				defer cancel()
				_, told[i] = s.Accept(ctx, p)
			})
		}
		wg.Wait()
		for i, err := range told {
			_, status := s.Progress(t.Context(), storetest.Account, ids[i])
			switch {
			case i%2 == 0 && err != nil:
				t.Errorf("patient caller %d: %v", i, err)
			case err == nil && status != nil:
				t.Errorf("caller %d was told of success: %v", i, status)
			}
		}
	})
}

// TestCompanyBesideAnother has the requests of an account be accepted while another of
// its transactions is under way, where the engine can.
func TestCompanyBesideAnother(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		if e.Name != "postgres" {
			continue // it has one writer
		}
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			b := newBench(t, db.Open(t), storetest.Fixture{SIMs: 3})
			lock, err := db.SQL(t).BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = lock.Rollback() }()
			if _, err := lock.ExecContext(t.Context(), `SELECT 1 FROM sim WHERE iccid = $1 FOR UPDATE`, string(b.sims[0].Device.ICCID)); err != nil {
				t.Fatal(err)
			}
			held := make(chan error, 1)
			p := b.params(license.Assign, license.SKUFlexible, b.sims[0])
			go func() {
				_, err := b.s.Accept(t.Context(), p)
				held <- err
			}()
			for blocked := 0; blocked == 0; { // until it is under way
				<-time.After(time.Millisecond)
				const waits = `SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))`
				if err := lock.QueryRowContext(t.Context(), waits).Scan(&blocked); err != nil {
					t.Fatal(err)
				}
			}
			for _, sim := range b.sims[1:] {
				b.accept(license.Assign, license.SKUFlexible, sim)
			}
			select {
			case err := <-held:
				t.Errorf("accepted while its SIM was locked: %v", err)
			default:
			}
			if err := lock.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := <-held; err != nil {
				t.Error(err)
			}
			b.wantPool(license.SKUFlexible, 3, 0)
		})
	}
}
