package main

import (
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestSecondSignal: a first SIGTERM drains, a second one ends the process at
// once.
func TestSecondSignal(t *testing.T) {
	p, err := startProcess(t.TempDir(), os.Stderr, "serve", "--carrier", "simulated", "--listen", "127.0.0.1:0",
		"--log-level", "error", "--grace", "1m", "--drain-delay", "1m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	terminate := func() {
		t.Helper()
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	terminate()
	late := time.After(20 * time.Second)
	for ready := true; ready; {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatalf("the server is gone after one signal: %v", err)
		}
		answer.Body.Close()
		ready = answer.StatusCode == http.StatusOK
		select {
		case <-late:
			t.Fatal("the server is still ready after SIGTERM")
		case <-time.After(5 * time.Millisecond):
		}
	}
	terminate()
	ended := make(chan error, 1)
	go func() { ended <- p.wait() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the process drained, though it was told twice to end")
		}
	case <-late:
		t.Error("the process goes on after a second SIGTERM")
	}
}
