package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

var olga = license.Actor{Name: "olga", Via: license.ViaConsole, From: "192.0.2.7"}

// TestAuditTells changes one thing after the other, and reads what the audit
// tells of it.
func TestAuditTells(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx, now := t.Context(), storetest.Start()
		sims := storetest.Seed(t, s, storetest.Fixture{SIMs: 3})
		if _, err := s.SetState(ctx, storetest.Account, []license.ICCID{sims[2].Device.ICCID}, license.StateSuspended); err != nil {
			t.Fatal(err)
		}
		from, err := s.Audit(ctx, store.AuditFilter{Limit: 1})
		if err != nil || len(from) != 1 || from[0].Name != "simlatch" || from[0].Via != license.ViaSystem {
			t.Fatalf("Audit of what the store does by itself = %+v, %v", from, err)
		}
		own := s.As(olga)
		const sku = license.SKUFlexible
		secret := "s3cr3t-of-someone"
		listener := license.Listener{
			Account: storetest.Account, Service: license.CarrierService,
			URL: "https://example.com/hook?token=" + secret, Username: "u", Password: secret, SigningSecret: secret, Attempts: 2,
		}
		for _, step := range []struct {
			do   func() error
			want string // action, account, target, before, after
		}{
			{
				func() error { return own.AddAccount(ctx, "0000777777-00001", now) },
				"account.add 0000777777-00001 0000777777-00001  ",
			},
			{func() error {
				_, err := own.AddPurchase(ctx, license.Purchase{Account: "0000777777-00001", SKU: sku, Units: 5, Reference: "PO", Reason: "more"}, now)
				return err
			}, `pool.purchase 0000777777-00001 SIMSec-IoT {"purchased":0} {"purchased":5,"reason":"more","reference":"PO","units":5}`},
			{func() error { return own.AddApplication(ctx, "app 2", secret, now) }, "application.add  app 2  "},
			{func() error { return own.RotateApplication(ctx, "app 2", secret+"2", time.Time{}) }, "application.rotate  app 2  "},
			{func() error { return own.UnlockApplication(ctx, "app 2") }, ""}, // nothing was locked
			{func() error {
				return own.AddUser(ctx, auth.User{Name: "ada", PasswordHash: secret, Accounts: []license.AccountName{storetest.Account}}, now)
			}, `user.add  ada  {"accounts":["` + string(storetest.Account) + `"]}`},
			{
				func() error { return own.GrantAccounts(ctx, "ada", []license.AccountName{"0000777777-00001"}) },
				`user.grant  ada {"accounts":["` + string(storetest.Account) + `"]} {"accounts":["0000777777-00001"]}`,
			},
			{func() error { return own.SetPassword(ctx, "ada", secret+"2") }, "user.password  ada  "},
			{func() error {
				_, err := own.SetState(ctx, storetest.Account, []license.ICCID{sims[0].Device.ICCID}, license.StateSuspended)
				return err
			}, fmt.Sprintf(`sim.state %s %s {"state":"active"} {"iccids":[%q],"state":"suspend"}`, storetest.Account, sims[0].Device.ICCID, sims[0].Device.ICCID)},
			{
				func() error { return own.PutListener(ctx, listener, now) },
				fmt.Sprintf(`listener.register %s %s  {"password":true,"query":true,"signed":false,"url":"https://example.com/hook","username":"u"}`, storetest.Account, license.CarrierService),
			},
			{
				func() error { return own.TuneListener(ctx, listener) },
				fmt.Sprintf(`listener.tune %s %s {"password":true,"query":true,"signed":false,"url":"https://example.com/hook","username":"u"} {"attempts":2,"password":true,"query":true,"signed":true,"url":"https://example.com/hook","username":"u"}`, storetest.Account, license.CarrierService),
			},
			{
				func() error { return own.DeleteListener(ctx, storetest.Account, license.CarrierService) },
				fmt.Sprintf(`listener.deregister %s %s {"attempts":2,"password":true,"query":true,"signed":true,"url":"https://example.com/hook","username":"u"} `, storetest.Account, license.CarrierService),
			},
			{func() error {
				return own.AddOperator(ctx, auth.OperatorRecord{Operator: auth.Operator{Name: "paul", Role: auth.RoleViewer}, TokenHash: secret}, now)
			}, `operator.add  paul  {"disabled":false,"password":false,"role":"viewer","token":true}`},
			{
				func() error { return own.SetOperatorRole(ctx, "paul", auth.RoleAdmin) },
				`operator.role  paul {"disabled":false,"password":false,"role":"viewer","token":true} {"disabled":false,"password":false,"role":"admin","token":true}`,
			},
			{
				func() error { return own.Record(ctx, "console.login", "", "olga", nil) },
				"console.login  olga  ",
			},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.want, err)
			}
			got, err := s.Audit(ctx, store.AuditFilter{Who: "olga", Limit: 100})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range got {
				if strings.Contains(e.Before+e.After+e.Target, secret) {
					t.Fatalf("a secret is in the audit: %+v", e)
				}
			}
			if step.want == "" {
				continue
			}
			// Those of one moment are not in the order in which they came.
			if !slices.ContainsFunc(got, func(e license.AuditEntry) bool {
				return e.Actor == olga && step.want == fmt.Sprintf("%s %s %s %s %s", e.Action, e.Account, e.Target, e.Before, e.After)
			}) {
				t.Errorf("the audit has no entry %q, but\n%+v", step.want, got)
			}
		}
	})
}

