package store_test

import (
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestGrantsRace has accounts granted twice at once: one of the grants stands.
func TestGrantsRace(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const other license.AccountName = "0000999999-00001"
		b := newBench(t, s, storetest.Fixture{SIMs: -1})
		storetest.Seed(t, s, storetest.Fixture{Account: other, SIMs: -1})
		if err := s.AddUser(t.Context(), auth.User{Name: "u", PasswordHash: "p"}, b.now); err != nil {
			t.Fatal(err)
		}
		for range 30 {
			var wg sync.WaitGroup
			for _, account := range []license.AccountName{storetest.Account, other} {
				wg.Go(func() {
					if err := s.GrantAccounts(t.Context(), "u", []license.AccountName{account}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if u, err := s.User(t.Context(), "u"); err != nil || len(u.Accounts) != 1 {
				t.Fatalf("after two grants of one account each: %v, %v; want one", u.Accounts, err)
			}
		}
	})
}

// TestAccountsRace has two accounts added at once that differ only by hyphens.
func TestAccountsRace(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		for i := range 30 {
			var wg sync.WaitGroup
			var added atomic.Int64
			for _, form := range []string{"%d-123", "%d1-23"} {
				wg.Go(func() {
					err := s.AddAccount(t.Context(), license.AccountName(fmt.Sprintf(form, 1000+i)), storetest.Start())
					if err == nil {
						added.Add(1)
					} else if !errors.Is(err, license.ErrExists) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := added.Load(); n != 1 {
				names, _ := s.Accounts(t.Context())
				t.Fatalf("%d accounts were added, want one: %v", n, names)
			}
		}
	})
}

// TestTokenOfAFormerSecret has the secret changed between the reading of an
// application that never had a token and the storing of its first.
func TestTokenOfAFormerSecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		if err := s.AddApplication(t.Context(), "app", "old", storetest.Start()); err != nil {
			t.Fatal(err)
		}
		a, err := s.Application(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RotateApplication(t.Context(), "app", "new", time.Time{}); err != nil {
			t.Fatal(err)
		}
		a.Nonce, a.Issued, a.TokenHash = "nonce", storetest.Start(), "token"
		if replaced, err := s.ReplaceToken(t.Context(), a, ""); err != nil || replaced {
			t.Errorf("ReplaceToken = %v, %v; want the token of the old secret refused", replaced, err)
		}
	})
}

// TestRacingUnassigns has many clients unassign the same SIMs, in both orders:
// one of them is accepted, and each license is released once.
func TestRacingUnassigns(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		for range 5 {
			b.accept(license.Assign, license.SKUFlexible, b.sims[:3]...)
			b.carry(license.Done)
			var wg sync.WaitGroup
			var accepted atomic.Int64
			for range 8 {
				p := b.params(license.Unassign, license.SKUFlexible, b.sims[:3]...)
				wg.Go(func() {
					_, err := s.Accept(t.Context(), p)
					if err == nil {
						accepted.Add(1)
					} else if !errors.Is(err, license.ErrHeld) {
						t.Errorf("Accept: %v, want success or ErrHeld", err)
					}
				})
			}
			wg.Wait()
			if n := accepted.Load(); n != 1 {
				t.Errorf("%d unassigns of the same SIMs were accepted, want one", n)
			}
			b.carry(license.Done)
			b.wantPool(license.SKUFlexible, 0, 0)
		}
	})
}

// TestRacingClaims has several nodes claim at once: no two get the same work, or
// the carrier would be asked twice as a matter of course.
func TestRacingClaims(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const sims = 40
		b := newBench(t, s, storetest.Fixture{SIMs: sims})
		b.accept(license.Assign, license.SKUFlexible, b.sims...)
		var wg sync.WaitGroup
		var mu sync.Mutex
		claimed := map[string]int{}
		for range 8 {
			wg.Go(func() {
				tasks, err := s.ClaimTasks(t.Context(), license.ClaimParams{
					Account: storetest.Account, Now: b.now, Until: b.now.Add(20 * time.Second), Limit: sims / 4,
				})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, task := range tasks {
					claimed[task.Key()]++
				}
			})
		}
		wg.Wait()
		for key, n := range claimed {
			if n > 1 {
				t.Errorf("%s was claimed %d times", key, n)
			}
		}
		b.carry(license.Done)
	})
}

