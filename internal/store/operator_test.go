package store_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

func sequence(sims []license.SIM, end error) func(func(license.SIM, error) bool) {
	return func(yield func(license.SIM, error) bool) {
		for _, sim := range sims {
			if !yield(sim, nil) {
				return
			}
		}
		if end != nil {
			yield(license.SIM{}, end)
		}
	}
}

func TestImport(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		const other license.AccountName = "0000999999-00001"
		b := newBench(t, s, storetest.Fixture{SIMs: 3})
		storetest.Seed(t, s, storetest.Fixture{Account: other, SIMs: 1})
		list := func() (got []license.ICCID) {
			t.Helper()
			sims, err := s.Devices(t.Context(), license.DeviceFilter{Accounts: []license.AccountName{storetest.Account, other}, Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			for i, sim := range sims {
				if i > 0 && sim.Number <= sims[i-1].Number {
					t.Errorf("number %d after %d", sim.Number, sims[i-1].Number)
				}
				got = append(got, sim.Device.ICCID)
			}
			return got
		}
		before := list()
		fresh := storetest.SIM(storetest.Account, 10)
		moved := storetest.SIM(other, 0)
		moved.Account = storetest.Account
		changed := b.sims[1]
		changed.Device.MDN = "999"
		homeless := storetest.SIM("0000777777-00001", 1)
		for _, test := range []struct {
			name  string
			sims  []license.SIM
			end   error
			want  string
			index int
		}{
			{"a line that does not parse", []license.SIM{fresh}, errors.New("line 3 is bad"), "line 3 is bad", 0},
			{"another account's", []license.SIM{fresh, moved}, nil, "belongs to another account", 2},
			{"other identifiers", []license.SIM{fresh, changed}, nil, "is there already", 2},
			{"no account", []license.SIM{homeless}, nil, "no such account", 1},
		} {
			t.Run(test.name, func(t *testing.T) {
				_, err := s.Import(t.Context(), sequence(test.sims, test.end), b.now, nil)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("Import: %v, want %q", err, test.want)
				}
				var conflict *store.ConflictError
				if errors.As(err, &conflict) != (test.end == nil) || conflict != nil && conflict.Index != test.index {
					t.Errorf("Import: %#v, want a conflict at %d", conflict, test.index)
				}
			})
		}
		if diff := cmp.Diff(before, list()); diff != "" {
			t.Errorf("a failed import left something (-before +after):\n%s", diff)
		}
		got, err := s.Import(t.Context(), sequence(append(b.sims[:2:2], fresh, fresh), nil), b.now, nil)
		if want := (store.ImportResult{Added: 1, Unchanged: 3}); err != nil || got != want {
			t.Errorf("Import = %+v, %v; want %+v", got, err, want)
		}
	})
}

