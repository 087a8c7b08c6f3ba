package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/simlatch/simlatch/internal/server"
)

// profileVariable names the file that a profiled server writes.
const profileVariable = "SIMLATCH_BENCH_PROFILE"

// profiled is the server inside this program's binary, so that it can be
// profiled: SIGUSR1 begins, SIGUSR2 ends.
func (b *bench) profiled(ctx context.Context, args []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	name := strings.ReplaceAll(b.group, " ", "-") + ".pprof"
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, args...)
	cmd.Env = []string{roleVariable + "=serve", profileVariable + "=" + filepath.Join(b.o.profile, name)}
	return cmd, nil
}

// startProfile begins to profile the server, where that is asked for, until the
// function it returns is called. The profile of the last round remains.
func (b *bench) startProfile(s *site) (stop func()) {
	if b.o.profile == "" {
		return func() {}
	}
	_ = s.process.cmd.Process.Signal(syscall.SIGUSR1) // a server that has ended is noticed otherwise
	return func() { _ = s.process.cmd.Process.Signal(syscall.SIGUSR2) }
}

// serveProfiled is "simlatch serve" with the flags that site.start gives it.
func serveProfiled(ctx context.Context, args []string, out io.Writer) error {
	cfg := server.Config{
		CallbackAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Logger:        slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Ready:         func(url string) { fmt.Fprintln(out, "ready at", url) },
	}
	f := flag.NewFlagSet("serve", flag.ContinueOnError)
	f.StringVar(&cfg.Carrier, "carrier", "", "")
	f.StringVar(&cfg.Listen, "listen", "", "")
	f.StringVar(&cfg.Database, "database", "", "")
	f.StringVar(&cfg.SecretsKeyFile, "secrets-key-file", "", "")
	f.StringVar(&cfg.Seed, "seed", "", "")
	f.DurationVar(&cfg.CallbackInterval, "callback-interval", 5*time.Minute, "")
	f.String("callback-allow", "", "")
	f.String("log-level", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go obey(signals, os.Getenv(profileVariable)) // ends with the process
	srv, err := server.New(ctx, cfg)
	if err != nil {
		return err
	}
	return srv.Run(ctx)
}

// obey writes a profile of the time between SIGUSR1 and SIGUSR2.
func obey(signals <-chan os.Signal, path string) {
	var f *os.File
	for s := range signals {
		var err error
		if s == syscall.SIGUSR2 {
			pprof.StopCPUProfile()
			err = f.Close()
		} else if f, err = os.Create(path); err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "profiling:", err)
		}
	}
}
