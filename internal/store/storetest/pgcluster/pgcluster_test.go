package pgcluster

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
)

// start makes a cluster, where PostgreSQL is asked for at all.
func start(t *testing.T, o Options) *Cluster {
	t.Helper()
	if os.Getenv("TEST_POSTGRES") == "" {
		t.Skip("TEST_POSTGRES is not set")
	}
	c, err := Start(t.Context(), o)
	if _, asked := Asked(os.Getenv("TEST_POSTGRES")); errors.Is(err, ErrNotInstalled) && !asked {
		t.Skip(err) // the tests run against a server elsewhere
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func query(t *testing.T, url, text string) string {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got string
	if err := db.QueryRowContext(t.Context(), text).Scan(&got); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return got
}

func TestStartStop(t *testing.T) {
	c := start(t, Options{})
	for text, want := range map[string]string{
		"SHOW server_encoding":                       "UTF8",
		"SHOW fsync":                                 "off",
		"SHOW listen_addresses":                      "127.0.0.1",
		"SELECT current_user":                        superuser,
		"SHOW server_version":                        c.Version(),
		"SELECT datcollate FROM pg_database LIMIT 1": "C",
	} {
		if got := query(t, c.URL(), text); !strings.HasPrefix(got, want) {
			t.Errorf("%s = %q, want %q", text, got, want)
		}
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Stop the directory is still there: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestDurable(t *testing.T) {
	c := start(t, Options{Durable: true})
	if got := query(t, c.URL(), "SHOW fsync"); got != "on" {
		t.Errorf("fsync = %s, want on", got)
	}
}

// TestPasswordIsAskedFor: anyone on the machine can reach a port on loopback.
func TestPasswordIsAskedFor(t *testing.T) {
	c := start(t, Options{})
	db, err := sql.Open("pgx", strings.Replace(c.URL(), c.secret, "wrong", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.PingContext(t.Context()); err == nil {
		t.Error("a wrong password was accepted")
	}
}

// TestKilledProcessLeavesNothing starts a cluster from a process that is then
// killed without a chance to stop it.
func TestKilledProcessLeavesNothing(t *testing.T) {
	if os.Getenv("PGCLUSTER_TO_BE_KILLED") != "" {
		c := start(t, Options{})
		fmt.Printf("dir=%s\n", c.dir)
		<-t.Context().Done() // never: the parent kills us
	}
	start(t, Options{}) // skips where the child would
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "PGCLUSTER_TO_BE_KILLED=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		dir, _ = strings.CutPrefix(lines.Text(), "dir=")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	if dir == "" {
		t.Fatal("the child made no cluster")
	}
	await(t, dir+" to go", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	})
}

// await polls until done or half a minute has passed.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	packages, err := filepath.Glob(filepath.Join(packaged, "*", "bin", "initdb"))
	if err != nil {
		t.Fatal(err)
	}
	switch dir, err := Programs(); {
	case len(packages) == 0 && !errors.Is(err, ErrNotInstalled):
		t.Errorf("Programs() = %q, %v with nothing installed, want ErrNotInstalled", dir, err)
	case len(packages) > 0 && err != nil:
		t.Errorf("Programs() = %v, though there is %v", err, packages)
	}
}