func TestDevices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 8})
		if _, err := s.SetState(t.Context(), storetest.Account, []license.ICCID{b.sims[2].Device.ICCID}, license.StateSuspended); err != nil {
			t.Fatal(err)
		}
		number := func(i int) int64 { return int64(i + 1) }
		for _, test := range []struct {
			name   string
			filter license.DeviceFilter
			want   []int
		}{
			{"all", license.DeviceFilter{}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
			{"a page", license.DeviceFilter{After: number(2), Limit: 2}, []int{3, 4}},
			{"by state", license.DeviceFilter{State: license.StateSuspended}, []int{2}},
			{"by ICCID", license.DeviceFilter{Device: license.Device{ICCID: b.sims[3].Device.ICCID}}, []int{3}},
			{"by IMEI", license.DeviceFilter{Device: license.Device{IMEI: b.sims[4].Device.IMEI}}, []int{4}},
			{"by MDN", license.DeviceFilter{Device: license.Device{MDN: b.sims[5].Device.MDN}}, []int{5}},
			{"any of some", license.DeviceFilter{Devices: []license.Device{{MDN: b.sims[5].Device.MDN}, {ICCID: b.sims[1].Device.ICCID}}}, []int{1, 5}},
			{"by a pair that is none", license.DeviceFilter{Device: license.Device{ICCID: b.sims[3].Device.ICCID, IMEI: b.sims[4].Device.IMEI}}, nil},
			{"by an end", license.DeviceFilter{Match: []license.IdentifierMatch{{Kind: license.KindMDN, Suffix: "06"}}}, []int{6}},
			{"by parts that overlap", license.DeviceFilter{Match: []license.IdentifierMatch{{Kind: license.KindMDN, Prefix: "5550", Contains: "50", Suffix: "00003"}, {Kind: license.KindMDN, Prefix: "555"}}}, []int{3}},
			{"by parts that contradict", license.DeviceFilter{Match: []license.IdentifierMatch{{Kind: license.KindMDN, Prefix: "555"}, {Kind: license.KindMDN, Prefix: "556"}}}, nil},
			{"by ID and state", license.DeviceFilter{State: license.StateActive, Devices: []license.Device{{ICCID: b.sims[2].Device.ICCID}}}, nil},
			{"by time", license.DeviceFilter{Latest: b.now}, nil},
		} {
			t.Run(test.name, func(t *testing.T) {
				f := test.filter
				f.Accounts = []license.AccountName{storetest.Account}
				if f.Limit == 0 {
					f.Limit = 100
				}
				sims, err := s.Devices(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				var got []int
				for _, sim := range sims {
					got = append(got, int(sim.Number-1))
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	})
}

func TestPurchases(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{Pools: map[license.SKU]int64{license.SKUFlexible: 10}})
		b.accept(license.Assign, license.SKUFlexible, b.sims[:4]...)
		buy := func(units int64) error {
			_, err := s.AddPurchase(t.Context(), license.Purchase{
				Account: storetest.Account, SKU: license.SKUFlexible,
				Units: units, Reason: "test",
			}, b.now)
			return err
		}
		if err := buy(-7); !errors.Is(err, license.ErrInsufficient) {
			t.Errorf("withdrawing more than is free: %v, want ErrInsufficient", err)
		}
		if err := buy(-6); err != nil {
			t.Errorf("withdrawing what is free: %v", err)
		}
		if err := buy(5); err != nil {
			t.Errorf("buying: %v", err)
		}
		if p := b.pool(license.SKUFlexible); p.Purchased != 9 || p.Available() != 5 {
			t.Errorf("pool %+v, want 9 purchased and 5 available", p)
		}
		_, err := s.AddPurchase(t.Context(), license.Purchase{Account: "0000000000-00009", SKU: license.SKUFlexible, Units: 1, Reason: "x"}, b.now)
		if !errors.Is(err, license.ErrNotFound) {
			t.Errorf("buying for no account: %v, want ErrNotFound", err)
		}
		if err := s.AddAccount(t.Context(), "000012345600001", b.now); !errors.Is(err, license.ErrExists) {
			t.Errorf("the account without its hyphen: %v, want ErrExists", err)
		}
	})
}

func TestListeners(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		changes := s.ListenerChanges()
		b.listen()
		tuned := license.Listener{
			Account: storetest.Account, Service: license.CarrierService, URL: "https://example.com/",
			Username: "user", Password: "secret", SigningSecret: "whsec_x", Attempts: 2, Interval: time.Second, Timeout: 3 * time.Second,
		}
		if err := s.TuneListener(t.Context(), tuned); err != nil {
			t.Fatal(err)
		}
		got, err := s.Listener(t.Context(), storetest.Account, license.CarrierService)
		if diff := cmp.Diff(tuned, got); err != nil || diff != "" {
			t.Errorf("Listener: %v (-want +got):\n%s", err, diff)
		}
		b.listen()
		if got, err = s.Listener(t.Context(), storetest.Account, license.CarrierService); err != nil || got.Attempts != 2 {
			t.Errorf("registered again: %+v, %v; want what was tuned kept", got, err)
		}
		if s.ListenerChanges() < changes+3 {
			t.Errorf("the changes were not counted")
		}
		if err := s.DeleteListener(t.Context(), storetest.Account, license.CarrierService); err != nil {
			t.Error(err)
		}
		if err := s.DeleteListener(t.Context(), storetest.Account, license.CarrierService); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("deleted again: %v, want ErrNotFound", err)
		}
	})
}

