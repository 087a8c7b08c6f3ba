//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

// patience is how long a part may take to be healthy. It takes seconds, unless
// the machine is very busy.
const patience = 2 * time.Minute

// cluster is all parts. One goroutine runs it.
type cluster struct {
	o   options
	dir string
	who pgcluster.Owner // runs all but the nodes
	settings

	etcd, haproxy *part
	servers       [2]*part // Patroni with its PostgreSQL
	nodes         [3]*part
	gone          chan *part // parts that have ended

	spawner spawner
	watcher *watcher
	clients *clients // the load, once there is one

	mu  sync.Mutex // guards out
	out io.Writer
}

// parts are all of them in the order of their start.
func (c *cluster) parts() []*part {
	return []*part{c.etcd, c.servers[0], c.servers[1], c.haproxy, c.nodes[0], c.nodes[1], c.nodes[2]}
}

func (c *cluster) find(name string) (*part, error) {
	for _, p := range c.parts() {
		if p.name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("there is no %q; see status", name)
}

// say prints a line. Any goroutine may.
func (c *cluster) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.out, format+"\n", args...)
}

// newCluster makes the directory and writes all settings. It starts nothing but
// the watcher, who removes the directory whatever happens to us.
func newCluster(ctx context.Context, o options) (c *cluster, err error) {
	c = &cluster{o: o, out: os.Stdout, spawner: newSpawner(), gone: make(chan *part, 100)}
	if _, err := os.Stat(o.binary); err != nil {
		return nil, fmt.Errorf("the nodes' program: %w (make build makes it)", err)
	}
	if c.who, err = pgcluster.ServerOwner(); err != nil {
		return nil, err
	}
	if c.Bin, err = pgcluster.Programs(); err != nil {
		return nil, err
	}
	if err := c.makeDirectory(); err != nil {
		return nil, err
	}
	if c.watcher, err = startWatcher(c.dir, o.keep); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	if err := c.configure(ctx); err != nil {
		return nil, errors.Join(err, c.stop(false))
	}
	return c, nil
}

// makeDirectory makes a directory that whoever runs PostgreSQL can pass through.
func (c *cluster) makeDirectory() (err error) {
	if c.dir = c.o.dir; c.dir != "" {
		err = os.Mkdir(c.dir, 0o711)
	} else {
		c.dir, err = os.MkdirTemp("", "simlatch-cluster-")
	}
	if err != nil {
		return err
	}
	// The links in its name are seen through, as /proc does.
	real, err := filepath.EvalSymlinks(c.dir)
	if err == nil {
		c.dir = real
		err = os.Chmod(c.dir, 0o711)
	}
	if err == nil && !c.who.Reaches(c.dir) {
		err = fmt.Errorf("%s is closed to the user who runs PostgreSQL; -dir names another place", c.dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(c.dir))
	}
	return nil
}

// configure chooses ports and passwords, writes the settings of all parts and
// says how each is started.
func (c *cluster) configure(ctx context.Context) error {
	free, err := ports(ctx, 10)
	if err != nil {
		return err
	}
	c.Etcd, c.Peer, c.Primary = free[0], free[1], free[2]
	c.EtcdV3 = c.o.etcdV3
	c.Superuser, c.Replication, c.Rewind, c.Database = rand.Text(), rand.Text(), rand.Text(), rand.Text()
	for i := range c.Postgres {
		name := fmt.Sprintf("pg%d", i+1)
		c.Postgres[i] = postgres{
			Name: name, Data: c.path(name, "data"), Pass: c.path(name, "pgpass"),
			Address: free[3+2*i], REST: free[4+2*i],
		}
	}
	c.etcd = c.part("etcd", "etcd", c.Etcd, c.theirs("etcd", "etcd", "--name", "etcd", "--data-dir", c.path("etcd", "data"),
		"--listen-client-urls", c.Etcd.url(), "--advertise-client-urls", c.Etcd.url(),
		"--listen-peer-urls", c.Peer.url(), "--initial-advertise-peer-urls", c.Peer.url(), "--initial-cluster", "etcd="+c.Peer.url(),
		"--enable-v2"))
	for i, s := range c.Postgres {
		c.servers[i] = c.part(s.Name, "Patroni", s.REST, c.theirs(s.Name, "patroni", c.path(s.Name, "patroni.yml")))
		c.servers[i].data = s.Data
	}
	c.haproxy = c.part("haproxy", "HAProxy, to the primary", c.Primary, c.theirs("haproxy", "haproxy", "-db", "-f", c.path("haproxy", "haproxy.cfg")))
	for i := range c.nodes {
		name := fmt.Sprintf("node%d", i+1)
		c.nodes[i] = c.part(name, "Simlatch", free[7+i], c.node(name, free[7+i]))
	}
	return c.write()
}

func (c *cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

func (c *cluster) part(name, what string, at address, command func() *exec.Cmd) *part {
	return &part{name: name, what: what, address: at, log: c.path(name + ".log"), command: command}
}

// theirs is a command of Debian's packages. It gets none of our environment,
// which might hold settings for another installation.
func (c *cluster) theirs(dir, program string, args ...string) func() *exec.Cmd {
	return func() *exec.Cmd {
		cmd := exec.CommandContext(context.Background(), findProgram(program), args...)
		cmd.Dir = c.path(dir)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "LC_ALL=C.UTF-8", "TZ=UTC"}
		c.who.Run(cmd)
		return cmd
	}
}

