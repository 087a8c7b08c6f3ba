//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/mattn/go-isatty"
)

// command is a line typed at the prompt.
type command struct{ verb, name string }

// verbs are what can be typed; those that are true take a name.
var verbs = map[string]bool{
	"status": false, "load": false, "help": false, "quit": false,
	"kill": true, "freeze": true, "thaw": true, "start": true, "stop": true,
}

const help = `status, kill NAME, freeze NAME, thaw NAME, stop NAME (as an operator would), start NAME,
load (starts clients; again: stops them, and sees that nothing is lost), quit`

var errHelp = errors.New(help)

// parseCommand reads a line. An empty one is an empty command.
func parseCommand(line string) (command, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return command{}, nil
	}
	takes, known := verbs[words[0]]
	switch {
	case !known:
		return command{}, fmt.Errorf("%q is none of: %w", words[0], errHelp)
	case takes && len(words) != 2:
		return command{}, fmt.Errorf("%s takes one NAME, such as pg1", words[0])
	case !takes && len(words) != 1:
		return command{}, fmt.Errorf("%s takes no NAME", words[0])
	case takes:
		return command{words[0], words[1]}, nil
	}
	return command{verb: words[0]}, nil
}

// serve prints what there is and does what is typed until "quit", the end of a
// terminal's input, or the end of ctx.
func (c *cluster) serve(ctx context.Context, in *os.File) error {
	c.say("")
	c.status(ctx)
	c.invite()
	terminal := isatty.IsTerminal(in.Fd())
	lines := readLines(in)
	c.ask(terminal)
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-c.gone:
			c.say("%s has %s; \"start %s\" starts it again", p.name, p.state(), p.name)
		case line, ok := <-lines:
			if !ok {
				if terminal {
					return nil
				}
				lines = nil // whoever started us without a terminal stops us by a signal
				continue
			}
			cmd, err := parseCommand(line)
			if err == nil && cmd.verb == "quit" {
				return nil
			}
			if err == nil {
				err = c.do(ctx, cmd)
			}
			if err != nil {
				c.say("%v", err)
			}
		}
		c.ask(terminal)
	}
}

func (c *cluster) ask(terminal bool) {
	if terminal {
		c.mu.Lock()
		defer c.mu.Unlock()
		fmt.Fprint(c.out, "> ")
	}
}

// readLines reads until the input ends, which for a terminal may be never.
func readLines(in io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

// do does what a line says.
func (c *cluster) do(ctx context.Context, cmd command) error {
	switch cmd.verb {
	case "":
		return nil
	case "status":
		c.status(ctx)
		return nil
	case "help":
		c.say("%s", help)
		return nil
	case "load":
		return c.toggleLoad(ctx)
	}
	p, err := c.find(cmd.name)
	if err != nil {
		return err
	}
	switch cmd.verb {
	case "kill":
		return p.signal(syscall.SIGKILL)
	case "freeze":
		return p.signal(syscall.SIGSTOP)
	case "thaw":
		return p.signal(syscall.SIGCONT)
	case "stop":
		p.stop(patience)
		return nil
	}
	return p.start(c.spawner, c.gone)
}

// status prints a table of all parts.
func (c *cluster) status(ctx context.Context) {
	roles := make([]string, len(c.servers))
	for i := range c.servers {
		if roles[i] = "PostgreSQL"; c.servers[i].running() && postmaster(c.Postgres[i].Data) != 0 {
			roles[i] += ", " + c.Postgres[i].role(ctx)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tPID\tSTATE\tADDRESS\tWHAT\tLOG")
	for _, p := range c.parts() {
		pid := "-"
		if p.running() {
			pid = fmt.Sprint(p.pid())
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", p.name, pid, p.state(), p.address, p.what, filepath.Base(p.log))
		i := slices.Index(c.servers[:], p)
		if i < 0 {
			continue
		}
		if pid := postmaster(p.data); pid != 0 {
			fmt.Fprintf(t, "\t%d\t%s\t%s\t%s\t\n", pid, state(pid), c.Postgres[i].Address, roles[i])
		} else {
			fmt.Fprintf(t, "\t-\tended\t%s\t%s\t\n", c.Postgres[i].Address, roles[i])
		}
	}
	_ = t.Flush() // nobody else to tell
}

// invite says what to try.
func (c *cluster) invite() {
	c.say(`
Try, in another terminal:
  curl %s/readyz
  patronictl -c %s list     # who is the primary
  kill -9 PID, kill -STOP PID, kill -CONT PID     # of anything above
  SIMLATCH_SECRET=%s SIMLATCH_PASSWORD=%s bin/simlatch bench --server %s \
    --account %s --key %s --user %s --devices 10 --connections 2 --duration 1m
Or here:
  load           # clients that go on through all of it
  kill pg1       # the loss of a machine: Patroni and PostgreSQL at once
  %s`, c.nodes[0].address.url(), c.path("pg1", "patroni.yml"), secret, password, c.nodes[0].address.url(), account, key, user,
		strings.ReplaceAll(help, "\n", "\n  "))
}
