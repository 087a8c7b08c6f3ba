package server

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// poolSize is how many connections a node has to PostgreSQL.
const poolSize = 20

// onPostgres runs f with a PostgreSQL database, if there is one.
func onPostgres(t *testing.T, f func(t *testing.T, db *storetest.Database, cfg Config)) {
	t.Helper()
	for _, e := range storetest.Engines(t) {
		if e.Name == "postgres" {
			db := e.NewDatabase(t)
			f(t, db, Config{Database: db.URL, SecretsKeyFile: writeFile(t, t.TempDir(), "key", "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n")})
			return
		}
	}
	t.Skip("it takes PostgreSQL: TEST_POSTGRES=auto")
}

// turnedAway makes many calls at once, of both APIs, that must all be answered 503 with
// Retry-After. It returns the keys of the assignments among them.
func turnedAway(t *testing.T, c *caller, token string, calls int) (keys []string) {
	t.Helper()
	type outcome struct {
		what   string
		status int
		header http.Header
		body   []byte
		err    error
	}
	outcomes := make(chan outcome, calls)
	for i := range calls {
		key := ""
		if i%3 == 0 {
			key = fmt.Sprint("order-", i/3)
			keys = append(keys, key)
		}
		go func() {
			var o outcome
			switch i % 3 {
			case 0:
				o.what = "assign"
				o.status, o.header, o.body, o.err = c.try(http.MethodPost, "/devices/license/actions/assign", key, licenseRequest("SIMSec-IoT", fleet(i/3, 1)...))
			case 1:
				o.what = "list devices"
				o.status, o.header, o.body, o.err = c.try(http.MethodPost, "/devices/actions/list", "", map[string]any{"accountName": testAccount})
			default:
				o.what = "operator"
				var q *http.Request
				if q, o.err = http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, c.url+"/operator/v1/sims", nil); o.err == nil {
					q.Header.Set("Authorization", "Bearer "+token)
					var answer *http.Response
					if answer, o.err = http.DefaultClient.Do(q); o.err == nil {
						_ = answer.Body.Close()
						o.status, o.header = answer.StatusCode, answer.Header
					}
				}
			}
			outcomes <- o
		}()
	}
	deadline := time.After(patience)
	for range calls {
		select {
		case o := <-outcomes:
			if o.err != nil || o.status != http.StatusServiceUnavailable || o.header.Get("Retry-After") == "" {
				t.Errorf("%s without a connection: %d %s %v, want 503 with Retry-After", o.what, o.status, o.body[:min(len(o.body), 200)], o.err)
			}
		case <-deadline:
			t.Fatalf("some of %d calls were not answered", calls)
		}
	}
	return keys
}

// doneOnce repeats assignments of a device each under their keys, and waits until
// all are settled.
func doneOnce(t *testing.T, r *running, c *caller, keys []string) {
	t.Helper()
	for i, key := range keys {
		eventually(t, "what was turned away is accepted", func() bool {
			status, _, _, err := c.try(http.MethodPost, "/devices/license/actions/assign", key, licenseRequest("SIMSec-IoT", fleet(i, 1)...))
			return err == nil && status == http.StatusOK
		})
	}
	eventually(t, "all is settled", func() bool { return c.pool("SIMSec-IoT").LicenseAssigned == int64(len(keys)) })
	noDrift(t, r)
}

// TestPoolUsedUp has somebody lock a table until all the connections of a node wait
// for it, and calls for the connections.
func TestPoolUsedUp(t *testing.T) {
	onPostgres(t, func(t *testing.T, db *storetest.Database, cfg Config) {
		withFleet(t, &cfg, 60)
		cfg.Database += "&statement_timeout=1500"
		cfg.callTimeout = 2 * time.Second
		r := startServer(t, cfg)
		c, token := r.login(t), r.operatorToken(t, auth.RoleAdmin)
		was := value(r.families(t)["simlatch_store_errors_total"], map[string]string{"kind": "unavailable"})

		blocker, err := db.SQL(t).BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = blocker.Rollback() }() // long done, where all went well
		if _, err := blocker.ExecContext(t.Context(), "LOCK TABLE sim IN ACCESS EXCLUSIVE MODE"); err != nil {
			t.Fatal(err)
		}
		var look sync.WaitGroup
		look.Go(func() {
			eventually(t, "the metrics show that the pool is used up", func() bool {
				f := r.families(t)
				return value(f["go_sql_in_use_connections"], map[string]string{"db_name": "simlatch"}) == poolSize &&
					value(f["go_sql_wait_count_total"], map[string]string{"db_name": "simlatch"}) > poolSize
			})
		})
		keys := turnedAway(t, c, token, 3*poolSize)
		look.Wait()
		r.getJSON(t, "/healthz", http.StatusOK)
		if now := value(r.families(t)["simlatch_store_errors_total"], map[string]string{"kind": "unavailable"}); now < was+1 {
			t.Errorf("simlatch_store_errors_total is %v, and was %v", now, was)
		}
		if err := blocker.Rollback(); err != nil {
			t.Fatal(err)
		}
		doneOnce(t, r, c, keys)
	})
}

// TestConnectionsRefused has others take all connections that PostgreSQL has, those of
// the node too.
func TestConnectionsRefused(t *testing.T) {
	onPostgres(t, func(t *testing.T, _ *storetest.Database, cfg Config) {
		// A server of its own: other tests need connections too.
		server := storetest.Alone(t)
		cfg.Database = server.URL()
		withFleet(t, &cfg, 60)
		r := startServer(t, cfg)
		c, token := r.login(t), r.operatorToken(t, auth.RoleAdmin)
		raw, err := sql.Open("pgx", server.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		admin, err := raw.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
		defer stop()
		var others []*sql.Conn
		var taking sync.WaitGroup
		taking.Go(func() { others = take(ctx, raw) })
		eventually(t, "all connections are others'", func() bool {
			if _, err := admin.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'simlatch'`); err != nil {
				t.Fatal(err)
			}
			var all bool
			if err := admin.QueryRowContext(t.Context(), othersHaveAll).Scan(&all); err != nil {
				t.Fatal(err)
			}
			return all
		})
		keys := turnedAway(t, c, token, 30)
		if n := value(r.families(t)["simlatch_store_errors_total"], map[string]string{"kind": "unavailable"}); n < 30 {
			t.Errorf("simlatch_store_errors_total is %v, want 30 at least", n)
		}
		stop()
		taking.Wait()
		raw.SetMaxIdleConns(0)
		for _, conn := range others {
			_ = conn.Close()
		}
		doneOnce(t, r, c, keys)
	})
}

// othersHaveAll reports whether each connection that there may be is shown, and is no
// node's. One that is being made takes its place and is not shown.
const othersHaveAll = `SELECT count(*) >= current_setting('max_connections')::int
		- CASE current_setting('is_superuser') WHEN 'on' THEN 0 ELSE current_setting('superuser_reserved_connections')::int END
	FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'simlatch'`

// take takes each connection of a server that it can have, until ctx ends.
func take(ctx context.Context, db *sql.DB) (taken []*sql.Conn) {
	for ctx.Err() == nil {
		if conn, err := db.Conn(ctx); err == nil {
			taken = append(taken, conn)
		}
	}
	return taken
}
