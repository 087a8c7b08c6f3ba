package storetest

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

// Alone starts a server of the test's own, for it to use up. It skips the test
// where PostgreSQL is left out, or is a server elsewhere and none installed here.
func Alone(tb testing.TB) *pgcluster.Cluster {
	tb.Helper()
	return own(tb, pgcluster.Options{})
}

func own(tb testing.TB, o pgcluster.Options) *pgcluster.Cluster {
	tb.Helper()
	asked := os.Getenv("TEST_POSTGRES")
	if asked == "" {
		tb.Skip("TEST_POSTGRES is empty")
	}
	c, err := pgcluster.Start(tb.Context(), o)
	if _, private := pgcluster.Asked(asked); errors.Is(err, pgcluster.ErrNotInstalled) && !private {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	stop(tb, c)
	return c
}

// Pair starts a primary and a standby of the test's own, for it to freeze and
// kill. The primary's commits wait for the standby when synchronous says so. It
// skips the test as Alone does.
func Pair(tb testing.TB, synchronous bool) (primary, standby *pgcluster.Cluster) {
	tb.Helper()
	ctx := tb.Context()
	primary = own(tb, pgcluster.Options{Replicated: true})
	standby, err := primary.Standby(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	stop(tb, standby)
	want := "async"
	if synchronous {
		want = "sync"
		if err := primary.Synchronous(); err != nil {
			tb.Fatal(err)
		}
	}
	Await(tb, "a standby that is "+want, primary, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = '"+want+"'", 1)
	return primary, standby
}

func stop(tb testing.TB, c *pgcluster.Cluster) {
	tb.Cleanup(func() {
		if err := c.Stop(); err != nil {
			tb.Error(err)
		}
	})
}

// Await polls a server until a query's one number is want.
func Await(tb testing.TB, what string, c *pgcluster.Cluster, text string, want int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	db, err := sql.Open("pgx", c.URL())
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var got int
		err := db.QueryRowContext(ctx, text).Scan(&got)
		if err == nil && got == want {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tb.Fatalf("waited in vain for %s: %d (%v)", what, got, err)
		}
	}
}
