package store_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

const waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"

// long skips a test that waits more than it works where the race detector, or
// haste, asks for less; package server has one that looks for races.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts two servers and waits for them")
	}
}

// lonely is a store whose primary has lost its synchronous standby: commits
// wait.
func lonely(t *testing.T) (*bench, *pgcluster.Cluster) {
	t.Helper()
	long(t)
	primary, standby := storetest.Pair(t, true)
	s, err := store.Open(t.Context(), pgcluster.URLs(primary, standby), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s, storetest.Fixture{})
	if err := standby.Kill(); err != nil {
		t.Fatal(err)
	}
	return b, primary
}

func impatient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

// cancelAll cancels, as an operator might, every commit that waits.
func cancelAll(t *testing.T, c *pgcluster.Cluster) {
	t.Helper()
	db, err := sql.Open("pgx", c.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"); err != nil {
		t.Fatal(err)
	}
}

// TestCommitIsNeverCancelled: a commit that waits for its standby is left
// waiting when the caller's time is over, and so not seen by anyone.
func TestCommitIsNeverCancelled(t *testing.T) {
	t.Parallel()
	b, primary := lonely(t)
	p := b.params(license.Assign, license.SKUFlexible, b.sims[0])
	if a, err := b.s.Accept(impatient(t), p); err == nil {
		t.Fatalf("Accept = %+v without the standby", a)
	}
	storetest.Await(t, "the commit to wait", primary, waiting, 1)
	if _, err := b.s.Progress(impatient(t), p.Request.Account, p.Request.ID); !errors.Is(err, license.ErrNotFound) {
		t.Errorf("Progress = %v of a request that waits for the standby, want %v", err, license.ErrNotFound)
	}
	if err := primary.Alone(); err != nil {
		t.Fatal(err)
	}
	storetest.Await(t, "the commit to end", primary, waiting, 0)
	if a, err := b.s.Accept(t.Context(), p); err != nil || !a.Replay {
		t.Errorf("Accept = %+v, %v, want a replay", a, err)
	}
}

// TestWarnedCommitIsUnknown: PostgreSQL answers COMMIT to a commit whose wait was
// cancelled. That is no success, nor is finding the request afterwards.
func TestWarnedCommitIsUnknown(t *testing.T) {
	t.Parallel()
	b, primary := lonely(t)
	p := b.params(license.Assign, license.SKUFlexible, b.sims[0])
	p.IdempotencyKey, p.BodyHash = "key", "hash"
	failed := make(chan error, 1)
	go func() {
		_, err := b.s.Accept(t.Context(), p)
		failed <- err
	}()
	storetest.Await(t, "the commit to wait", primary, waiting, 1)
	cancelAll(t, primary)
	// Written again at once, it is found, and must wait as before.
	storetest.Await(t, "the request to be seen", primary, "SELECT count(*) FROM request", 1)
	storetest.Await(t, "the repeated commit to wait", primary, waiting, 1)
	if id, err := b.s.Replay(impatient(t), p.Request.Account, p.Application, string(license.Assign), p.IdempotencyKey, p.BodyHash, b.now); err == nil || errors.Is(err, license.ErrNotFound) {
		t.Errorf("Replay = %s, %v, though only the primary knows it", id, err)
	}
	cancelAll(t, primary)
	var unavailable *license.UnavailableError
	if err := <-failed; !errors.As(err, &unavailable) {
		t.Errorf("Accept = %v, want an UnavailableError", err)
	}
	if err := primary.Alone(); err != nil {
		t.Fatal(err)
	}
	if a, err := b.s.Accept(t.Context(), p); err != nil || !a.Replay || a.ID != p.Request.ID {
		t.Errorf("Accept = %+v, %v, want a replay", a, err)
	}
}

// TestFrozenPrimary: a call to a frozen server ends by itself, says that the
// database is out of reach, and the next ones do not wait as long.
func TestFrozenPrimary(t *testing.T) {
	t.Parallel()
	long(t)
	primary, standby := storetest.Pair(t, true)
	s, err := store.Open(t.Context(), pgcluster.URLs(primary, standby), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s, storetest.Fixture{})
	if err := primary.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // as a call of the API
	defer cancel()
	var unavailable *license.UnavailableError
	if _, err := s.Accounts(ctx); !errors.As(err, &unavailable) {
		t.Errorf("Accounts = %v, want an UnavailableError", err)
	}
	p := b.params(license.Assign, license.SKUFlexible, b.sims[0])
	if _, err := s.Accept(ctx, p); !errors.As(err, &unavailable) {
		t.Errorf("Accept = %v, want an UnavailableError", err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := primary.Kill(); err != nil { // fenced
		t.Fatal(err)
	}
	if a, err := s.Accept(ctx, p); err != nil || a.ID != p.Request.ID {
		t.Errorf("Accept = %+v, %v after the failover", a, err)
	}
	if _, err := s.Verify(t.Context(), func(d license.Drift) { t.Errorf("the ledger has drifted: %v", d) }); err != nil {
		t.Error(err)
	}
}

// TestNoStandby: a store does not open on a server that takes no writes.
func TestNoStandby(t *testing.T) {
	t.Parallel()
	long(t)
	_, standby := storetest.Pair(t, false)
	s, err := store.Open(t.Context(), standby.URL(), store.Options{})
	if err == nil {
		_ = s.Close()
		t.Error("Open accepted a standby")
	}
}
