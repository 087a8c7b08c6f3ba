package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// TestMain makes the test program simlatch itself when it is called by that
// name, as scripts do, and tests that need a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"simlatch": main})
}

// TestScripts runs testdata/*.txtar, which read like a terminal. Beside what
// testscript has there are
//
//	start ARGS…          runs simlatch in the background, and puts the URL in
//	                     its ready line into $URL; its log goes to server.log
//	terminate            ends it with SIGTERM; its exit status must be 0
//	fetch STATUS URL     gets a URL and prints the answer, whose status is checked
//	send STATUS METHOD PATH [BODY | @FILE]
//	                     makes a call at $URL, with a sandbox's test token, and
//	                     prints the answer, whose status is checked
//	assign ICCID…        asks for flexible licenses, as user ada of application app
//	                     at $URL, and puts the request's id into $REQUEST; negated,
//	                     it must be refused, and the refusal goes to stderr
//	take NAME REGEXP     puts what the last output matched, or its first group, into $NAME
//	until REGEXP ARGS…   runs simlatch again and again, until what it prints matches
//	exits STATUS ARGS…   runs simlatch and fails unless that is its exit status
//	mode MODE FILE       fails unless that is the file's mode
//
// testscript's own stop ends the whole script as if it had passed, and has no
// place in these.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scripts {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`(?m)^stop\b`).Match(text) {
			t.Errorf("%s: stop ends the script there; terminate ends the server", name)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Values[backgroundKey{}] = &background{}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start":     scriptStart,
			"terminate": scriptTerminate,
			"fetch":     scriptFetch,
			"send":      scriptSend,
			"mode":      scriptMode,
			"take":      scriptTake,
			"assign":    scriptAssign,
			"until":     scriptUntil,
			"exits":     scriptExits,
		},
	})
}

type backgroundKey struct{}

// background is the process that a script's start has started.
type background struct{ process *process }

func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	b := ts.Value(backgroundKey{}).(*background)
	if neg || b.process != nil {
		ts.Fatalf("start is used once at a time, and not negated")
	}
	log, err := os.OpenFile(ts.MkAbs("server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	p, err := startProcess(ts.MkAbs("."), log, args...)
	ts.Check(err)
	b.process = p
	ts.Defer(func() { p.kill() })
	ts.Setenv("URL", p.url)
}

func scriptTerminate(ts *testscript.TestScript, neg bool, _ []string) {
	b := ts.Value(backgroundKey{}).(*background)
	if neg || b.process == nil {
		ts.Fatalf("terminate ends what start has started, and is not negated")
	}
	ts.Check(b.process.terminate())
	b.process = nil
}

func scriptSend(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: send STATUS METHOD PATH [BODY | @FILE]")
	}
	body := strings.Join(args[3:], "")
	if name, ok := strings.CutPrefix(body, "@"); ok {
		body = ts.ReadFile(name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, args[1], ts.Getenv("URL")+args[2], strings.NewReader(body))
	ts.Check(err)
	q.Header.Set("Authorization", "Bearer test-token")
	q.Header.Set(m2m.SessionHeader, "any")
	q.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(q)
	ts.Check(err)
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(got)
	ts.Check(err)
	if strconv.Itoa(answer.StatusCode) != args[0] {
		ts.Fatalf("%s %s = %d, want %s", args[1], args[2], answer.StatusCode, args[0])
	}
}

func scriptFetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fetch STATUS URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	ts.Check(err)
	answer, err := http.DefaultClient.Do(q)
	ts.Check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(body)
	ts.Check(err)
	if strconv.Itoa(answer.StatusCode) != args[0] {
		ts.Fatalf("GET %s = %d, want %s", args[1], answer.StatusCode, args[0])
	}
}

func scriptAssign(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: [!] assign ICCID…")
	}
	client, err := m2m.New(m2m.Config{
		BaseURL: ts.Getenv("URL"), Key: "app", Secret: strings.TrimSpace(ts.ReadFile("secret.txt")),
		Username: "ada", Password: strings.TrimSpace(ts.ReadFile("password.txt")),
	})
	ts.Check(err)
	request := m2m.LicenseRequest{SKUNumber: string(license.SKUFlexible)}
	for _, iccid := range args {
		request.Devices = append(request.Devices, m2m.NewDevice("", iccid))
	}
	id, err := client.Assign(context.Background(), request)
	if neg {
		if err == nil {
			ts.Fatalf("the assignment was accepted as %s", id)
		}
		_, err = fmt.Fprintln(ts.Stderr(), err)
	}
	ts.Check(err)
	ts.Setenv("REQUEST", id)
}

func scriptTake(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: take NAME REGEXP")
	}
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if m == nil {
		ts.Fatalf("the output does not match %s", args[1])
	}
	ts.Setenv(args[0], m[len(m)-1])
}

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP ARGS…")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := ts.Exec("simlatch", args[1:]...)
		if out := ts.ReadFile("stdout"); re.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("simlatch %s has not printed %s: %v", strings.Join(args[1:], " "), args[0], err)
		}
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS ARGS…")
	}
	got := 0
	if err := ts.Exec("simlatch", args[1:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("simlatch %s: %v", strings.Join(args[1:], " "), err)
		}
		got = exit.ExitCode()
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("the exit status is %d, want %s", got, args[0])
	}
}

func scriptMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode MODE FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// process is a simlatch in a process of its own.
type process struct {
	cmd    *exec.Cmd
	url    string // from its ready line
	reader sync.WaitGroup
	once   sync.Once
	ended  error
}

// startProcess runs simlatch in dir and waits until it is ready.
func startProcess(dir string, log io.Writer, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: &exec.Cmd{Path: self, Args: append([]string{"simlatch"}, args...), Dir: dir, Stderr: log}}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, envPrefix) {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	late := time.AfterFunc(time.Minute, p.kill)
	defer late.Stop()
	line, err := lines.ReadString('\n')
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("simlatch %s ended before it was ready; its log tells why: %w", strings.Join(args, " "), p.ended)
	}
	p.url = line[strings.LastIndexByte(line, ' ')+1 : len(line)-1]
	p.reader.Go(func() { _, _ = io.Copy(io.Discard, lines) }) // ends with the process
	return p, nil
}

// wait waits for the end of the process.
func (p *process) wait() error {
	p.once.Do(func() {
		p.reader.Wait()
		p.ended = p.cmd.Wait()
	})
	return p.ended
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.wait()             // it was killed
}

// terminate ends the process as an operator would.
func (p *process) terminate() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	late := time.AfterFunc(30*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	return p.wait()
}
