package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// A part is one way of doing harm to the service.
type part struct {
	name, about string
	// run returns the lines of the table, those it has also where it fails.
	run func(context.Context, *options) ([]row, error)
}

// parts are run in this order. A part that is a program or a test of its own is
// one line here: command runs it.
func parts() []part {
	return []part{
		{"crash", "the server dies at every point of its work, and PostgreSQL under it", crashes},
		{"simulation", "days of the service under a seed, faults everywhere", command("go", "run", "./tools/simulation", "-row")},
		{"neighbours", "an account that never pauses beside a quiet one", neighbours},
		{"listeners", "hostile listeners beside good ones", hostile},
		{"overload", "far more than the server takes", overload},
	}
}

// rowMark begins a line of output that is a row of the table, in JSON.
const rowMark = "TORTURE "

// command makes a part of a program, say of "go test -count=1 -v -run X ./…". It
// finds the first seed in TORTURE_SEED and, where that was said, their number in
// TORTURE_SEEDS; for each line of the table it prints one that begins with
// TORTURE and is a row in JSON:
//
//	TORTURE {"test":"24 hours, faults everywhere","tried":1000,"work":123456}
//
// Its other output goes through. That it exits with another status than 0 is a
// failure, whatever its rows say.
func command(name string, args ...string) func(context.Context, *options) ([]row, error) {
	return func(ctx context.Context, o *options) (rows []row, err error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), "TORTURE_SEED="+strconv.FormatUint(o.seed, 10), "TEST_POSTGRES="+o.postgres)
		if o.seeds > 0 {
			cmd.Env = append(cmd.Env, "TORTURE_SEEDS="+strconv.Itoa(o.seeds))
		}
		passed := &locked{to: o.out}
		cmd.Stderr = passed
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		rows, err = readRows(out, passed)
		_, _ = io.Copy(io.Discard, out) // or it would wait for a reader
		if ended := cmd.Wait(); ended != nil {
			return rows, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), ended)
		}
		return rows, err
	}
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex // guards to
	to io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(b)
}

// readRows takes the rows out of a program's output and passes the rest on.
func readRows(in io.Reader, out io.Writer) (rows []row, err error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// A test's log puts its place before what it says.
		before, text, marked := bytes.Cut(lines.Bytes(), []byte(rowMark))
		if !marked || len(bytes.TrimSpace(before)) > 0 && !bytes.HasSuffix(bytes.TrimSpace(before), []byte(":")) {
			fmt.Fprintf(out, "%s\n", lines.Bytes())
			continue
		}
		var r row
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			return rows, fmt.Errorf("the row %s: %w", text, err)
		}
		rows = append(rows, r)
	}
	return rows, lines.Err()
}
