package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/simlatch/simlatch/internal/load"
)

// The noisy account is a process of its own, as any client of another is: else the
// quiet one would wait for its decoding and its listener too. Its parent tells it
// on standard input when to begin and when to stop, a line each; it answers with
// a line when the first request of a round was accepted, and with a noise in JSON
// when all callbacks of the round have come.

// noiseCommand is the argument that makes this program one.
const noiseCommand = "noise"

// noise is what the noisy account did in a round.
type noise struct {
	Requests int              `json:"requests"`
	Answer   load.Percentiles `json:"answer"`
	Failed   string           `json:"failed"` // why; empty where it did not
}

// noisy is the noisy account as its parent sees it.
type noisy struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
}

// newNoisy starts the noisy account of a site, its first tenant.
func newNoisy(ctx context.Context, s *site) (*noisy, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	n := &noisy{cmd: exec.CommandContext(ctx, program, noiseCommand, s.process.url, s.tenants[0].account)}
	n.cmd.Env, n.cmd.Stderr = plainEnvironment(), os.Stderr
	if n.in, err = n.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	n.lines = bufio.NewReader(out)
	return n, n.cmd.Start()
}

// begin begins a round, and returns when the first request was accepted.
func (n *noisy) begin() error {
	if _, err := fmt.Fprintln(n.in, "begin"); err != nil {
		return err
	}
	_, err := n.lines.ReadString('\n')
	return err
}

// stop ends a round.
func (n *noisy) stop() (did noise, err error) {
	if _, err := fmt.Fprintln(n.in, "stop"); err != nil {
		return did, err
	}
	line, err := n.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &did)
	}
	if err == nil && did.Failed != "" {
		err = errors.New(did.Failed)
	}
	return did, err
}

// close ends the account. It fails where a callback was missing or double.
func (n *noisy) close() error { return errors.Join(n.in.Close(), n.cmd.Wait()) }

// makeNoise is the noisy account.
func makeNoise(ctx context.Context, url, account string, in io.Reader, out io.Writer) error {
	t := &tenant{account: account, fleet: load.Fleet{Mark: 0}}
	s := &site{o: siteOptions{apart: true}, process: &process{url: url}, tenants: []*tenant{t}}
	if err := s.connect(0, nil); err != nil {
		return err
	}
	end, err := s.listen(ctx, t, &t.sink)
	if err != nil {
		return err
	}
	defer end()
	lots := t.lots(noiseLots, noiseSize)
	orders := bufio.NewScanner(in)
	for orders.Scan() { // "begin"
		stop, done := make(chan struct{}), make(chan noise)
		go func() { done <- t.round(ctx, lots, stop, out) }()
		orders.Scan() // "stop", or the parent is gone
		close(stop)
		if err := json.NewEncoder(out).Encode(<-done); err != nil {
			return err
		}
	}
	return errors.Join(orders.Err(), t.sink.Check())
}

// round sends one large request after the other until it is stopped, and returns
// when all callbacks have come.
func (t *tenant) round(ctx context.Context, lots []*lot, stop <-chan struct{}, out io.Writer) (did noise) {
	var answers []time.Duration
	var err error
	for i, going := 0, true; going && err == nil; i++ {
		l := lots[i%len(lots)]
		if err = l.wait(ctx); err == nil {
			var took time.Duration
			took, err = t.send(ctx, l)
			answers = append(answers, took)
		}
		if i == 0 {
			fmt.Fprintln(out, "begun") // a parent that is gone closes our input too
		}
		select {
		case <-stop:
			going = false
		default:
		}
	}
	for _, l := range lots {
		if err == nil {
			err = l.wait(ctx)
		}
	}
	did = noise{Requests: len(answers), Answer: load.PercentilesOf(answers)}
	if err != nil {
		did.Failed = fmt.Sprintf("the noisy account: %v", err)
	}
	return did
}