// What is refused changes nothing, and leaves no trace.
func TestAuditOfWhatIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		own, now := s.As(olga), storetest.Start()
		storetest.Seed(t, s, storetest.Fixture{SIMs: 1})
		for name, err := range map[string]error{
			"an account twice":   own.AddAccount(t.Context(), storetest.Account, now),
			"a token of nobody":  own.RotateOperator(t.Context(), "nobody", "x"),
			"an unknown user":    own.SetPassword(t.Context(), "nobody", "x"),
			"an unknown account": own.AddUser(t.Context(), auth.User{Name: "ada", Accounts: []license.AccountName{"0000999999-00001"}}, now),
		} {
			if err == nil {
				t.Errorf("%s was not refused", name)
			}
		}
		if got, err := s.Audit(t.Context(), store.AuditFilter{Who: "olga"}); err != nil || len(got) > 0 {
			t.Errorf("Audit = %+v, %v, want none", got, err)
		}
	})
}

func verifyAudit(t *testing.T, s *store.Store) (findings []string, c store.AuditCheck) {
	t.Helper()
	c, err := s.VerifyAudit(t.Context(), func(finding string) { findings = append(findings, finding) })
	if err != nil {
		t.Fatal(err)
	}
	return findings, c
}

func addAccounts(t *testing.T, s *store.Store, from, n int) {
	t.Helper()
	for i := range n {
		if err := s.AddAccount(t.Context(), license.AccountName(fmt.Sprintf("0000%06d-00001", from+i)), storetest.Start()); err != nil {
			t.Fatal(err)
		}
	}
}

func sealAudit(t *testing.T, s *store.Store, want int) {
	t.Helper()
	if n, err := s.SealAudit(t.Context()); err != nil || n != want {
		t.Fatalf("SealAudit = %d, %v, want %d", n, err, want)
	}
}

