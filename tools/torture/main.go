// Command torture is what "make torture" runs: one after the other, the parts
// that do to the service what must not harm it, then one table of what was
// tried, how much work had been acknowledged, and what was lost or done twice.
// It fails when anything was. docs/reliability.md explains how to read it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) == 4 && os.Args[1] == noiseCommand {
		err = makeNoise(ctx, os.Args[2], os.Args[3], os.Stdin, os.Stdout)
	} else {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

// options are what the flags say, for every part.
type options struct {
	binary   string
	postgres string
	seed     uint64
	seeds    int
	only     *regexp.Regexp
	engine   string
	soon     bool
	keep     bool
	json     string
	docs     string
	state    string
	out      io.Writer
}

func parse(args []string, out io.Writer) (o options, err error) {
	o.out = out
	f := flag.NewFlagSet("torture", flag.ContinueOnError)
	f.StringVar(&o.binary, "simlatch", filepath.Join("bin", "simlatch-crash"), "the server's `binary`, built with -tags crash")
	f.StringVar(&o.postgres, "postgres", "durable", `"durable" starts private servers, empty leaves PostgreSQL out`)
	f.Uint64Var(&o.seed, "seed", 1, "the first seed")
	f.IntVar(&o.seeds, "seeds", 0, "`number` of seeds of each part; 0 is each part's own")
	f.StringVar(&o.json, "json", "", "write the table to this `file`")
	f.StringVar(&o.docs, "docs", "", "put the table into this `file`, docs/reliability.md")
	f.StringVar(&o.state, "state", "", "what the machine was doing besides, for the document")
	only := f.String("only", "", "run only parts whose name matches this `regexp`")
	f.StringVar(&o.engine, "engine", "", "crash only on this `engine`: sqlite, postgres, or \"postgres dies\"")
	f.BoolVar(&o.soon, "soon", false, "die at the first passage of each point, as make test does")
	f.BoolVar(&o.keep, "keep", false, "keep the directories of seeds that failed")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	o.binary, err = filepath.Abs(o.binary)
	return o, err
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	var t table
	var failed error
	begun := time.Now()
	for _, p := range parts() {
		if !o.only.MatchString(p.name) {
			continue
		}
		fmt.Fprintf(out, "== %s: %s\n", p.name, p.about)
		since := time.Now()
		rows, err := p.run(ctx, &o)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		t.add(p.name, rows)
		fmt.Fprintf(out, "== %s: %s\n\n", p.name, time.Since(since).Round(time.Second))
		if ctx.Err() != nil {
			break
		}
	}
	if len(t.rows) == 0 {
		failed = errors.Join(failed, errors.New("nothing was tried"))
	}
	if err := t.print(out); err != nil {
		return err
	}
	about := fmt.Sprintf("%s, in %s", machine(), time.Since(begun).Round(time.Second))
	if o.state != "" {
		about += "; " + o.state
	}
	fmt.Fprintf(out, "\n%s\n", about)
	if o.docs != "" {
		failed = errors.Join(failed, t.document(o.docs, time.Now().Format(time.DateOnly)+", "+about+"."))
	}
	if o.json != "" {
		failed = errors.Join(failed, t.write(o.json))
	}
	return errors.Join(failed, t.verdict())
}