func TestSecretsAreSealed(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			newBench(t, db.Open(t), storetest.Fixture{}).listen()
			var stored string
			if err := db.SQL(t).QueryRow(`SELECT password FROM listener`).Scan(&stored); err != nil {
				t.Fatal(err)
			}
			if stored == "" || strings.Contains(stored, "secret") {
				t.Errorf("the password is stored as %q", stored)
			}
			other, err := auth.NewSealer(make([]byte, 32))
			if err != nil {
				t.Fatal(err)
			}
			first := db.Open(t)
			if err := first.CheckSealer(t.Context()); err != nil {
				t.Errorf("the first key: %v", err)
			}
			s, err := store.Open(t.Context(), db.URL, store.Options{Sealer: other})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			if err := s.CheckSealer(t.Context()); !errors.Is(err, store.ErrOtherKey) {
				t.Errorf("another key: %v, want ErrOtherKey", err)
			}
			if _, err := s.Listener(t.Context(), storetest.Account, license.CarrierService); err == nil {
				t.Error("another key opened the secret")
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		ctx := t.Context()
		if err := s.AddApplication(ctx, "app", "hash", b.now); err != nil {
			t.Fatal(err)
		}
		if err := s.AddApplication(ctx, "app", "hash", b.now); !errors.Is(err, license.ErrExists) {
			t.Errorf("the same application: %v, want ErrExists", err)
		}
		a := auth.Application{Key: "app", SecretHash: "hash", Nonce: "n", Issued: b.now, TokenHash: "t"}
		for i, want := range []bool{true, false} {
			if got, err := s.ReplaceToken(ctx, a, ""); err != nil || got != want {
				t.Errorf("replacing the token, try %d: %v, %v; want %v", i+1, got, err, want)
			}
		}
		if got, err := s.ApplicationByToken(ctx, "t"); err != nil || got.Key != "app" || !got.Issued.Equal(b.now) {
			t.Errorf("ApplicationByToken = %+v, %v", got, err)
		}
		if _, err := s.ApplicationByToken(ctx, ""); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("the empty token: %v, want ErrNotFound", err)
		}
		if err := s.RotateApplication(ctx, "app", "other", time.Time{}); err != nil {
			t.Error(err)
		}
		if _, err := s.ApplicationByToken(ctx, "t"); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("the token of a former secret: %v, want ErrNotFound", err)
		}
		u := auth.User{Name: "u", PasswordHash: "p", Accounts: []license.AccountName{storetest.Account}}
		if err := s.AddUser(ctx, u, b.now); err != nil {
			t.Fatal(err)
		}
		if err := s.GrantAccounts(ctx, "u", []license.AccountName{"nowhere-1"}); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("granting no account: %v, want ErrNotFound", err)
		}
		if err := s.PutSession(ctx, auth.Session{Hash: "h", Application: "app", User: "u", Used: b.now}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Session(ctx, "h")
		want := auth.Session{Hash: "h", Application: "app", User: "u", Used: b.now, Accounts: u.Accounts}
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("Session: %v (-want +got):\n%s", err, diff)
		}
		name := "user:" + strings.Repeat("long", 100)
		for range 3 {
			if err := s.AddFailure(ctx, name, "::1", b.now, func(n int) time.Duration { return time.Duration(n) * time.Minute }); err != nil {
				t.Fatal(err)
			}
		}
		f, err := s.Failures(ctx, name, "::1")
		if err != nil || f.Count != 3 || !f.Until.Equal(b.now.Add(3*time.Minute)) {
			t.Errorf("Failures = %+v, %v; want 3 until three minutes on", f, err)
		}
	})
}

