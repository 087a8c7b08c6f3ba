// Package pgcluster runs a private PostgreSQL server for tests: made in a
// temporary directory by the installed initdb, listening on loopback and in that
// directory only, and gone with the process that asked for it, however that one
// ends. Nothing system-wide is used or changed but the programs themselves.
//
// The server is no child of ours but of a small watcher, which holds the
// reading end of a pipe. When the last writing end is closed, by Stop or by the
// kernel when this process was killed, it stops the server and removes the
// directory.
package pgcluster

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// watcher is the script that runs the server and outlives this process.
//
//go:embed watch.sh
var watcher string

// superuser is the name of the one role there is.
const superuser = "simlatch"

// Options set a Cluster up.
type Options struct {
	// Durable leaves fsync on, for tests and measurements that are about it.
	Durable bool
	// Replicated makes a primary that can have standbys; see Standby.
	Replicated bool
}

// Cluster is a running PostgreSQL server of our own.
type Cluster struct {
	dir      string // data, log, socket; removed at the end
	bin      string // where the server's programs are
	owner    Owner
	port     int
	secret   string
	version  string
	settings string // of this cluster alone, as lines of postgresql.conf

	watch  *exec.Cmd
	pipe   io.Closer // closing it ends the server
	frozen bool
	said   *bytes.Buffer // the end of the server's log; read it after ended
	ended  chan struct{} // closed when the watcher has ended
}

// Asked reads TEST_POSTGRES, which asks for a server of our own by "auto", or
// by "durable" for one whose commits are on the disk; anything else is a URL, or
// asks for none.
func Asked(value string) (o Options, ok bool) {
	return Options{Durable: value == "durable"}, value == "auto" || value == "durable"
}

// Start makes a cluster and returns when it answers, after one to two seconds.
// Its error is ErrNotInstalled where there is no server to run. ctx bounds the
// start only.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	bin, err := Programs()
	if err != nil {
		return nil, err
	}
	who, err := ServerOwner()
	if err != nil {
		return nil, err
	}
	dir, err := directory(who)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, bin: bin, owner: who, secret: rand.Text()}
	if err := c.start(ctx, o); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// URL is where the server is, as its superuser, in its database "postgres".
func (c *Cluster) URL() string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/postgres?sslmode=disable", superuser, c.secret, c.port)
}

// Version is the server's version as it tells it, such as "15.18".
func (c *Cluster) Version() string { return c.version }

// Stop ends the server, without a checkpoint, and removes everything it wrote.
// It returns when both are done.
func (c *Cluster) Stop() error {
	c.halt()
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("removing the test server's files: %w", err)
	}
	return nil
}

// halt ends the watcher, if there is one, and with it the server.
func (c *Cluster) halt() {
	if c.watch == nil {
		return
	}
	if c.frozen {
		_ = c.Thaw() // it would take its end in slowly
	}
	_ = c.pipe.Close() // closed twice at worst
	<-c.ended
	c.watch = nil
}

func (c *Cluster) start(ctx context.Context, o Options) error {
	if err := c.init(ctx); err != nil {
		return err
	}
	if !o.Durable {
		c.settings += "fsync = off\nfull_page_writes = off\n"
	}
	if !o.Replicated {
		c.settings += "wal_level = minimal\nmax_wal_senders = 0\n"
	}
	return c.run(ctx)
}

// run starts the server on a free port.
func (c *Cluster) run(ctx context.Context) error {
	// The port was free a moment ago; someone may be quicker.
	const tries = 3
	for try := 1; ; try++ {
		err := c.serve(ctx)
		if err == nil {
			return nil
		}
		c.halt()
		if try == tries || !strings.Contains(err.Error(), "could not bind") {
			return err
		}
	}
}

// init makes the data directory.
func (c *Cluster) init(ctx context.Context) error {
	secret := filepath.Join(c.dir, "secret")
	if err := os.WriteFile(secret, []byte(c.secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("writing the test server's password: %w", err)
	}
	if err := c.owner.Own(secret); err != nil {
		return err
	}
	cmd := c.command(ctx, filepath.Join(c.bin, "initdb"), "--pgdata", c.data(), "--username", superuser,
		"--auth", "password", "--pwfile", secret, "--encoding", "UTF8", "--locale", "C",
		"--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	version, err := c.command(ctx, filepath.Join(c.bin, "postgres"), "--version").Output()
	if err != nil {
		return fmt.Errorf("postgres --version: %w", err)
	}
	c.version = strings.Join(strings.Fields(string(version))[2:3], "")
	return nil
}

// serve starts the server under its watcher and waits until it answers.
func (c *Cluster) serve(ctx context.Context) error {
	var err error
	if c.port, err = freePort(ctx); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	// Not bound to ctx: only the pipe may end it.
	cmd := c.command(context.WithoutCancel(ctx), "/bin/sh", "-c", watcher, "watch.sh", c.bin, c.dir)
	detach(cmd)
	c.said = new(bytes.Buffer)
	cmd.Stderr = c.said
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("making the watcher's pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the watcher: %w", err)
	}
	ended := make(chan struct{})
	c.watch, c.pipe, c.ended = cmd, pipe, ended
	go func() {
		_ = cmd.Wait() // what it has to say is in the log
		close(ended)
	}()
	return c.ready(ctx)
}

// configure writes the settings that differ from PostgreSQL's own.
func (c *Cluster) configure() error {
	conf := fmt.Sprintf(`listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%s'
max_connections = 300
timezone = 'UTC'
log_timezone = 'UTC'
`, c.port, c.dir) + c.settings
	// Read after postgresql.conf, so it wins.
	name := filepath.Join(c.data(), "postgresql.auto.conf")
	if err := os.WriteFile(name, []byte(conf), 0o600); err != nil {
		return fmt.Errorf("writing the test server's settings: %w", err)
	}
	return c.owner.Own(name)
}

// ready waits until the server says in its pid file that it serves, which is
// where pg_ctl looks too.
func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		lines, _ := os.ReadFile(filepath.Join(c.data(), "postmaster.pid")) // absent at first
		if f := strings.Split(string(lines), "\n"); len(f) > 7 && strings.TrimSpace(f[7]) == "ready" {
			return nil
		}
		select {
		case <-c.ended:
			return fmt.Errorf("the test server did not start:\n%s", c.said)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the test server to start: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// command prepares a program to run as the server's owner, with none of the
// caller's PG… variables.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C", "TZ=UTC"}
	c.owner.Run(cmd)
	return cmd
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("finding a free port: %w", err)
	}
	return strconv.Atoi(port)
}