// TestAuditChain tampers with a chain of five and an entry that is not in it yet.
func TestAuditChain(t *testing.T) {
	const copied = `SELECT 'x', time, who, via, origin, action, account, target, before, after, %s, hash FROM audit WHERE number = 5`
	for _, test := range []struct {
		name, tamper string
		want         []string // what the findings begin with
	}{
		{"nothing", `SELECT 1`, nil},
		{"changed", `UPDATE audit SET who = 'eve' WHERE number = 3`, []string{"entry 3 "}},
		{"changed after", `UPDATE audit SET after = '{}' WHERE number = 1`, []string{"entry 1 "}},
		{"changed with its hash", `UPDATE audit SET who = 'eve', hash = 'x' WHERE number = 3`, []string{"entry 3 ", "entry 4 "}},
		{"the last changed with its hash", `UPDATE audit SET who = 'eve', hash = 'x' WHERE number = 5`, []string{"entry 5 ", "entry 5:"}},
		{"removed", `DELETE FROM audit WHERE number = 2`, []string{"entry 2 was removed"}},
		{"first removed", `DELETE FROM audit WHERE number = 1`, []string{"entry 1 was removed"}},
		{"last two removed", `DELETE FROM audit WHERE number > 3`, []string{"entries 4 to 5 were removed"}},
		{"all removed", `DELETE FROM audit WHERE number > 0`, []string{"entries 1 to 5 were removed"}},
		{"inserted at the end", `INSERT INTO audit ` + fmt.Sprintf(copied, "6"), []string{"entry 6 (x): it was inserted after"}},
		{"inserted before the beginning", `INSERT INTO audit ` + fmt.Sprintf(copied, "0"), []string{"entry 0 (x): it was inserted before"}},
		{"put in the place of another", `UPDATE audit SET number = 7 - number WHERE number = 3`, []string{}},
		{"head put back", `UPDATE seal SET number = 4`, []string{"entry 5 ", "entry 4:"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, e := range storetest.Engines(t) {
				t.Run(e.Name, func(t *testing.T) {
					db := e.NewDatabase(t)
					s := db.Open(t)
					addAccounts(t, s, 1, 3)
					sealAudit(t, s, 3)
					addAccounts(t, s, 4, 2)
					sealAudit(t, s, 2)
					addAccounts(t, s, 6, 1)
					if findings, c := verifyAudit(t, s); len(findings) > 0 || c.Sealed != 5 || c.Unsealed != 1 || c.Head != 5 {
						t.Fatalf("VerifyAudit = %v, %+v, want 5 sealed and 1 unsealed", findings, c)
					}
					db.Damaged()
					_, err := db.SQL(t).ExecContext(t.Context(), test.tamper)
					if test.want != nil && len(test.want) == 0 {
						if err == nil {
							t.Error("two entries took one number")
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					findings, _ := verifyAudit(t, s)
					if !slices.EqualFunc(findings, test.want, strings.HasPrefix) {
						t.Errorf("VerifyAudit found %q, want %q", findings, test.want)
					}
				})
			}
		})
	}
}

// TestAuditIsSealedOnce has two nodes seal while others write.
func TestAuditIsSealedOnce(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			const writers, each = 4, 40
			db := e.NewDatabase(t)
			nodes := []*store.Store{db.Open(t), db.Open(t)}
			done := make(chan struct{})
			var writing, sealing sync.WaitGroup
			for w := range writers {
				writing.Go(func() {
					for i := range each {
						if err := nodes[w%2].Record(t.Context(), "test.write", "", fmt.Sprintf("%d-%d", w, i), nil); err != nil {
							t.Error(err)
						}
					}
				})
			}
			total := make([]int, len(nodes))
			for i, node := range nodes {
				sealing.Go(func() {
					for {
						// Asked first: what is written while sealing may be missed.
						over := false
						select {
						case <-done:
							over = true
						default:
						}
						n, err := node.SealAudit(t.Context())
						if err != nil {
							t.Error(err)
							return
						}
						if total[i] += n; over && n == 0 {
							return
						}
					}
				})
			}
			writing.Wait()
			close(done)
			sealing.Wait()
			findings, c := verifyAudit(t, nodes[0])
			if len(findings) > 0 || c.Sealed != writers*each || c.Head != writers*each || c.Unsealed != 0 || total[0]+total[1] != writers*each {
				t.Errorf("sealed %v, VerifyAudit = %v, %+v, want %d in one chain", total, findings, c, writers*each)
			}
		})
	}
}

// TestAuditSurvivesACrash ends a node between the insert and the sealing.
func TestAuditSurvivesACrash(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			s := db.Open(t)
			addAccounts(t, s, 1, 2)
			sealAudit(t, s, 2)
			addAccounts(t, s, 3, 2)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = db.Open(t)
			sealAudit(t, s, 2)
			if findings, c := verifyAudit(t, s); len(findings) > 0 || c.Sealed != 4 || c.Unsealed != 0 {
				t.Errorf("VerifyAudit = %v, %+v, want 4 sealed", findings, c)
			}
			entries, err := s.SealedAfter(t.Context(), 2, 10)
			if err != nil || len(entries) != 2 || entries[0].Number != 3 || entries[1].Hash == "" {
				t.Errorf("SealedAfter(2) = %+v, %v", entries, err)
			}
		})
	}
}

