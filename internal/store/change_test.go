package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

var errObjection = errors.New("an objection")

func TestChanges(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		b.listen()
		ctx := t.Context()
		must(t, s.AddApplication(ctx, "app", "hash", b.now))
		must(t, s.AddUser(ctx, auth.User{Name: "ada", PasswordHash: "hash", Accounts: []license.AccountName{storetest.Account}}, b.now))

		app, err := s.ChangeApplication(ctx, "app", func(a auth.Application) (auth.Application, error) {
			a.Disabled = true
			return a, nil
		})
		stored, _ := s.Application(ctx, "app")
		if err != nil || !app.Disabled || !stored.Disabled || stored.SecretHash != "hash" {
			t.Errorf("ChangeApplication = %+v, %v; stored %+v", app, err, stored)
		}
		_, err = s.ChangeApplication(ctx, "app", func(a auth.Application) (auth.Application, error) {
			a.Disabled = false
			return a, errObjection
		})
		if stored, _ := s.Application(ctx, "app"); !errors.Is(err, errObjection) || !stored.Disabled {
			t.Errorf("against an objection: %+v, %v", stored, err)
		}
		if _, err := s.ChangeApplication(ctx, "none", func(a auth.Application) (auth.Application, error) { return a, nil }); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("an application that is none: %v", err)
		}

		_, err = s.ChangeUser(ctx, "ada", func(u auth.User) (auth.User, error) {
			u.PasswordHash, u.Accounts = "another", nil
			return u, nil
		})
		if u, _ := s.User(ctx, "ada"); err != nil || u.PasswordHash != "another" || len(u.Accounts) != 0 {
			t.Errorf("ChangeUser: %+v, %v", u, err)
		}
		_, err = s.ChangeUser(ctx, "ada", func(u auth.User) (auth.User, error) {
			u.PasswordHash, u.Accounts = "a third", []license.AccountName{"nobody"}
			return u, nil
		})
		if u, _ := s.User(ctx, "ada"); !errors.Is(err, license.ErrNotFound) || u.PasswordHash != "another" {
			t.Errorf("with an account that is none: %+v, %v", u, err)
		}

		_, err = s.ChangeListener(ctx, storetest.Account, license.CarrierService, func(l license.Listener) (license.Listener, error) {
			l.Attempts, l.Interval, l.SigningSecret = 7, time.Minute, "whsec_secret"
			return l, nil
		})
		if l, _ := s.Listener(ctx, storetest.Account, license.CarrierService); err != nil || l.Attempts != 7 || l.SigningSecret != "whsec_secret" {
			t.Errorf("ChangeListener: %+v, %v", l, err)
		}
		remove := func(err error) error {
			return s.RemoveListener(ctx, storetest.Account, license.CarrierService, func(license.Listener) error { return err })
		}
		if err := remove(errObjection); !errors.Is(err, errObjection) {
			t.Errorf("RemoveListener against an objection: %v", err)
		}
		if err := remove(nil); err != nil {
			t.Errorf("RemoveListener: %v", err)
		}
		if err := remove(nil); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("RemoveListener, again: %v", err)
		}

		sim := b.sims[0]
		got, err := s.ChangeSIM(ctx, sim.Account, sim.Device.ICCID, func(s license.SIM) (license.SIM, error) {
			s.State = license.StateSuspended
			return s, nil
		})
		if err != nil || got.State != license.StateSuspended || got.Device != sim.Device {
			t.Errorf("ChangeSIM = %+v, %v", got, err)
		}
		b.verify()
	})
}

func TestOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx, now := t.Context(), storetest.Start()
		k := store.OnceKey{Account: "", Caller: "ada", Operation: "POST /accounts", Key: "1", Hash: "h"}
		claim, answer, err := s.BeginOnce(ctx, k, now)
		if err != nil || claim == "" || answer != "" {
			t.Fatalf("BeginOnce = %q, %q, %v", claim, answer, err)
		}
		if _, _, err := s.BeginOnce(ctx, k, now); !errors.Is(err, store.ErrPending) {
			t.Errorf("while it is pending: %v", err)
		}
		must(t, s.EndOnce(ctx, k, claim, "the answer"))
		if claim, answer, err := s.BeginOnce(ctx, k, now); err != nil || claim != "" || answer != "the answer" {
			t.Errorf("again: %q, %q, %v", claim, answer, err)
		}
		other := k
		other.Hash = "another"
		if _, _, err := s.BeginOnce(ctx, other, now); !errors.Is(err, license.ErrKeyReused) {
			t.Errorf("with another body: %v", err)
		}
		other.Caller = "bob"
		claim, _, err = s.BeginOnce(ctx, other, now)
		must(t, err)
		must(t, s.ForgetOnce(ctx, other, claim))
		if claim, _, err := s.BeginOnce(ctx, other, now); err != nil || claim == "" {
			t.Errorf("forgotten: %q, %v", claim, err)
		}
		if claim, _, err := s.BeginOnce(ctx, k, now.Add(24*time.Hour)); err != nil || claim == "" {
			t.Errorf("a day later: %q, %v", claim, err)
		}
		if _, err := s.Purge(ctx, now.Add(72*time.Hour), time.Hour); err != nil {
			t.Error(err)
		}
	})
}

func TestImportConflicts(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		sims := storetest.Seed(t, s, storetest.Fixture{})
		fresh := storetest.SIM(storetest.Account, 100)
		changed, elsewhere := sims[1], storetest.SIM("nobody-1", 200)
		changed.Device.IMEI = fresh.Device.IMEI
		all := sequence([]license.SIM{sims[0], changed, fresh, elsewhere, changed}, nil)
		_, err := s.Import(t.Context(), all, storetest.Start(), nil)
		var conflicts *store.ConflictsError
		var first *store.ConflictError
		if !errors.As(err, &conflicts) || !errors.As(err, &first) || len(conflicts.Conflicts) != 3 {
			t.Fatalf("Import = %v", err)
		}
		if got, err := s.CheckImport(t.Context(), sequence([]license.SIM{sims[0], fresh}, nil), storetest.Start()); err != nil || got != (store.ImportResult{Added: 1, Unchanged: 1}) {
			t.Errorf("CheckImport = %+v, %v", got, err)
		}
		if _, err := s.OwnerOf(t.Context(), fresh.Device.ICCID); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("the check left a SIM behind: %v", err)
		}
	})
}
