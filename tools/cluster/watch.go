//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// watchVariable makes this program the watcher of the directory it names.
const (
	watchVariable = "SIMLATCH_CLUSTER_WATCH"
	keepVariable  = "SIMLATCH_CLUSTER_KEEP"
)

// keepWord in the pipe to the watcher has it leave the directory.
const keepWord = "keep"

// watch waits until the program that runs the cluster has ended, or closes the
// pipe that is our standard input. It then ends what is left of PostgreSQL, and
// removes the directory.
func watch(dir string, keep bool) {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	said, _ := io.ReadAll(os.Stdin) // a broken pipe says the same as a closed one
	servers, err := filepath.Glob(filepath.Join(dir, "*", "data"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "make cluster:", err)
	}
	for _, data := range servers {
		endPostgres(data)
	}
	if keep || string(said) == keepWord {
		return
	}
	// A program of theirs may be writing its last file.
	for range 50 {
		if err = os.RemoveAll(dir); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "make cluster: removing what was made:", err)
}

// endPostgres ends the server in a directory at once.
func endPostgres(data string) {
	for try := range 100 {
		pid := postmaster(data)
		if pid == 0 {
			return
		}
		s := syscall.SIGQUIT // it takes its children along
		if try > 50 {
			s = syscall.SIGKILL
		}
		for _, child := range append(children(pid), pid) {
			_ = syscall.Kill(child, syscall.SIGCONT) // it may end meanwhile
		}
		_ = syscall.Kill(pid, s)
		time.Sleep(100 * time.Millisecond)
	}
}

// watcher is our end of it.
type watcher struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startWatcher starts a watcher that outlives us.
func startWatcher(dir string, keep bool) (*watcher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), self)
	cmd.Env = []string{watchVariable + "=" + dir}
	if keep {
		cmd.Env = append(cmd.Env, keepVariable+"=yes")
	}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the watcher: %w", err)
	}
	return &watcher{cmd: cmd, pipe: pipe}, nil
}

// stop lets the watcher do its work and waits until it has.
func (w *watcher) stop(keep bool) error {
	if keep {
		_, _ = io.WriteString(w.pipe, keepWord) // at worst the directory goes
	}
	_ = w.pipe.Close() // nothing is buffered
	return w.cmd.Wait()
}