// findProgram finds servers also where not everyone looks.
func findProgram(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return filepath.Join("/usr/sbin", name)
}

// node is the command of a node. All are alike; what the seed names is created
// by whoever comes first.
func (c *cluster) node(name string, at address) func() *exec.Cmd {
	return func() *exec.Cmd {
		cmd := exec.CommandContext(context.Background(), c.o.binary, "serve", "--carrier", "simulated", "--listen", string(at),
			"--secrets-key-file", c.path("nodes", "simlatch.key"), "--seed", c.path("nodes", "seed.yaml"),
			"--callback-allow", "127.0.0.0/8", "--callback-interval", "2s", "--node-id", name)
		cmd.Dir = c.path("nodes")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "SIMLATCH_DATABASE_FILE=" + c.databaseFile()}
		return cmd
	}
}

func (c *cluster) databaseFile() string { return c.path("nodes", "database-url") }

// write writes the files of all parts.
func (c *cluster) write() error {
	for _, name := range []string{"etcd", "pg1", "pg2", "haproxy", "nodes"} {
		if err := os.Mkdir(c.path(name), 0o700); err != nil {
			return err
		}
		if name == "nodes" {
			continue
		}
		if err := c.who.Own(c.path(name)); err != nil {
			return err
		}
	}
	proxy, err := c.settings.haproxy()
	if err != nil {
		return err
	}
	theirs := map[string]string{c.path("haproxy", "haproxy.cfg"): proxy}
	for i, s := range c.Postgres {
		if theirs[c.path(s.Name, "patroni.yml")], err = c.patroni(i); err != nil {
			return err
		}
	}
	for name, text := range theirs {
		if err := errors.Join(os.WriteFile(name, []byte(text), 0o600), c.who.Own(name)); err != nil {
			return err
		}
	}
	sealing := make([]byte, 32)
	_, _ = rand.Read(sealing) // never fails
	for name, text := range map[string]string{
		"simlatch.key": base64.StdEncoding.EncodeToString(sealing) + "\n", "database-url": c.databaseURL() + "\n",
		"seed.yaml": seed(), "fleet.csv": fleet(),
	} {
		if err := os.WriteFile(c.path("nodes", name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// start starts all parts, each when what it needs is healthy.
func (c *cluster) start(ctx context.Context) error {
	begun := time.Now()
	c.say("Starting etcd, two PostgreSQL servers with Patroni, HAProxy and three nodes …")
	for _, step := range []struct {
		part    *part
		what    string
		healthy func(context.Context) error
	}{
		{c.etcd, "etcd answers", func(ctx context.Context) error { return asks(ctx, c.Etcd.url()+"/health") }},
		{c.servers[0], "pg1 is the primary", func(ctx context.Context) error { return asks(ctx, c.Postgres[0].REST.url()+"/primary") }},
		{c.servers[1], "pg2 is the synchronous standby", func(ctx context.Context) error {
			return asks(ctx, c.Postgres[1].REST.url()+"/synchronous")
		}},
		{c.haproxy, "HAProxy leads to the primary", c.createDatabase},
		{c.nodes[0], "node1 is ready", nil},
		{c.nodes[1], "node2 is ready", nil},
		{c.nodes[2], "node3 is ready", nil},
	} {
		if err := step.part.start(c.spawner, c.gone); err != nil {
			return err
		}
		if step.healthy == nil {
			step.healthy = func(ctx context.Context) error { return asks(ctx, step.part.address.url()+"/readyz") }
		}
		if err := await(ctx, step.part, step.what, step.healthy); err != nil {
			return err
		}
	}
	c.say("All are healthy after %s. Their logs, each NAME.log, are in %s", time.Since(begun).Round(100*time.Millisecond), c.dir)
	return nil
}

// createDatabase makes the nodes' database and the role that owns it, once
// HAProxy leads to the primary only. It takes every server for one until it has
// asked, and passes them round.
func (c *cluster) createDatabase(ctx context.Context) error {
	for range 2 * len(c.servers) {
		if err := leadsToPrimary(ctx, c.superuserURL()); err != nil {
			return err
		}
	}
	conn, err := pgx.Connect(ctx, c.superuserURL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // all is said
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", database).Scan(&there); err != nil || there {
		return err
	}
	// No parameters are taken here. The password is letters and digits of ours.
	if _, err := conn.Exec(ctx, "CREATE ROLE "+database+" LOGIN PASSWORD '"+c.Database+"'"); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+database+" OWNER "+database)
	return err
}

func leadsToPrimary(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// stop ends all parts in the order in which they need each other, and what was
// made. With failed the directory stays, for its logs.
func (c *cluster) stop(failed bool) error {
	if c.etcd != nil && c.etcd.cmd != nil {
		c.say("Stopping …")
		if c.clients != nil {
			c.clients.close()
		}
		together(c.nodes[:], 15*time.Second)
		together([]*part{c.haproxy}, 5*time.Second)
		together(c.servers[:], 20*time.Second)
		together([]*part{c.etcd}, 5*time.Second)
	}
	keep := failed || c.o.keep
	err := c.watcher.stop(keep)
	close(c.spawner)
	if keep {
		c.say("The logs are in %s", c.dir)
	}
	return err
}

// together stops parts at once.
func together(parts []*part, patience time.Duration) {
	var all sync.WaitGroup
	for _, p := range parts {
		all.Go(func() { p.stop(patience) })
	}
	all.Wait()
}
