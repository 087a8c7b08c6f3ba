// Command simulation plays days of the service under many seeds (package
// internal/simulation) and prints what was done, and how often each rare branch
// was come to. It fails when a seed fails, when one is not the same twice, and
// when a rare branch was never come to. "make torture" runs it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/simlatch/simlatch/internal/simulation"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "simulation:", err)
		os.Exit(1)
	}
}

type options struct {
	first   uint64
	seeds   int
	twice   int
	history bool
	torture bool
	simulation.Options
}

// parse reads the flags; what "make torture" says in its environment is their
// default.
func parse(args []string) (o options, err error) {
	first, _ := strconv.ParseUint(os.Getenv("TORTURE_SEED"), 10, 64)
	seeds, _ := strconv.Atoi(os.Getenv("TORTURE_SEEDS"))
	if seeds == 0 {
		seeds = 3000
	}
	f := flag.NewFlagSet("simulation", flag.ContinueOnError)
	f.Uint64Var(&o.first, "seed", max(first, 1), "the first seed")
	f.IntVar(&o.seeds, "seeds", seeds, "`number` of seeds")
	f.IntVar(&o.twice, "twice", 20, "play each `n`th seed twice, and compare; 0: none")
	f.IntVar(&o.Hours, "hours", 24, "simulated hours of a seed before the faults end")
	f.BoolVar(&o.history, "history", false, "print the history of the last seed")
	f.BoolVar(&o.torture, "row", false, `print the counts as a row of "make torture"`)
	mutation := f.String("mutation", "", "put a `bug` into the service, to see it found")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.Mutation = simulation.Mutation(*mutation)
	if f.NArg() > 0 || o.seeds < 1 || o.Hours < 1 || o.twice < 0 {
		return o, errors.New("nothing but flags, and at least one seed of one hour")
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	debug.SetGCPercent(400) // a seed's memory is small, and soon free
	s, err := simulation.New(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if o.history {
		o.Tail = 1 << 20
	}
	var last simulation.Result
	sum, err := s.RunAll(ctx, o.first, o.seeds, o.twice, o.Options, func(r simulation.Result) {
		last = r
		if r.Failure != nil && !o.history {
			fmt.Fprintf(out, "%s\n\n", r.Failed())
		}
	})
	if err != nil && (sum.Seeds == 0 || ctx.Err() == nil) {
		return err
	}
	stopped := err // half a run has something to tell too
	if o.history {
		for _, line := range last.Tail {
			fmt.Fprintln(out, line)
		}
	}
	if err := sum.Table(out); err != nil {
		return err
	}
	if stopped != nil {
		return fmt.Errorf("after %d seeds: %w", sum.Seeds, stopped)
	}
	if o.torture {
		if err := row(&sum, out); err != nil {
			return err
		}
	}
	if o.seeds < enough && len(sum.Failed)+len(sum.Uneven) == 0 {
		return nil // too few to come everywhere
	}
	return sum.Err()
}

// enough is how many seeds come to every rare branch.
const enough = 200

// row prints the counts for the table of "make torture".
func row(sum *simulation.Summary, out io.Writer) error {
	all, missing := len(simulation.Branches()), len(simulation.Missing(sum.Reached))
	text, err := json.Marshal(map[string]any{
		"test": "24 hours, faults everywhere", "tried": sum.Seeds, "work": sum.Devices,
		"wrong": len(sum.Failed) + len(sum.Uneven) + missing,
		"note":  fmt.Sprintf("%.0f simulated hours, %d of %d rare branches", sum.Simulated.Hours(), all-missing, all),
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "TORTURE %s\n", text)
	return err
}
