//go:build linux

// Command cluster is what "make cluster" runs once the machine has what it takes
// (tools/prepare.sh cluster): an installation without a single point that holds
// its data, in miniature, on loopback, for anyone to kill parts of. It has etcd,
// two PostgreSQL servers that Patroni looks after, HAProxy that asks Patroni for
// the primary, and three nodes of ours behind it.
//
// What was killed stays dead until "start" at its prompt, but for what a part
// looks after itself, as Patroni does after its PostgreSQL. With -check it kills
// the primary by itself, under load, and looks whether anything that was
// answered is lost. docs/operations.md walks through it.
//
// Everything lives in one directory and ends with this program. What it started
// ends with it by the kernel's hand (see spawner); PostgreSQL, which is Patroni's
// child, and the directory are left to a watcher (see watch).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	if dir := os.Getenv(watchVariable); dir != "" {
		watch(dir, os.Getenv(keepVariable) != "")
		return
	}
	// After the first signal a second one ends the program at once; all it has
	// started ends all the same.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "make cluster:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	binary string
	dir    string
	keep   bool
	check  bool
	etcdV3 bool
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("cluster", flag.ContinueOnError)
	f.StringVar(&o.binary, "simlatch", filepath.Join("bin", "simlatch"), "the nodes' `binary`")
	f.StringVar(&o.dir, "dir", "", "`directory` to make and to work in, instead of a temporary one")
	f.BoolVar(&o.keep, "keep", false, "leave the directory at the end")
	f.BoolVar(&o.check, "check", false, "kill the primary under load, see that nothing is lost, and end")
	f.BoolVar(&o.etcdV3, "etcd-v3", false, "have Patroni use version 3 of etcd's API; see docs/operations.md before you freeze a primary")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return o, err
	}
	if o.dir != "" {
		o.dir, err = filepath.Abs(o.dir)
	}
	return o, err
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := newCluster(ctx, o)
	if err != nil {
		return err
	}
	err = c.start(ctx)
	switch {
	case err != nil:
	case o.check:
		err = c.check(ctx)
	default:
		err = c.serve(ctx, os.Stdin)
	}
	interrupted := ctx.Err() != nil
	switch {
	case interrupted && o.check:
		err = errors.New("interrupted")
	case interrupted:
		err = nil // how it is meant to end
	}
	return errors.Join(err, c.stop(err != nil && !interrupted))
}
