package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// standbyName is what a standby calls itself, for synchronous_standby_names.
const standbyName = "standby"

// Standby makes a second cluster that streams from c, which must be Replicated,
// and can be promoted. It takes reads as soon as it is there. It is no
// synchronous standby until Synchronous says so.
func (c *Cluster) Standby(ctx context.Context) (*Cluster, error) {
	dir, err := directory(c.owner)
	if err != nil {
		return nil, err
	}
	s := &Cluster{dir: dir, bin: c.bin, owner: c.owner, secret: c.secret, version: c.version}
	s.settings = fmt.Sprintf("fsync = off\nfull_page_writes = off\nprimary_conninfo = 'host=127.0.0.1 port=%d user=%s password=%s application_name=%s'\n",
		c.port, superuser, c.secret, standbyName)
	if err := s.copyFrom(ctx, c); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if err := s.run(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// copyFrom makes the data directory from that of a running primary.
func (c *Cluster) copyFrom(ctx context.Context, primary *Cluster) error {
	cmd := c.command(ctx, filepath.Join(c.bin, "pg_basebackup"), "--pgdata", c.data(), "--host", "127.0.0.1",
		"--port", strconv.Itoa(primary.port), "--username", superuser, "--checkpoint", "fast", "--no-sync")
	cmd.Env = append(cmd.Env, "PGPASSWORD="+c.secret)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_basebackup: %w\n%s", err, out)
	}
	signal := filepath.Join(c.data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		return fmt.Errorf("making a standby: %w", err)
	}
	return c.owner.Own(signal)
}

// Synchronous makes the commits of c wait for its standby from now on.
func (c *Cluster) Synchronous() error {
	return c.set("synchronous_standby_names = '" + standbyName + "'")
}

// Alone makes the commits of c wait for nobody.
func (c *Cluster) Alone() error { return c.set("synchronous_standby_names = ''") }

// Cut makes the standby c stop following its primary.
func (c *Cluster) Cut() error { return c.set("primary_conninfo = ''") }

// Promote makes the standby c a primary and returns when it is one.
func (c *Cluster) Promote(ctx context.Context) error {
	cmd := c.command(ctx, filepath.Join(c.bin, "pg_ctl"), "promote", "--wait", "--pgdata", c.data())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pg_ctl promote: %w\n%s", err, out)
	}
	return nil
}

// set adds a line to the settings, which wins over those before, and has the
// running server read them. It does so within moments.
func (c *Cluster) set(line string) error {
	c.settings += line + "\n"
	if err := c.configure(); err != nil {
		return err
	}
	pid, err := c.pid()
	if err != nil {
		return err
	}
	return hangUp(pid)
}

// URLs is a URL of several clusters, of which the first that takes writes
// counts. They must be of one family: a primary and its standbys.
func URLs(clusters ...*Cluster) string {
	hosts := make([]string, len(clusters))
	for i, c := range clusters {
		hosts[i] = fmt.Sprintf("127.0.0.1:%d", c.port)
	}
	return fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable&target_session_attrs=read-write",
		superuser, clusters[0].secret, strings.Join(hosts, ","))
}

// pid is the number of the server's first process.
func (c *Cluster) pid() (int, error) {
	text, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		return 0, fmt.Errorf("looking for the test server: %w", err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil || pid <= 1 {
		return 0, fmt.Errorf("looking for the test server in %q: %w", text, err)
	}
	return pid, nil
}

// Kill ends the server at once with all its processes, as a power failure would.
// Its files go too.
func (c *Cluster) Kill() error {
	if err := c.each(kill); err != nil {
		return err
	}
	c.frozen = false
	<-c.ended
	return nil
}

// Crash ends the server without a checkpoint, as "pg_ctl stop -m immediate" does,
// and starts it again on its files, which it then recovers from its log. It returns
// when the server answers.
func (c *Cluster) Crash(ctx context.Context) error {
	pid, err := c.pid()
	if err != nil {
		return err
	}
	again := filepath.Join(c.dir, "again")
	if err := os.WriteFile(again, nil, 0o600); err != nil {
		return fmt.Errorf("having the test server started again: %w", err)
	}
	if err := c.owner.Own(again); err != nil {
		return err
	}
	if err := quit(pid); err != nil {
		return err
	}
	// Its own file says "ready" until it has gone.
	for now := pid; now == pid; now, _ = c.pid() {
		select {
		case <-c.ended:
			return fmt.Errorf("the test server did not start again:\n%s", c.said)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the test server to end: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return c.ready(ctx)
}

// Freeze stops all processes of the server. Its kernel goes on to acknowledge
// what arrives at its connections.
func (c *Cluster) Freeze() error {
	c.frozen = true
	return c.each(freeze)
}

// Thaw lets a frozen server go on.
func (c *Cluster) Thaw() error {
	c.frozen = false
	return c.each(thaw)
}

// each sends a signal to the server's first process and then to its children,
// of which it makes no more meanwhile.
func (c *Cluster) each(send func(pid int) error) error {
	pid, err := c.pid()
	if err != nil {
		return err
	}
	if err := freeze(pid); err != nil {
		return err
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return fmt.Errorf("looking for the test server's processes: %w", err)
	}
	if err := send(pid); err != nil {
		return err
	}
	for _, child := range strings.Fields(string(children)) {
		var pid int
		if _, err := fmt.Sscan(child, &pid); err != nil {
			return fmt.Errorf("looking for the test server's processes: %w", err)
		}
		_ = send(pid) // it may have ended meanwhile
	}
	return nil
}
