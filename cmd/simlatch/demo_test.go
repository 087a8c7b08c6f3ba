package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// smallDemo is the demonstration with few SIMs.
func smallDemo() demoOptions { return demoOptions{sims: 500, refuseRate: 0.1} }

// emptyTemp makes a directory for temporary files that must be empty again at
// the end of the test.
func emptyTemp(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	})
}

func TestDemo(t *testing.T) {
	emptyTemp(t)
	var out, messages bytes.Buffer
	if err := runDemo(t.Context(), smallDemo(), streams{out: &out, err: &messages}); err != nil {
		t.Fatalf("runDemo = %v, want nil; it printed:\n%s%s", err, &out, &messages)
	}
	for _, want := range []string{
		`400 UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful\n`,
		`400 INPUT_INVALID.InsufficientLicense.Invalid\n`,
		`400 UnifiedWebService.INPUT_INVALID.Unassign.NotSupported\n`,
		`assign SIMSec-IoT +100 +\d\d +\d+ +100 +[\d.]+ ms +[\d.]+ ms\n`,
		`assign SIMSec-IoT-Lt +10 +\d+ +\d+ +10 `,
		`unassign SIMSec-IoT +25 +\d+ +\d+ +25 `,
		`SIMSec-IoT +250 +0 +250 +\d+ +\d+\n`,
		`\nChecked: `,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("nothing printed matches %s:\n%s", want, &out)
		}
	}
	if want := "simlatch: assigning 110 of 110\nsimlatch: unassigning 25 of 25\n"; messages.String() != want {
		t.Errorf("standard error got %q, want %q", &messages, want)
	}
}

func TestDemoStaysAndItsLinesWork(t *testing.T) {
	for _, program := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the lines need %s: %v", program, err)
		}
	}
	emptyTemp(t)
	ctx, interrupt := context.WithTimeout(t.Context(), time.Minute)
	defer interrupt()
	out, w := io.Pipe()
	o := smallDemo()
	o.stay = true
	ended := make(chan error, 1)
	go func() {
		err := runDemo(ctx, o, streams{out: w, err: io.Discard})
		w.CloseWithError(io.EOF)
		ended <- err
	}()
	text := readUntil(t, out, "/docs\n")
	lines := regexp.MustCompile(`(?m)^(TOKEN=|SESSION=|curl ).*$`).FindAllString(text, -1)
	if len(lines) != 3 {
		t.Fatalf("printed %d lines to try, want 3:\n%s", len(lines), text)
	}
	cmd := exec.CommandContext(ctx, "sh", "-eu")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	cmd.Env = append(os.Environ(), "http_proxy=", "HTTP_PROXY=")
	got, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(`"skuNumber": ?"SIMSec-IoT-Lt"`).Match(got) {
		t.Errorf("the lines gave %s (%v), want the list of pools", got, err)
	}
	interrupt()
	if err := <-ended; err != nil {
		t.Errorf("runDemo = %v when interrupted while it stays, want nil", err)
	}
}

func TestDemoInterrupted(t *testing.T) {
	emptyTemp(t)
	ctx, interrupt := context.WithCancel(t.Context())
	out, w := io.Pipe()
	ended := make(chan error, 1)
	o := smallDemo()
	o.delay = time.Minute // no callback will come
	go func() {
		err := runDemo(ctx, o, streams{out: w, err: io.Discard})
		w.CloseWithError(io.EOF)
		ended <- err
	}()
	readUntil(t, out, "in a request …\n")
	interrupt()
	if err := <-ended; err == nil || !strings.HasPrefix(err.Error(), "interrupted") {
		t.Errorf("runDemo = %v, want that it was interrupted", err)
	}
}

// readUntil reads r until it has seen end, and lets the rest go.
func readUntil(t *testing.T, r io.Reader, end string) string {
	t.Helper()
	var b strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(b.String(), end) {
		n, err := r.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			t.Fatalf("reading: %v after\n%s", err, &b)
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }() // ends with the writer
	return b.String()
}