// TestStorm has several nodes do everything at once on few SIMs: accept, claim,
// settle, by the carrier's own word too, send and purge, some of it late or twice. Whatever happens, nothing
// fails but by the rules, and the ledger agrees with itself.
func TestStorm(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			b := newBench(t, db.Open(t), storetest.Fixture{SIMs: 12, Pools: map[license.SKU]int64{license.SKUFlexible: 8}})
			b.listen()
			nodes := []*store.Store{b.s, db.Open(t), db.Open(t)}
			var clock atomic.Int64
			var wg sync.WaitGroup
			for i := range 6 {
				n := node{t: t, s: nodes[i%len(nodes)], sims: b.sims, rand: rand.New(rand.NewPCG(7, uint64(i))), now: func() time.Time {
					return b.now.Add(time.Duration(clock.Add(1)) * time.Second)
				}}
				wg.Go(func() {
					for range 60 {
						n.step()
					}
				})
			}
			wg.Wait()
			b.verify()
		})
	}
}

// node is one of several that work on one database.
type node struct {
	t     *testing.T
	s     *store.Store
	sims  []license.SIM
	rand  *rand.Rand
	now   func() time.Time
	tasks []license.Task
	calls []license.Callback
}

func (n *node) step() {
	now := n.now()
	claim := license.ClaimParams{Account: storetest.Account, Now: now, Until: now.Add(20 * time.Second), Limit: 5}
	var err error
	switch n.rand.IntN(9) {
	case 0, 1:
		err = n.request(license.Assign, now)
	case 2:
		err = n.request(license.Unassign, now)
	case 3:
		var tasks []license.Task
		if _, err = n.s.DueAccounts(n.t.Context(), license.PhaseCarrier, now); err != nil {
			break
		}
		tasks, err = n.s.ClaimTasks(n.t.Context(), claim)
		n.tasks = append(n.tasks, tasks...)
	case 4, 5:
		var list []license.Outcome
		for _, task := range n.tasks {
			v := []license.Verdict{license.Done, license.Done, license.Refused, license.Later}[n.rand.IntN(4)]
			list = append(list, license.Outcome{Task: task, Verdict: v, Due: now})
		}
		_, err = n.s.SettleTasks(n.t.Context(), license.SettleParams{Now: now, Outcomes: list})
		n.tasks = n.tasks[:n.rand.IntN(len(n.tasks)+1)] // the rest is told again
	case 6:
		var calls []license.Callback
		calls, err = n.s.ClaimCallbacks(n.t.Context(), claim)
		n.calls = append(n.calls, calls...)
	case 7:
		var ends []license.Delivery
		for _, c := range n.calls {
			ends = append(ends, license.Delivery{Callback: c, Verdict: license.DeliveryVerdict(n.rand.IntN(4)), Status: 200, At: now, Due: now})
		}
		if err = n.s.FinishCallbacks(n.t.Context(), now, ends); err == nil {
			_, err = n.s.Purge(n.t.Context(), now, time.Minute)
		}
		n.calls = n.calls[:n.rand.IntN(len(n.calls)+1)]
	case 8:
		var words []license.LateOutcome
		for _, task := range n.tasks {
			v := []license.Verdict{license.Done, license.Refused}[n.rand.IntN(2)]
			words = append(words, license.LateOutcome{Request: task.Request, ICCID: task.Device.ICCID, Verdict: v})
		}
		_, err = n.s.SettleLate(n.t.Context(), license.LateParams{Account: storetest.Account, Now: now, Outcomes: words})
	}
	if err != nil {
		n.t.Errorf("a step of a node: %v", err)
	}
}

// request asks for some SIMs, and takes a refusal by the rules for an answer.
func (n *node) request(action license.Action, now time.Time) error {
	var devices []license.Device
	for _, i := range n.rand.Perm(len(n.sims))[:1+n.rand.IntN(3)] {
		devices = append(devices, license.Device{ICCID: n.sims[i].Device.ICCID})
	}
	r, err := license.NewRequest(license.NewRequestID(now, cryptorand.Reader), storetest.Account, license.SKUFlexible, action, devices, now)
	if err != nil {
		return err
	}
	a, err := n.s.Accept(n.t.Context(), license.AcceptParams{Request: r, Room: n.rand.IntN(3), LeaseUntil: now.Add(20 * time.Second)})
	n.tasks = append(n.tasks, a.Tasks...)
	for _, rule := range []error{license.ErrHeld, license.ErrNotHeld, license.ErrInsufficient} {
		if errors.Is(err, rule) {
			return nil
		}
	}
	return err
}
