package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/server"
)

type demoOptions struct {
	sims       int // all other numbers follow from this one
	refuseRate float64
	delay      time.Duration
	exit, stay bool
}

func newDemoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole job on 10,000 SIMs, with nothing to prepare",
		Long: `Show the whole job on 10,000 SIMs, with nothing to prepare.

A server is started on a temporary SQLite database with a sample account, its
pools and 10,000 SIMs. Then, through the public HTTP API only: a token, a
session, a registered callback listener; 2,000 SIMs are assigned a flexible
license and 200 a lifetime one, some of which the simulated carrier refuses; the
refusals that the reference documents are met; 500 are unassigned; the ledger is
verified. Every number in the table at the end was measured or read from the API,
and they are held against each other: if they disagree the exit status is 1.

On a terminal the server then stays up to be tried with curl, until interrupted.
The database is removed at the end. No SIM is really licensed.`,
		Example: `  simlatch demo
  simlatch demo --exit`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.exit && o.stay {
				return usagef("--exit and --stay exclude each other")
			}
			if o.sims < 100 {
				return usagef("--sims %d: there must be 100 at least", o.sims)
			}
			o.stay = o.stay || !o.exit && isTerminal(cmd.OutOrStdout())
			return runDemo(cmd.Context(), o, streamsOf(cmd))
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.exit, "exit", false, "end after the table, on a terminal too")
	f.BoolVar(&o.stay, "stay", false, "stay up after the table, without a terminal too")
	f.DurationVar(&o.delay, "carrier-delay", 0, "how long the simulated carrier takes")
	f.Float64Var(&o.refuseRate, "carrier-refuse-rate", 0.02, "the share of devices that the simulated carrier refuses")
	f.IntVar(&o.sims, "sims", 10_000, "`number` of SIMs; the other numbers follow in proportion")
	_ = f.MarkHidden("sims") // it is there
	return cmd
}

// isTerminal reports whether w is a terminal that can redraw its lines.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb"
}

// runDemo runs the demonstration and leaves nothing behind.
func runDemo(ctx context.Context, o demoOptions, s streams) error {
	dir, err := os.MkdirTemp("", "simlatch-demo-")
	if err != nil {
		return fmt.Errorf("making a directory for the demo: %w", err)
	}
	err = runDemoIn(ctx, dir, o, s)
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; the demo's server and database are gone")
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// runDemoIn runs the demonstration in an empty directory.
func runDemoIn(ctx context.Context, dir string, o demoOptions, s streams) (err error) {
	scene := newDemoScene(o.sims)
	seed, err := scene.write(dir)
	if err != nil {
		return err
	}
	listener, err := startDemoListener(ctx)
	if err != nil {
		return err
	}
	defer listener.close()
	say(s.out, "Starting a server on a temporary database with %s SIMs …", thousands(scene.sims))
	srv, err := server.New(ctx, server.Config{
		Listen:            "127.0.0.1:0",
		Database:          "sqlite:" + filepath.Join(dir, "demo.db"),
		Seed:              seed,
		Carrier:           server.CarrierSimulated,
		CarrierDelay:      o.delay,
		CarrierRefuseRate: o.refuseRate,
		CallbackAllow:     []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		CallbackInterval:  2 * time.Second,
		Logger:            slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		return fmt.Errorf("starting the server: %w", err)
	}
	// The server outlives an interrupt for a moment, so that it drains after
	// the demo has let go of it.
	serving, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() {
		err := srv.Run(serving)
		stop(errServerEnded)
		served <- err
	}()
	defer func() {
		stop(nil)
		err = errors.Join(err, <-served)
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(serving, func() { cancel(errServerEnded) })()

	d := &demo{scene: scene, url: srv.URL(), database: filepath.Join(dir, "demo.db"), streams: s, listener: listener}
	if err := d.play(ctx); err != nil {
		return err
	}
	if o.stay {
		d.invite()
		<-ctx.Done()
	}
	return nil
}

// errServerEnded says that the demo's server stopped by itself; why is what its
// Run returned.
var errServerEnded = errors.New("the server ended")

func say(w io.Writer, format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