func TestPurge(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		delivered := b.accept(license.Assign, license.SKUFlexible, b.sims[0])
		b.carry(license.Done)
		b.finish(b.claimCallbacks(1)[0], license.Delivered)
		b.accept(license.Assign, license.SKUFlexible, b.sims[1])
		b.carry(license.Done)
		b.finish(b.claimCallbacks(1)[0], license.Exhausted)
		b.accept(license.Assign, license.SKUFlexible, b.sims[2]) // stays at the carrier
		purge := func(after time.Duration) int {
			t.Helper()
			n, err := s.Purge(t.Context(), b.now.Add(after), 7*24*time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			b.verify()
			return n
		}
		const day = 24 * time.Hour
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{6 * day, 0}, {8 * day, 1}, {29 * day, 0}, {31 * day, 2}, {400 * day, 0}} {
			if got := purge(step.after); got != step.want {
				t.Errorf("purged %d rows after %v, want %d", got, step.after, step.want)
			}
		}
		b.wantStatus(delivered, license.StatusSuccess)
		// The audit tells of the two purges that found something.
		told, err := s.Audit(t.Context(), store.AuditFilter{Account: storetest.Account, Action: "work.purge"})
		want := fmt.Sprintf(`{"endedBefore":%q}`, b.now.Add(24*day).Format(time.RFC3339))
		if err != nil || len(told) != 2 || told[0].After != want || told[0].Via != license.ViaSystem {
			t.Errorf("the audit of it: %+v, %v, want two entries, the last with %s", told, err, want)
		}
		// What a SIM holds outlives its task.
		b.accept(license.Unassign, license.SKUFlexible, b.sims[0])
		b.carry(license.Done)
		b.wantPool(license.SKUFlexible, 0, 2)
	})
}

// TestVerifyFinds damages the ledger in each way that Verify must find.
func TestVerifyFinds(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			for _, test := range []struct{ name, damage, want string }{
				{"pool", `UPDATE pool SET assigned = assigned + 1 WHERE sku = 'SIMSec-IoT'`, "the SIMs"},
				{"purchased", `UPDATE pool SET purchased = purchased + 1 WHERE sku = 'SIMSec-IoT'`, "the purchases"},
				{"SIM", `UPDATE sim SET sku = '' WHERE request <> ''`, "the SIMs"},
				{"posting", `UPDATE posting SET units = units + 1 WHERE kind = 'post'`, "the postings"},
				{"posting lost", `DELETE FROM posting WHERE kind = 'reserve'`, "its postings"},
				{"task lost", `DELETE FROM task WHERE phase = 'ended'`, "its tasks"},
				{"request", `UPDATE request SET succeeded = 0`, "its counts"},
				{"stray task", `UPDATE task SET phase = 'carrier' WHERE phase = 'ended'`, "reserved"},
				{"owner", `UPDATE sim_owner SET account = 'x'`, "not registered"},
				{"pool lost", `DELETE FROM pool WHERE sku = 'SIMSec-IoT'`, "no pool"},
			} {
				t.Run(test.name, func(t *testing.T) {
					db := e.NewDatabase(t)
					s := db.Open(t)
					b := newBench(t, s, storetest.Fixture{})
					b.accept(license.Assign, license.SKUFlexible, b.sims[:2]...)
					b.carry(license.Done)
					b.verify()
					db.Damaged()
					if _, err := db.SQL(t).Exec(test.damage); err != nil {
						t.Fatal(err)
					}
					var found []string
					if _, err := s.Verify(t.Context(), func(d license.Drift) { found = append(found, d.String()) }); err != nil {
						t.Fatal(err)
					}
					if !strings.Contains(strings.Join(found, "\n"), test.want) {
						t.Errorf("found %q, want something with %q", found, test.want)
					}
				})
			}
		})
	}
}

