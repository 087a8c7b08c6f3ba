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

// TestOldSecret rotates secrets with an overlap and without: what is kept of the old
// one, for how long, and that no third is.
func TestOldSecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{})
		ctx, until := t.Context(), b.now.Add(time.Hour)
		none := func(doing string) {
			t.Helper()
			if got, err := s.OldSecret(ctx, "app"); !errors.Is(err, license.ErrNotFound) {
				t.Errorf("%s: the old secret is %+v, %v; want none", doing, got, err)
			}
		}
		rotate := func(hash string, ends time.Time) {
			t.Helper()
			if err := s.RotateApplication(ctx, "app", hash, ends); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.AddApplication(ctx, "app", "first", b.now); err != nil {
			t.Fatal(err)
		}
		none("never rotated")
		a := auth.Application{Key: "app", SecretHash: "first", Nonce: "n", Issued: b.now, TokenHash: "t"}
		if ok, err := s.ReplaceToken(ctx, a, ""); err != nil || !ok {
			t.Fatal(ok, err)
		}
		for range 2 { // again, as after an outcome that was unknown
			rotate("second", until)
		}
		old, err := s.OldSecret(ctx, "app")
		if err != nil || old.SecretHash != "first" || !old.Ends.Equal(until) || old.Nonce != "n" {
			t.Errorf("the old secret is %+v, %v", old, err)
		}
		if own, err := s.Application(ctx, "app"); err != nil || own.SecretHash != "second" || own.TokenHash != "" || !own.Ends.IsZero() || !own.OldUntil.Equal(until) {
			t.Errorf("the application is %+v, %v", own, err)
		}
		old.Nonce, old.TokenHash = "m", "u"
		for i, want := range []bool{true, false} {
			if got, err := s.ReplaceToken(ctx, old, "n"); err != nil || got != want {
				t.Errorf("replacing the old secret's token, try %d: %v, %v", i+1, got, err)
			}
		}
		if got, err := s.ApplicationByToken(ctx, "u"); err != nil || got.Key != "app" || !got.Ends.Equal(until) {
			t.Errorf("by the old secret's token: %+v, %v", got, err)
		}
		if _, err := s.ChangeApplication(ctx, "app", func(a auth.Application) (auth.Application, error) {
			a.Disabled = true
			return a, nil
		}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.ApplicationByToken(ctx, "u"); err != nil || !got.Disabled {
			t.Errorf("of a disabled application: %+v, %v", got, err)
		}
		rotate("third", until)
		if old, err := s.OldSecret(ctx, "app"); err != nil || old.SecretHash != "second" {
			t.Errorf("rotated again: the old secret is %+v, %v", old, err)
		}
		if err := s.EndOldSecret(ctx, "app"); err != nil {
			t.Fatal(err)
		}
		none("ended")
		if err := s.EndOldSecret(ctx, "app"); !errors.Is(err, license.ErrNotFound) {
			t.Errorf("ended twice: %v, want ErrNotFound", err)
		}
		rotate("fourth", until)
		rotate("fifth", time.Time{})
		none("rotated without an overlap")
		rotate("sixth", until)
		if _, err := s.Purge(ctx, until, time.Hour); err != nil {
			t.Fatal(err)
		}
		none("purged")
	})
}
