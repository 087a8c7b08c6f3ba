package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that says where it serves in its first line.
type process struct {
	cmd    *exec.Cmd
	url    string
	log    *tail
	reader sync.WaitGroup
}

// startProcess starts cmd with its environment added to ours, of which it gets
// none of the settings. What is not stopped ends with the bench.
func (b *bench) startProcess(cmd *exec.Cmd) (*process, error) {
	inherited := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SIMLATCH_") })
	cmd.Env = append(inherited, cmd.Env...)
	p := &process{cmd: cmd, log: &tail{}}
	cmd.Stderr = p.log
	// A signal from the terminal is meant for us, who stop it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill() // it may have ended
		return nil, fmt.Errorf("%w before it was ready (%w):\n%s", err, cmd.Wait(), p.log)
	}
	p.url = line[strings.LastIndexByte(line, ' ')+1 : len(line)-1]
	p.reader.Go(func() { _, _ = io.Copy(io.Discard, lines) }) // ends with the process
	b.processes = append(b.processes, p)
	return p, nil
}

// stop ends the process as an operator would, unless it has ended.
func (p *process) stop() error {
	if p.cmd.ProcessState != nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	late := time.AfterFunc(time.Minute, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	p.reader.Wait()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%w; its log ends:\n%s", err, p.log)
	}
	return nil
}

// tail keeps the end of a log.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if most := 8 << 10; len(t.text) > most {
		t.text = bytes.Clone(t.text[len(t.text)-most:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