func TestTakeOver(t *testing.T) {
	db := storetest.Engines(t)[0].NewDatabase(t)
	s := db.Open(t)
	b := newBench(t, s, storetest.Fixture{})
	if err := s.TakeOver(t.Context(), b.now); err != nil {
		t.Fatal(err)
	}
	if err := db.Open(t).TakeOver(t.Context(), b.now); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Errorf("a second one: %v, want it refused", err)
	}
	b.accept(license.Assign, license.SKUFlexible, b.sims[:2]...)
	leased := b.claim(1)
	b.settle(license.Outcome{Task: b.claim(1)[0], Verdict: license.Later, Due: b.now.Add(time.Hour)})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b.s = db.Open(t)
	if err := b.s.TakeOver(t.Context(), b.now); err != nil {
		t.Fatal(err)
	}
	// Before anyone claims it again.
	if settled := b.settle(outcomes(leased, license.Done)...); settled.Counted != 0 {
		t.Error("the lease of the former process still counts")
	}
	got := b.claim(10)
	if len(got) != 1 || got[0].Key() != leased[0].Key() {
		t.Errorf("claimed %+v after taking over; want the task that was leased, not the one that is due later", got)
	}
}

// TestImportThatPanics has the reading of an inventory panic: the import fails,
// and nothing stays locked.
func TestImportThatPanics(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: -1})
		_, err := s.Import(t.Context(), func(yield func(license.SIM, error) bool) {
			for i := range 3000 {
				yield(storetest.SIM(storetest.Account, i), nil)
			}
			panic("a bug")
		}, b.now, nil)
		if err == nil {
			t.Error("the import that panicked succeeded")
		}
		b.importSIMs(storetest.SIM(storetest.Account, 1))
	})
}

// TestHugePurchase has purchases beyond what a pool can count.
func TestHugePurchase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		for _, units := range []int64{math.MaxInt64, math.MinInt64, 1_000_000_000_001} {
			_, err := s.AddPurchase(t.Context(), license.Purchase{
				Account: storetest.Account, SKU: license.SKUFlexible, Units: units, Reason: "test",
			}, b.now)
			var input *license.InputError
			if !errors.As(err, &input) {
				t.Errorf("buying %d: %v, want an InputError", units, err)
			}
		}
		if p := b.pool(license.SKUFlexible); p.Purchased != 100 {
			t.Errorf("%d purchased, want 100", p.Purchased)
		}
	})
}

// TestSchemaChangedBeneath has another process, of the next version, add to the
// schema while this one works.
func TestSchemaChangedBeneath(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			b := newBench(t, db.Open(t), storetest.Fixture{})
			life := func() {
				t.Helper()
				b.accept(license.Assign, license.SKUFlexible, b.sims...)
				b.carry(license.Done)
				b.accept(license.Unassign, license.SKUFlexible, b.sims...)
				b.carry(license.Done)
				b.wantPool(license.SKUFlexible, 0, 0)
			}
			life()
			raw := db.SQL(t)
			for _, table := range []string{"sim", "task", "request", "pool", "posting", "listener"} {
				if _, err := raw.Exec(`ALTER TABLE ` + table + ` ADD COLUMN later TEXT NOT NULL DEFAULT ''`); err != nil {
					t.Fatal(err)
				}
			}
			life()
		})
	}
}

// TestSessions has a session used, out of turn too, and its user disabled.
func TestSessions(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			s, ctx, now := db.Open(t), t.Context(), storetest.Start()
			if err := s.AddUser(ctx, auth.User{Name: "u", PasswordHash: "p"}, now); err != nil {
				t.Fatal(err)
			}
			if err := s.PutSession(ctx, auth.Session{Hash: "h", Application: "app", User: "u", Used: now}); err != nil {
				t.Fatal(err)
			}
			for _, used := range []time.Time{now.Add(2 * time.Minute), now.Add(time.Minute)} {
				if err := s.TouchSession(ctx, "h", used); err != nil {
					t.Fatal(err)
				}
			}
			if ses, err := s.Session(ctx, "h"); err != nil || !ses.Used.Equal(now.Add(2*time.Minute)) {
				t.Errorf("Session: used %v, %v; want the later use", ses.Used, err)
			}
			if _, err := db.SQL(t).ExecContext(ctx, `UPDATE credential SET disabled = 1 WHERE name = 'u'`); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Session(ctx, "h"); !errors.Is(err, license.ErrNotFound) {
				t.Errorf("the session of a disabled user: %v, want ErrNotFound", err)
			}
		})
	}
}
