package pgcluster

import (
	"context"
	"database/sql"
	"strconv"
	"testing"
	"time"
)

func execute(t *testing.T, url, text string) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

// TestStandby loses a primary whose standby is synchronous, and goes on with the
// standby.
func TestStandby(t *testing.T) {
	primary := start(t, Options{Replicated: true})
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := primary.Synchronous(); err != nil {
		t.Fatal(err)
	}
	await(t, "the standby to be synchronous", func() bool {
		return query(t, primary.URL(), "SELECT coalesce(max(sync_state), '') FROM pg_stat_replication") == "sync"
	})
	execute(t, primary.URL(), "CREATE TABLE kept AS SELECT 'yes' AS word")
	if got := query(t, standby.URL(), "SELECT pg_is_in_recovery()::text"); got != "true" {
		t.Errorf("pg_is_in_recovery() = %s on a standby", got)
	}
	if err := primary.Freeze(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if db, err := sql.Open("pgx", primary.URL()); err != nil || db.PingContext(ctx) == nil {
		t.Errorf("a frozen server answers (%v)", err)
	}
	if err := primary.Thaw(); err != nil {
		t.Fatal(err)
	}
	query(t, primary.URL(), "SELECT 'still there'")
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query(t, URLs(primary, standby), "SELECT word FROM kept"); got != "yes" {
		t.Errorf("the row is %q after the failover", got)
	}
}

// TestStopFrozen: a frozen server is no obstacle to the end of a test.
func TestStopFrozen(t *testing.T) {
	c := start(t, Options{})
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}

// TestCrash: a server that ended at once is there again, on the same port, with
// what was committed.
func TestCrash(t *testing.T) {
	c := start(t, Options{Durable: true})
	execute(t, c.URL(), "CREATE TABLE t (v BIGINT)")
	for i := range 2 {
		execute(t, c.URL(), "INSERT INTO t VALUES (1)")
		before := query(t, c.URL(), "SELECT pg_postmaster_start_time()::text")
		if err := c.Crash(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := query(t, c.URL(), "SELECT pg_postmaster_start_time()::text"); after == before {
			t.Errorf("it did not end: it runs since %s", after)
		}
		if got, want := query(t, c.URL(), "SELECT count(*)::text FROM t"), strconv.Itoa(i+1); got != want {
			t.Errorf("%s rows are there, want %s", got, want)
		}
	}
}
