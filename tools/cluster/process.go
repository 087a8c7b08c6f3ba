//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// spawner starts processes that the kernel kills when this program ends,
// however it does. It looks at the thread that started them, so that is always
// the same one, which ends last.
type spawner chan func()

func newSpawner() spawner {
	s := make(spawner)
	go func() {
		runtime.LockOSThread()
		for start := range s {
			start()
		}
	}()
	return s
}

func (s spawner) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	// A signal from the terminal is meant for us, who stop all in order.
	cmd.SysProcAttr.Setpgid = true
	started := make(chan error, 1)
	s <- func() { started <- cmd.Start() }
	return <-started
}

// part is one of the programs of the cluster, running or not. Only the
// goroutine that runs the cluster uses it, but for ended and err.
type part struct {
	name    string
	what    string
	address address
	log     string // a file
	command func() *exec.Cmd
	data    string // PostgreSQL's directory, where this part looks after one

	cmd   *exec.Cmd     // nil until it is started
	ended chan struct{} // closed when it has
	err   error         // how; read it after ended
}

// start starts the part. When it ends, by whatever cause, it is sent to gone.
func (p *part) start(s spawner, gone chan<- *part) error {
	if p.running() {
		return fmt.Errorf("%s is running", p.name)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.start(cmd); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.ended = cmd, ended
	go func() {
		p.err = cmd.Wait()
		close(ended)
		gone <- p
	}()
	return nil
}

func (p *part) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *part) pid() int { return p.cmd.Process.Pid }

// state is how the part is, in a word or two.
func (p *part) state() string {
	switch {
	case p.cmd == nil:
		return "not started"
	case p.running():
		return state(p.pid())
	case p.err != nil:
		return "ended: " + p.err.Error()
	}
	return "ended"
}

// state is how a process is.
func state(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "ended"
	}
	// The third field; the second is a name in brackets, of whatever characters.
	if _, rest, ok := cutLast(string(text), ") "); ok && strings.HasPrefix(rest, "T") {
		return "frozen"
	}
	return "running"
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// signal sends a signal to all that the part is: its group, and PostgreSQL with
// its children, which are groups of their own. A Patroni comes before its
// PostgreSQL, which it would start again, and that before its children.
func (p *part) signal(s syscall.Signal) error {
	server := postmaster(p.data)
	if !p.running() && server == 0 {
		return fmt.Errorf("%s is not running", p.name)
	}
	if p.running() {
		if err := syscall.Kill(-p.pid(), s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("sending %v to %s: %w", s, p.name, err)
		}
	}
	if server == 0 {
		return nil
	}
	// It has no more children while it is stopped.
	if err := syscall.Kill(server, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stopping PostgreSQL of %s: %w", p.name, err)
	}
	for _, pid := range append([]int{server}, children(server)...) {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("sending %v to PostgreSQL of %s: %w", s, p.name, err)
		}
	}
	return nil
}

// stop ends the part as an operator would, and at once when that takes longer
// than it may. A frozen one is thawed for it.
func (p *part) stop(patience time.Duration) {
	if !p.running() {
		return
	}
	_ = p.signal(syscall.SIGCONT) // it may end meanwhile
	_ = syscall.Kill(p.pid(), syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.ended
	}
}

// postmaster is PostgreSQL's first process in a data directory, or 0 where none
// runs. The number in its file may have become another process's.
func postmaster(data string) int {
	if data == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(line)
	if err != nil || pid <= 1 {
		return 0
	}
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || dir != data {
		return 0
	}
	return pid
}

func children(pid int) (list []int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil // it has ended, and they follow
	}
	for _, field := range strings.Fields(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			list = append(list, child)
		}
	}
	return list
}

// tail is the end of a log.
func tail(name string) string {
	const most = 12
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	lines = lines[max(0, len(lines)-most):]
	return "  " + strings.Join(slices.Clone(lines), "\n  ")
}
