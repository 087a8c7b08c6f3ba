//go:build linux

package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/knadh/koanf/parsers/yaml"
)

func someSettings() *settings {
	return &settings{
		Bin: "/pg/bin", Etcd: "127.0.0.1:1", Peer: "127.0.0.1:2", Primary: "127.0.0.1:3",
		Postgres: [2]postgres{
			{Name: "pg1", Data: "/d/pg1/data", Pass: "/d/pg1/pgpass", Address: "127.0.0.1:11", REST: "127.0.0.1:12"},
			{Name: "pg2", Data: "/d/pg2/data", Pass: "/d/pg2/pgpass", Address: "127.0.0.1:21", REST: "127.0.0.1:22"},
		},
		Superuser: "S", Replication: "R", Rewind: "W", Database: "D",
	}
}

func TestPatroniSettings(t *testing.T) {
	text, err := someSettings().patroni(1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := yaml.Parser().Unmarshal([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	at := func(path string) any {
		var v any = got
		for _, name := range strings.Split(path, ".") {
			m, _ := v.(map[string]any)
			v = m[name]
		}
		return v
	}
	for path, want := range map[string]any{
		"name":                                   "pg2",
		"restapi.listen":                         "127.0.0.1:22",
		"etcd.host":                              "127.0.0.1:1",
		"bootstrap.dcs.synchronous_mode":         true,
		"postgresql.listen":                      "127.0.0.1:21",
		"postgresql.data_dir":                    "/d/pg2/data",
		"postgresql.bin_dir":                     "/pg/bin",
		"postgresql.authentication":              map[string]any{"superuser": login("postgres", "S"), "replication": login("replicator", "R"), "rewind": login("rewinder", "W")},
		"postgresql.parameters.timezone":         "UTC",
		"bootstrap.dcs.postgresql.use_pg_rewind": true,
	} {
		if diff := cmp.Diff(want, at(path)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

func login(name, password string) map[string]any {
	return map[string]any{"username": name, "password": password}
}

func TestHAProxySettings(t *testing.T) {
	text, err := someSettings().haproxy()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  bind 127.0.0.1:3\n", "option httpchk GET /primary\n", "on-marked-down shutdown-sessions\n",
		"  server pg1 127.0.0.1:11 check port 12\n", "  server pg2 127.0.0.1:21 check port 22\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}

func TestURLs(t *testing.T) {
	s := someSettings()
	if got, want := s.databaseURL(), "postgres://simlatch:D@127.0.0.1:3/simlatch?sslmode=disable"; got != want {
		t.Errorf("databaseURL() = %s, want %s", got, want)
	}
	if got, want := s.superuserURL(), "postgres://postgres:S@127.0.0.1:3/postgres?sslmode=disable&target_session_attrs=read-write"; got != want {
		t.Errorf("superuserURL() = %s, want %s", got, want)
	}
}

func TestSeed(t *testing.T) {
	if _, err := yaml.Parser().Unmarshal([]byte(seed())); err != nil {
		t.Errorf("%v in\n%s", err, seed())
	}
	if got := strings.Count(fleet(), "\n"); got != sims+1 {
		t.Errorf("the fleet has %d lines, want %d SIMs and a header", got, sims)
	}
}

// TestPorts: ports differ, are on loopback, and can be listened on.
func TestPorts(t *testing.T) {
	list, err := ports(t.Context(), 20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[address]bool{}
	for _, a := range list {
		host, port, err := net.SplitHostPort(string(a))
		if err != nil || host != "127.0.0.1" || port != a.port() || seen[a] {
			t.Errorf("ports() gave %s (%v; seen: %v)", a, err, seen[a])
		}
		seen[a] = true
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", string(a))
		if err != nil {
			t.Errorf("it is not free: %v", err)
			continue
		}
		_ = l.Close()
	}
}

func TestParseCommand(t *testing.T) {
	for _, c := range []struct {
		line string
		want command
		err  string // a part of it; empty for none
	}{
		{"", command{}, ""},
		{"  \t", command{}, ""},
		{"status", command{verb: "status"}, ""},
		{" kill  pg1 ", command{"kill", "pg1"}, ""},
		{"thaw node3", command{"thaw", "node3"}, ""},
		{"kill", command{}, "kill takes one NAME"},
		{"kill pg1 pg2", command{}, "kill takes one NAME"},
		{"quit now", command{}, "quit takes no NAME"},
		{"reboot pg1", command{}, `"reboot" is none of: status, kill NAME`},
	} {
		got, err := parseCommand(c.line)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("parseCommand(%q) = %+v, %v, want %+v, %q", c.line, got, err, c.want, c.err)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-dir", "x", "--check", "-keep"})
	if err != nil || !filepath.IsAbs(o.dir) || !filepath.IsAbs(o.binary) || !o.check || !o.keep {
		t.Errorf("parse() = %+v, %v", o, err)
	}
	if _, err := parse([]string{"quit"}); err == nil {
		t.Error("parse() takes an argument that means nothing")
	}
}

func TestParseRole(t *testing.T) {
	for body, want := range map[string]string{
		`{"state":"running","role":"master","server_version":150018}`:      "primary",
		`{"state":"running","role":"primary"}`:                             "primary",
		`{"state":"running","role":"replica","sync_standby":true}`:         "synchronous standby",
		`{"state":"streaming","role":"replica"}`:                           "standby",
		`{"state":"starting","role":"replica"}`:                            "starting",
		`{"state":"running","role":"standby_leader","sync_standby":false}`: "standby_leader",
		`<html>`: "unknown: invalid character '<' looking for beginning of value",
	} {
		if got := parseRole([]byte(body)); got != want {
			t.Errorf("parseRole(%s) = %q, want %q", body, got, want)
		}
	}
}

// TestPart: a part can be frozen, thawed and killed, and tells how it is.
func TestPart(t *testing.T) {
	s := newSpawner()
	defer close(s)
	gone := make(chan *part, 1)
	p := &part{name: "sleeper", log: filepath.Join(t.TempDir(), "log"), command: func() *exec.Cmd { return exec.Command("sleep", "1000") }}
	if got := p.state(); got != "not started" {
		t.Errorf("state() = %q before the start", got)
	}
	if err := p.start(s, gone); err != nil {
		t.Fatal(err)
	}
	defer p.stop(0)
	if err := p.start(s, gone); err == nil {
		t.Error("it can be started twice")
	}
	for _, c := range []struct {
		signal syscall.Signal
		want   string
	}{{syscall.SIGSTOP, "frozen"}, {syscall.SIGCONT, "running"}, {syscall.SIGKILL, "ended: signal: killed"}} {
		if err := p.signal(c.signal); err != nil {
			t.Fatal(err)
		}
		if c.signal == syscall.SIGKILL {
			if got := <-gone; got != p {
				t.Errorf("%v is gone, want %v", got, p)
			}
		}
		// What was sent may take a moment to be seen.
		for deadline := time.Now().Add(10 * time.Second); p.state() != c.want; {
			if time.Now().After(deadline) {
				t.Fatalf("after %v: state() = %q, want %q", c.signal, p.state(), c.want)
			}
		}
	}
	if err := p.signal(syscall.SIGKILL); err == nil {
		t.Error("what is dead can be killed")
	}
}

// TestPostmaster: a number in the file of a server that is gone may be anyone's.
func TestPostmaster(t *testing.T) {
	dir := t.TempDir()
	if got := postmaster(dir); got != 0 {
		t.Errorf("postmaster() = %d without a file", got)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) }()
	for pid, want := range map[string]int{
		strconv.Itoa(os.Getpid()) + "\nx\n":     0, // it works elsewhere
		strconv.Itoa(cmd.Process.Pid) + "\nx\n": cmd.Process.Pid,
		"nothing":                               0,
	} {
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(pid), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := postmaster(dir); got != want {
			t.Errorf("postmaster() = %d of %q, want %d", got, pid, want)
		}
	}
}
