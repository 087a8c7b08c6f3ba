package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver of the hand-written reference

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

// The engines.
const (
	sqlite   = "sqlite"
	postgres = "postgres"
)

// bench is one run of everything.
type bench struct {
	o     options
	dir   string // removed at the end
	group string // being measured

	cluster   *pgcluster.Cluster
	server    string   // the URL of PostgreSQL; empty until it is needed
	reference *process // plays the references
	processes []*process
	listeners []*load.Listener
	databases int      // made so far
	left      []string // databases to drop
}

func newBench(ctx context.Context, o options) (*bench, error) {
	b := &bench{o: o}
	if o.list {
		return b, nil
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "simlatch-bench-"); err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	if _, err = os.Stat(o.binary); err != nil && o.profile == "" {
		err = fmt.Errorf("there is no server to measure, \"make build\" builds one: %w", err)
		return nil, errors.Join(err, b.close())
	}
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	if err = os.WriteFile(filepath.Join(b.dir, "key"), []byte(key+"\n"), 0o600); err == nil {
		b.reference, err = b.startReference(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) close() error {
	var errs []error
	for _, p := range b.processes {
		errs = append(errs, p.stop())
	}
	for _, database := range slices.Clone(b.left) {
		errs = append(errs, b.dropDatabase(context.Background(), database)) // also after an interrupt
	}
	for _, l := range b.listeners {
		errs = append(errs, l.Close())
	}
	if b.cluster != nil {
		errs = append(errs, b.cluster.Stop())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

// listen serves a listener for callbacks until the end.
func (b *bench) listen(ctx context.Context, h http.Handler, secure *tls.Config) (*load.Listener, error) {
	l, err := load.Listen(ctx, "127.0.0.1:0", h, secure)
	if err == nil {
		b.listeners = append(b.listeners, l)
	}
	return l, err
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// database makes an empty database and returns its URL.
func (b *bench) database(ctx context.Context, engine string) (string, error) {
	b.databases++
	name := fmt.Sprintf("bench%d", b.databases)
	if engine == sqlite {
		return "sqlite:" + filepath.Join(b.dir, name+".db"), nil
	}
	if err := b.startPostgres(ctx); err != nil {
		return "", err
	}
	name += "_" + strings.ToLower(rand.Text()[:6]) // the server may be someone's
	if err := execute(ctx, b.server, "CREATE DATABASE "+name); err != nil {
		return "", err
	}
	u, err := url.Parse(b.server)
	if err != nil {
		return "", fmt.Errorf("the URL of PostgreSQL: %w", err)
	}
	u.Path = "/" + name
	b.left = append(b.left, u.String())
	return u.String(), nil
}

// dropDatabase removes what database made.
func (b *bench) dropDatabase(ctx context.Context, address string) error {
	if path, ok := strings.CutPrefix(address, "sqlite:"); ok {
		files, err := filepath.Glob(path + "*")
		for _, f := range files {
			err = errors.Join(err, os.Remove(f))
		}
		return err
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	b.left = slices.DeleteFunc(b.left, func(d string) bool { return d == address })
	return execute(ctx, b.server, "DROP DATABASE IF EXISTS "+strings.TrimPrefix(u.Path, "/")+" WITH (FORCE)")
}

// startPostgres starts the server once, and refuses one whose commits are not
// on the disk.
func (b *bench) startPostgres(ctx context.Context) (err error) {
	if b.server != "" {
		return nil
	}
	server := b.o.postgres
	if o, ok := pgcluster.Asked(server); ok {
		if b.cluster, err = pgcluster.Start(ctx, o); err != nil {
			return err
		}
		server = b.cluster.URL()
	}
	db, err := sql.Open("pgx", server)
	if err != nil {
		return err
	}
	defer db.Close()
	for name, want := range map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"} {
		var have string
		if err := db.QueryRowContext(ctx, "SHOW "+name).Scan(&have); err != nil {
			return fmt.Errorf("asking PostgreSQL for %s: %w", name, err)
		}
		if have != want && !b.o.forgetful {
			return fmt.Errorf("PostgreSQL has %s = %s: what it says is committed would not be on the disk", name, have)
		}
	}
	b.server = server
	return nil
}

func execute(ctx context.Context, server, text string) error {
	db, err := sql.Open("pgx", server)
	if err == nil {
		defer db.Close()
		_, err = db.ExecContext(ctx, text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// contender is one side of a comparison.
type contender struct {
	name string
	unit string
	run  func(ctx context.Context) (float64, error)
}

// rounds lets contenders take turns and returns what each measured, in their
// order. The first round warms up and is not counted; who begins a round
// changes.
func (b *bench) rounds(ctx context.Context, contenders ...contender) ([][]float64, error) {
	values := make([][]float64, len(contenders))
	for round := range b.o.sizes.runs + 1 {
		for i := range contenders {
			k := (i + round) % len(contenders)
			c := contenders[k]
			runtime.GC() // what came before is not this one's cost
			v, err := c.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			b.say("%s: round %d of %d: %s %.4g %s", b.group, round, b.o.sizes.runs, c.name, v, c.unit)
			if round > 0 {
				values[k] = append(values[k], v)
			}
		}
	}
	return values, nil
}

// within bounds what waits for others.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("not done within %s", d))
}
