// Command bench is what "make bench" runs: the real server, built as it is
// shipped and run as a process of its own, over real sockets, against references
// in the same run. It prints a table of medians and ratios, writes it as JSON,
// and fails when a callback was missing or double or the ledger is wrong.
// docs/performance.md explains the method.
//
// The server and the references are processes of their own, all alike: nobody
// shares a heap with the load or with the listener, which are this program's.
// Where the server's memory and its start are measured there is no other way.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// roleVariable makes this program one of the processes it starts.
const roleVariable = "SIMLATCH_BENCH_ROLE"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if role := os.Getenv(roleVariable); role != "" {
		return play(ctx, role, os.Stdout)
	}
	o, err := parse(args)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	r, err := b.run(ctx)
	err = errors.Join(err, b.close())
	if len(r.Rows) > 0 {
		err = errors.Join(err, r.table(os.Stdout))
		if o.json != "" {
			err = errors.Join(err, r.write(o.json))
		}
	}
	return err
}

// options are what the flags say.
type options struct {
	binary   string
	postgres string
	json     string
	profile  string
	only     *regexp.Regexp
	list     bool
	// forgetful takes a PostgreSQL that loses commits with the power, for tests
	// of the bench itself.
	forgetful bool
	sizes     sizes
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.binary, "simlatch", filepath.Join("bin", "simlatch"), "the server's `binary`")
	f.StringVar(&o.postgres, "postgres", "durable", `"durable" starts a private server, a URL uses that one, empty leaves PostgreSQL out`)
	f.StringVar(&o.json, "json", "", "write the results to this `file`")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of the server into this `directory`; it then runs inside this program's binary")
	only := f.String("only", "", "run only groups whose name matches this `regexp`")
	quick := f.Bool("quick", false, "small sizes and 2 runs: some two minutes, for development")
	long := f.Bool("long", false, "growth with 10 million SIMs instead of 1 million; takes some twenty minutes more")
	runs := f.Int("runs", 0, "`number` of measured rounds; 0 is 5, or 2 with -quick")
	f.BoolVar(&o.list, "list", false, "print the names of the groups and end")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	o.sizes = fullSizes()
	if *quick {
		o.sizes = quickSizes()
	}
	if *long {
		o.sizes.growth = 10_000_000
	}
	if *runs > 0 {
		o.sizes.runs = *runs
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return o, err
	}
	return o, nil
}

// sizes are how much of everything is done.
type sizes struct {
	Name  string
	runs  int // measured rounds; one more comes before them
	large int // devices in a large request

	endToEnd int // large requests in a round
	accept   int // large requests in a round of accepting
	small    int // two-device requests in a round, for each connection
	hot      int // one-device requests in a round

	inventory     int // SIMs known where the size of the inventory matters
	growth        int // SIMs known to the larger server of the growth row
	growthSmall   int // and to the smaller one
	growthDevices int // devices accepted in a round
	idle          time.Duration

	retries       int // devices in a round of retries
	retryInterval time.Duration
}

func fullSizes() sizes {
	return sizes{
		Name: "full", runs: 5, large: 10_000, endToEnd: 4, accept: 4, small: 250, hot: 2000,
		inventory: 1_000_000, growth: 1_000_000, growthSmall: 10_000, growthDevices: 8000, idle: 15 * time.Second,
		retries: 8000, retryInterval: 5 * time.Second,
	}
}

func quickSizes() sizes {
	s := fullSizes()
	s.Name, s.runs, s.endToEnd, s.accept, s.small, s.hot = "quick", 2, 1, 2, 150, 800
	s.inventory, s.growth, s.growthDevices, s.idle = 100_000, 100_000, 4000, 5*time.Second
	s.retries = 4000
	return s
}

// group measures some rows together.
type group struct {
	name string
	run  func(ctx context.Context) ([]row, error)
}

func (b *bench) groups() []group {
	return []group{
		{"end-to-end sqlite", func(ctx context.Context) ([]row, error) { return b.endToEnd(ctx, sqlite) }},
		{"end-to-end postgres", func(ctx context.Context) ([]row, error) { return b.endToEnd(ctx, postgres) }},
		{"end-to-end tls", func(ctx context.Context) ([]row, error) { return b.endToEndTLS(ctx, "http/1.1") }},
		{"end-to-end http2", func(ctx context.Context) ([]row, error) { return b.endToEndTLS(ctx, "h2") }},
		{"accept small sqlite", func(ctx context.Context) ([]row, error) { return b.acceptSmall(ctx, sqlite) }},
		{"accept small postgres", func(ctx context.Context) ([]row, error) { return b.acceptSmall(ctx, postgres) }},
		{"accept large sqlite", func(ctx context.Context) ([]row, error) { return b.acceptLarge(ctx, sqlite) }},
		{"accept large postgres", func(ctx context.Context) ([]row, error) { return b.acceptLarge(ctx, postgres) }},
		{"hot pool postgres", b.hotPool},
		{"growth sqlite", func(ctx context.Context) ([]row, error) { return b.growth(ctx, sqlite) }},
		{"growth postgres", func(ctx context.Context) ([]row, error) { return b.growth(ctx, postgres) }},
		{"inventory sqlite", func(ctx context.Context) ([]row, error) { return b.inventory(ctx, sqlite) }},
		{"inventory postgres", func(ctx context.Context) ([]row, error) { return b.inventory(ctx, postgres) }},
		{"isolation sqlite", b.isolation},
		{"retries sqlite", b.retries},
	}
}

// run measures the groups that were asked for. Rows that were measured are
// returned also with an error.
func (b *bench) run(ctx context.Context) (report, error) {
	r := newReport(ctx, b)
	start, matched := time.Now(), false
	for _, g := range b.groups() {
		if !b.o.only.MatchString(g.name) {
			continue
		}
		matched = true
		if b.o.list {
			fmt.Println(g.name)
			continue
		}
		if b.o.postgres == "" && strings.Contains(g.name, postgres) {
			b.say("%s: left out, there is no PostgreSQL", g.name)
			continue
		}
		b.group = g.name
		rows, err := g.run(ctx)
		if err != nil {
			return r, fmt.Errorf("%s: %w", g.name, err)
		}
		r.Rows = append(r.Rows, rows...)
	}
	r.finish(ctx, b, time.Since(start))
	if !matched {
		return r, fmt.Errorf("-only %s matches no group; -list lists them", b.o.only)
	}
	return r, nil
}
