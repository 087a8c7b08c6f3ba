// Command gate is what "make test" runs once the machine has what it takes
// (tools/prepare.sh): all tests on both engines, then most of them again under
// the race detector, then a look at the generated files and at what the program
// is made of. It ends with the
// engines that were tested and those that were not.
//
// It starts one private PostgreSQL server for all packages when TEST_POSTGRES
// is "auto" or "durable"; each package's tests would start their own otherwise. No
// PostgreSQL is used when that is empty, and nothing runs under the race
// detector when TEST_RACE is. The tests run on Citus as well when TEST_CITUS is
// the URL of a coordinator, which nothing here can start.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/simlatch/simlatch/internal/store/storetest/pgcluster"
)

func main() {
	race := flag.String("race", "-race", "go test's `flags` for the race detector")
	noRace := flag.String("norace", "", "`packages` that are too slow under the race detector")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	g := gate{
		out:      os.Stdout,
		postgres: os.Getenv("TEST_POSTGRES"),
		noRace:   strings.Fields(*noRace),
	}
	if os.Getenv("TEST_RACE") != "" {
		g.race = strings.Fields(*race)
	}
	if err := g.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "make test:", err)
		os.Exit(1)
	}
}

// gate is one run of everything.
type gate struct {
	out      io.Writer
	postgres string   // as TEST_POSTGRES
	race     []string // flags for the race detector; none leave it out
	noRace   []string
	version  string // of the server we started
}

type step struct {
	name string
	do   func(context.Context) error
}

func (g *gate) run(ctx context.Context) (err error) {
	start := time.Now()
	if o, ok := pgcluster.Asked(g.postgres); ok {
		cluster, startErr := pgcluster.Start(ctx, o)
		if startErr != nil {
			return fmt.Errorf("starting PostgreSQL: %w; \"make test TEST_POSTGRES=\" leaves it out", startErr)
		}
		defer func() { err = errors.Join(err, cluster.Stop()) }()
		g.postgres, g.version = cluster.URL(), " "+cluster.Version()
	}
	steps := []step{{"tests on " + strings.Join(g.engines(), " and "), g.test}}
	if g.race != nil {
		steps = append(steps, step{"tests under the race detector", g.testRace})
	}
	steps = append(steps, step{"generated files", g.generated}, step{"two builds, and what they are made of", g.supply})
	for _, s := range steps {
		since := time.Now()
		fmt.Fprintf(g.out, "\n== %s\n", s.name)
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(g.out, "== %s: passed in %s\n", s.name, time.Since(since).Round(time.Second/10))
	}
	g.summary(time.Since(start))
	return nil
}

func (g *gate) engines() []string {
	engines := []string{"sqlite"}
	if g.postgres != "" {
		engines = append(engines, "postgres"+g.version)
	}
	if os.Getenv("TEST_CITUS") != "" {
		engines = append(engines, "citus")
	}
	return engines
}

// test runs everything once, whatever a cache remembers.
func (g *gate) test(ctx context.Context) error {
	return g.goCommand(ctx, "test", "-count=1", "-timeout=5m", "./...")
}

// testRace runs what is affordable under the race detector.
func (g *gate) testRace(ctx context.Context) error {
	packages, err := g.packages(ctx)
	if err != nil {
		return err
	}
	return g.goCommand(ctx, slices.Concat([]string{"test", "-count=1", "-timeout=5m"}, g.race, packages)...)
}

// packages lists those with tests, less those that are too slow.
func (g *gate) packages(ctx context.Context) ([]string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "list", "-f",
		"{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	cmd.Stdout, cmd.Stderr = &out, g.out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("listing the packages: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(out.String()), func(path string) bool {
		return slices.ContainsFunc(g.noRace, func(slow string) bool {
			return path == module+strings.TrimPrefix(slow, ".")
		})
	}), nil
}

const module = "github.com/simlatch/simlatch"

// generated fails when "go generate" would change anything, and leaves the tree
// as it was.
func (g *gate) generated(ctx context.Context) error {
	stale, err := changedBy(".", func() error { return g.goCommand(ctx, "generate", "./...") })
	if err != nil {
		return err
	}
	if len(stale) > 0 {
		return fmt.Errorf("stale, run \"make generate\": %s", strings.Join(stale, ", "))
	}
	return nil
}

// supply fails when two builds differ, or the list of what the program is made of
// lacks something.
func (g *gate) supply(ctx context.Context) error {
	if err := g.goCommand(ctx, "run", "./tools/supply", "reproduce"); err != nil {
		return err
	}
	const program = "bin/simlatch"
	if err := g.goCommand(ctx, "build", "-trimpath", "-o", program, "./cmd/simlatch"); err != nil {
		return err
	}
	return g.goCommand(ctx, "run", "./tools/supply", "sbom", program)
}

func (g *gate) goCommand(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stdout, cmd.Stderr = g.out, os.Stderr
	cmd.Env = append(os.Environ(), "TEST_POSTGRES="+g.postgres)
	// The tests stop their servers when they are asked to, but not when killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w", args[0], err)
	}
	return nil
}

func (g *gate) summary(took time.Duration) {
	fmt.Fprintf(g.out, "\nall passed in %s\nengines tested: %s\n", took.Round(time.Second), strings.Join(g.engines(), ", "))
	if g.postgres == "" {
		fmt.Fprintln(g.out, "engines not tested: postgres (TEST_POSTGRES is empty)")
	}
	if url, asked := os.LookupEnv("TEST_CITUS"); asked && url == "" {
		fmt.Fprintln(g.out, "engines not tested: citus (TEST_CITUS is empty)")
	}
	if g.postgres == "" || !pgcluster.Installed() {
		fmt.Fprintln(g.out, "not tested: the loss of PostgreSQL's primary (it takes a server installed here)")
	}
	if g.race == nil {
		fmt.Fprintln(g.out, "not tested under the race detector (TEST_RACE is empty)")
	}
}
