package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestReadmeWalk pastes the README's curl walk into shells: a first with the
// server, a second with the listener, a third with the calls.
func TestReadmeWalk(t *testing.T) {
	for _, program := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the walk needs %s: %v", program, err)
		}
	}
	blocks := readmeBlocks(t)
	dir := t.TempDir()
	program, err := exec.LookPath("simlatch") // this program, see TestMain
	if err == nil {
		err = os.Symlink(program, filepath.Join(dir, "simlatch"))
	}
	if err != nil {
		t.Fatal(err)
	}
	server := startShell(t, dir, nil, execLast(blocks[0]))
	server.waitFor(t, "ready at ")
	listener := startShell(t, dir, nil, execLast(blocks[1]))
	listener.waitFor(t, "listening for callbacks on ")

	keyboard, typed := io.Pipe()
	calls := startShell(t, dir, keyboard, "")
	_, _ = io.WriteString(typed, blocks[2]+blocks[3]) // the shell's end tells
	listener.waitFor(t, "ICCID 89148000000000000012")
	listener.waitFor(t, "ICCID 89148000000000000020")
	_, _ = io.WriteString(typed, blocks[4])
	_ = typed.Close()
	if err := calls.wait(); err != nil {
		t.Errorf("the calls ended with %v:\n%s", err, calls)
	}
	for _, want := range []string{
		`"serviceName":"CarrierService"`,
		`"requestId":"`,
		`"licenseAvailable":4998`,
		`At least one device exists with Assigned or Pending Assignment or Pending UnAssignment license status.`,
	} {
		if !strings.Contains(calls.String(), want) {
			t.Errorf("the calls' answers do not have %s:\n%s", want, calls)
		}
	}
	listener.waitFor(t, "Unassign SIMSec-IoT  ICCID 89148000000000000012")
	got := listener.waitFor(t, "Unassign SIMSec-IoT  ICCID 89148000000000000020")
	for _, want := range []string{
		"Success  Assign SIMSec-IoT  ICCID 89148000000000000012  MDN 5551230001  IMEI 490154203237518  request ",
		"Success  Assign SIMSec-IoT  ICCID 89148000000000000020  MDN 5551230002  IMEI 490154203237526  request ",
		"Success  Unassign SIMSec-IoT  ICCID 89148000000000000012",
	} {
		if strings.Count(got, want) != 1 {
			t.Errorf("the listener printed %q not once:\n%s", want, got)
		}
	}
}

// readmeBlocks are the shell blocks of the walk, with free ports in the place
// of the README's and without the build.
func readmeBlocks(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	// Other sections have shell blocks of their own.
	_, walk, _ := strings.Cut(string(text), "\n## From a token to a callback")
	walk, _, _ = strings.Cut(walk, "\n## ")
	replace := strings.NewReplacer(
		"127.0.0.1:8080", freeAddress(t), "127.0.0.1:9001", freeAddress(t),
		"go build ./cmd/simlatch\n", "")
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(walk, -1) {
		blocks = append(blocks, replace.Replace(m[1]))
	}
	if len(blocks) != 5 {
		t.Fatalf("the README has %d shell blocks, want the 5 of the walk", len(blocks))
	}
	// Pasted into zsh, a comment is a command, and path is where commands are.
	if in := regexp.MustCompile(`(?m)^#.*|\bpath=`).FindString(strings.Join(blocks, "")); in != "" {
		t.Errorf("the walk has %q, which zsh takes amiss", in)
	}
	address := regexp.MustCompile(`SERVER=http://(\S+)`).FindStringSubmatch(blocks[2])
	blocks[0] = strings.TrimSuffix(blocks[0], "\n") + " --listen " + address[1] + "\n"
	return blocks
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// shell is a shell that runs while the test looks at what it prints.
type shell struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error         // how it ended, once done is closed
	news chan struct{} // one element when something was printed

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

// execLast has a script's last command take the shell's place, so that a signal
// reaches it.
func execLast(script string) string {
	at := strings.LastIndex("\n"+script, "\n./simlatch")
	return script[:at] + "exec " + script[at:]
}

// startShell runs a script, or what keyboard types, until that or the test
// ends.
func startShell(t *testing.T, dir string, keyboard io.Reader, script string) *shell {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	s := &shell{done: make(chan struct{}), news: make(chan struct{}, 1)}
	s.cmd = exec.CommandContext(ctx, "sh", "-u")
	if keyboard == nil {
		s.cmd.Args = append(s.cmd.Args, "-c", script)
	}
	s.cmd.Dir, s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = dir, keyboard, s, s
	for _, v := range os.Environ() {
		// Settings of whoever runs the tests are not the README's.
		if !strings.HasPrefix(v, envPrefix) && !strings.HasPrefix(strings.ToLower(v), "http_proxy=") {
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(os.Interrupt) }
	s.cmd.WaitDelay = 20 * time.Second
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		cancel()
		if err := s.wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("a shell ended with %v:\n%s", err, s)
		}
	})
	return s
}

func (s *shell) wait() error {
	<-s.done
	return s.err
}

func (s *shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.news <- struct{}{}:
	default:
	}
	return s.out.Write(p)
}

func (s *shell) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// waitFor waits until the shell has printed something and returns all it has.
func (s *shell) waitFor(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if got := s.String(); strings.Contains(got, text) {
			return got
		}
		select {
		case <-s.news:
		case <-s.done:
			t.Fatalf("ended with %v before it printed %q:\n%s", s.err, text, s)
		case <-deadline:
			t.Fatalf("did not print %q in time:\n%s", text, s)
		}
	}
}