func TestAuditRetention(t *testing.T) {
	for _, e := range storetest.Engines(t) {
		t.Run(e.Name, func(t *testing.T) {
			db := e.NewDatabase(t)
			s := db.Open(t)
			addAccounts(t, s, 1, 5)
			sealAudit(t, s, 5)
			entries, err := s.SealedAfter(t.Context(), 0, 10)
			if err != nil {
				t.Fatal(err)
			}
			// The third is young, and so the fourth stays too, old as it is.
			for number, age := range map[int]time.Duration{1: 3, 2: 3, 4: 3} {
				at := time.Now().Add(-age * 24 * time.Hour)
				if _, err := db.SQL(t).ExecContext(t.Context(), fmt.Sprintf(`UPDATE audit SET time = %d WHERE number = %d`, at.UnixMicro(), number)); err != nil {
					t.Fatal(err)
				}
			}
			db.Damaged() // their times were changed
			day := time.Now().Add(-24 * time.Hour)
			if n, err := s.PurgeAudit(t.Context(), day); err != nil || n != 2 {
				t.Fatalf("PurgeAudit = %d, %v, want 2", n, err)
			}
			if n, err := s.PurgeAudit(t.Context(), day); err != nil || n != 0 {
				t.Fatalf("PurgeAudit again = %d, %v, want 0", n, err)
			}
			sealAudit(t, s, 1) // the purge's own entry
			findings, c := verifyAudit(t, s)
			if want := []string{"entry 4 (" + entries[3].ID + "): it was changed"}; !slices.Equal(findings, want) || c.Anchor != 2 || c.Sealed != 4 {
				t.Errorf("VerifyAudit = %v, %+v, want an anchor at 2 and %v", findings, c, want)
			}
			if n, err := s.PurgeAudit(t.Context(), time.Now().Add(time.Hour)); err != nil || n != 4 {
				t.Fatalf("PurgeAudit of all = %d, %v, want 4", n, err)
			}
			sealAudit(t, s, 1)
			if findings, c := verifyAudit(t, s); len(findings) > 0 || c.Anchor != 6 || c.Sealed != 1 || c.Head != 7 {
				t.Errorf("VerifyAudit = %v, %+v, want an anchor at 6 and one entry", findings, c)
			}
		})
	}
}

func TestAuditPages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		own := s.As(olga)
		var want []string
		for i := range 7 {
			target := fmt.Sprint(i)
			if err := own.Record(t.Context(), "test.write", storetest.Account, target, nil); err != nil {
				t.Fatal(err)
			}
			want = append(want, target)
		}
		f := store.AuditFilter{Account: storetest.Account, Action: "test", Limit: 3}
		var got []string
		for {
			page, err := s.Audit(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page {
				got = append(got, e.Target)
				f.Before = store.AuditPlace{At: e.At, ID: e.ID}
			}
			if len(page) < f.Limit {
				break
			}
		}
		slices.Sort(got) // entries of one microsecond are in any order
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("three pages of the audit differ (-want +got):\n%s", diff)
		}
		for name, f := range map[string]store.AuditFilter{
			"account": {Account: "0000999999-00001"}, "who": {Who: "paul"}, "target": {Target: "8"}, "action": {Action: "test.read"},
			"since": {Since: time.Now().Add(time.Hour)},
		} {
			if got, err := s.Audit(t.Context(), f); err != nil || len(got) > 0 {
				t.Errorf("by %s: %+v, %v, want none", name, got, err)
			}
		}
	})
}

// A write whose context has ended before its turn leaves neither a change nor an
// entry.
func TestAuditOfACancelledWrite(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.As(olga).AddAccount(ctx, "0000123456-00009", storetest.Start()); !errors.Is(err, context.Canceled) {
			t.Errorf("AddAccount = %v, want Canceled", err)
		}
		if got, err := s.Audit(t.Context(), store.AuditFilter{}); err != nil || len(got) > 0 {
			t.Errorf("Audit = %+v, %v, want none", got, err)
		}
	})
}
