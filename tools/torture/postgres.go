package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

// schema makes a schema on a server and returns the URL that leads into it, and
// what removes it.
func schema(ctx context.Context, server string) (databaseURL string, drop func() error, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, err
	}
	name := "torture_" + strings.ToLower(rand.Text())
	if err := execute(ctx, server, "CREATE SCHEMA "+name); err != nil {
		return "", nil, err
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String(), func() error {
		return execute(context.WithoutCancel(ctx), server, "DROP SCHEMA "+name+" CASCADE")
	}, nil
}

func execute(ctx context.Context, server, text string) error {
	db, err := sql.Open("pgx", server)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, text)
	return errors.Join(err, db.Close())
}

// mortal is a PostgreSQL server that dies.
type mortal struct{ cluster *pgcluster.Cluster }

const busyBackend = `SELECT pid FROM pg_stat_activity
	WHERE application_name = 'simlatch' AND pid <> pg_backend_pid() ORDER BY state = 'active' DESC, random() LIMIT 1`

// killBackend kills one of the server's processes, which makes it end all others,
// forget what they shared, and recover from its log.
func (m *mortal) killBackend(ctx context.Context) error {
	db, err := sql.Open("pgx", m.cluster.URL())
	if err != nil {
		return err
	}
	defer db.Close()
	// A node that has just lost its connections needs a moment to have new ones.
	for late := time.Now().Add(30 * time.Second); ; {
		var pid int
		if err = db.QueryRowContext(ctx, busyBackend).Scan(&pid); err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err == nil {
			return nil
		}
		if time.Now().After(late) || !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("no process of PostgreSQL could be killed: %w", err)
		}
	}
}

// crash ends the server without a checkpoint, as "pg_ctl stop -m immediate" does,
// and starts it again.
func (m *mortal) crash(ctx context.Context) error { return m.cluster.Crash(ctx) }
