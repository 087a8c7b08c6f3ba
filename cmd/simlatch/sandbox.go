package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/simlatch/simlatch/internal/server"
)

func newSandboxCommand() *cobra.Command {
	var o sandboxOptions
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a service for tests, whose time and fate obey",
		Long: `Run a service for tests: the same code as "simlatch serve" with a simulated
carrier, a clock that obeys, faults on demand, and a journal of every exchange.
It is ready when it has printed its address; nothing needs to be prepared.

Without --seed it has accounts, licenses and SIMs, among them SIMs with a fixed
fate: refused, late, silent, and so on. Listeners may be anywhere, on this machine
too; http://inbox.simlatch.test/ is one that is always there, whose messages stand
in the journal.

What a test does with it is under /sandbox/v1 of the same address:

  POST clock       {"rate": 0} stops it, {"advance": "5m"} moves it on through all
                   that falls due, {"next": true} to the next of that
  POST faults      {"on": "carrier", "match": {"nth": 3}, "then": {"do": "refuse"}}
  GET  magic       the SIMs with a fixed fate
  GET  errors      every error, with the commands that bring it about
  POST expect      {"match": {"iccid": "89…"}, "count": 1, "within": "10m"}
  GET  journal     every exchange, by requestId, iccid, kind, …
  GET  snapshot    the state as one file, POST restore brings it back, POST reset
                   the beginning
  POST namespaces  another service, of its own, for a test that runs beside others

docs/sandbox.md has the whole of it, docs/errors.md a recipe for each error.`,
		Example: `  # ready in a moment, at http://127.0.0.1:8080
  simlatch sandbox

  # in CI: any free port, and a file that says which once it is ready
  simlatch sandbox --listen 127.0.0.1:0 --ready-file sandbox.json &

  # time stands still until a test moves it, and the same seed repeats everything
  simlatch sandbox --rate 0 --random-seed 42 --start 2026-01-01T00:00:00Z

  # the conventions of the reference's own simulator
  simlatch sandbox --lenient --test-token my-test-token`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Lenient = &o.lenient
			if cmd.Flags().Changed("rate") {
				o.Rate = &o.rate
			}
			return runSandbox(cmd.Context(), streamsOf(cmd), o)
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

// addFlags binds the flags of sandbox.
func (o *sandboxOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Listen, "listen", server.DefaultListen, "the `address` to serve on; port 0 is any free one")
	f.StringVar(&o.TLSCert, "tls-cert", "", "serve TLS with the certificate in this PEM `file` (simlatch dev-cert makes one)")
	f.StringVar(&o.TLSKey, "tls-key", "", "the certificate's key, a PEM `file`")
	f.StringVar(&o.file, "file", "", "keep the state in this `file`, so that it is there after a restart (default memory)")
	f.StringVar(&o.seedFile, "seed", "", "a YAML or JSON `file` of what to begin with, as for simlatch serve (default accounts, SIMs and licenses of its own)")
	f.StringVar(&o.readyFile, "ready-file", "", "write the address and the credentials into this `file`, as JSON, when ready")
	f.Float64Var(&o.rate, "rate", 1, "`times` as fast as the machine's time the clock runs; 0 stands still")
	f.StringVar(&o.start, "start", "", "the `time` the clock begins at, such as 2026-01-01T00:00:00Z (default now)")
	f.Uint64Var(&o.RandomSeed, "random-seed", 0, "a `number` that all ids, tokens and dice follow from; 0 is real chance")
	f.BoolVar(&o.lenient, "lenient", false, "accept any session token, and any user name and password, as the reference's simulator does")
	f.StringVar(&o.TestToken, "test-token", "test-token", "a bearer `token` that never expires, as the reference's simulator has; empty for none")
	f.DurationVar(&o.CarrierDelay, "carrier-delay", 0, "how long the simulated carrier takes, on the sandbox's clock")
	f.DurationVar(&o.CallbackInterval, "callback-interval", 5*time.Minute, "time between two attempts of a callback, on the sandbox's clock")
	f.DurationVar(&o.CallbackTimeout, "callback-timeout", 10*time.Second, "time a listener has to answer, in real time")
	f.IntVar(&o.CallbackAttempts, "callback-attempts", 4, "`number` of attempts of a callback in all")
	f.IntVar(&o.ListenerConns, "listener-connections", 1, "`number` of callbacks a listener gets at once; with 1 they come in the same order each time")
	f.IntVar(&o.MaxDevices, "max-devices", server.DefaultMaxDevices, "the largest `number` of devices in a request")
	f.Float64Var(&o.RateLimit, "rate-limit", 0, "`calls` a second that an application may make; 0 is no limit")
	f.StringVar(&o.logLevel, "log-level", "warn", "least `level` to log: debug, info, warn or error")
}

// sandboxOptions are what sandbox runs with.
type sandboxOptions struct {
	server.SandboxConfig

	file, seedFile, readyFile, start, logLevel string
	rate                                       float64
	lenient                                    bool
}

// runSandbox serves until ctx ends.
func runSandbox(ctx context.Context, s streams, o sandboxOptions) error {
	if err := o.complete(); err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return usagef("--log-level %s: a level is debug, info, warn or error", o.logLevel)
	}
	o.Logger = newLogger(s, "auto", level)
	var wrote error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.Ready = func(info server.SandboxInfo) {
		_, _ = fmt.Fprintf(s.err, "application %s/%s, user %s/%s, test token %q; the sandbox's own calls are at %s\n",
			info.Application.Name, info.Application.Password, info.User.Name, info.User.Password, info.TestToken, info.Sandbox)
		if o.readyFile != "" {
			if wrote = writeReady(o.readyFile, info); wrote != nil {
				cancel()
				return
			}
		}
		_, _ = fmt.Fprintf(s.out, "simlatch: sandbox ready at %s\n", info.URL) // nobody may be reading
	}
	box, err := server.NewSandbox(ctx, o.SandboxConfig)
	if err != nil {
		return err
	}
	if err := box.Run(ctx); err != nil {
		return err
	}
	return wrote
}

// complete reads what the options name.
func (o *sandboxOptions) complete() error {
	if o.start != "" {
		at, err := time.Parse(time.RFC3339, o.start)
		if err != nil {
			return usagef("--start %s: a time is written like 2026-01-01T00:00:00Z", o.start)
		}
		o.Start = at
	}
	if o.file != "" {
		o.Database = "sqlite:" + o.file
	}
	if o.seedFile != "" {
		text, err := os.ReadFile(o.seedFile)
		if err != nil {
			return fmt.Errorf("reading the seed: %w", err)
		}
		o.Seed = string(text)
	}
	if err := o.Check(); err != nil {
		return withStatus(exitUsage, fmt.Errorf("--rate %v: %w", o.rate, err))
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return usagef("--tls-cert and --tls-key go together: give both or neither")
	}
	return nil
}

// writeReady writes the file that says that the sandbox is ready. It is there
// whole or not at all, since someone waits for it to appear.
func writeReady(path string, info server.SandboxInfo) error {
	text, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	dir, name := filepath.Split(path)
	temporary := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("writing the ready file: %w", err)
	}
	return nil
}
