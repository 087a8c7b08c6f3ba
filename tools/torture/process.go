package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a server in a process of its own.
type process struct {
	cmd    *exec.Cmd
	url    string
	reader sync.WaitGroup
	ended  chan struct{} // closed when it has ended
	err    error         // how; read it after ended
}

// errDied says that a server ended before it was ready.
var errDied = errors.New("the server ended before it was ready")

// startProcess starts a server and waits for the line that says where it serves.
// Where that does not come it fails with errDied.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a signal from the terminal is meant for us
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	line, err := lines.ReadString('\n')
	late.Stop()
	p.reader.Go(func() { _, _ = io.Copy(io.Discard, lines) }) // ends with the process
	go func() {
		p.reader.Wait()
		p.err = cmd.Wait()
		close(p.ended)
	}()
	if err != nil {
		<-p.ended
		return p, errDied
	}
	p.url = line[strings.LastIndexByte(line, ' ')+1 : len(line)-1]
	return p, nil
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// terminate ends the process as an operator would.
func (p *process) terminate(within time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return p.err
	case <-time.After(within):
		p.kill()
		return fmt.Errorf("it did not end within %s of SIGTERM", within)
	}
}

// killed reports whether the process ended by SIGKILL, and nothing else.
func (p *process) killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// plainEnvironment is ours without settings of a server.
func plainEnvironment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SIMLATCH_") && !strings.HasPrefix(v, "CRASH_") {
			env = append(env, v)
		}
	}
	return env
}
