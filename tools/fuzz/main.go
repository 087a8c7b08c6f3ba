// Command fuzz runs the fuzzing of the whole HTTP surface, and each fuzz target
// of the module, one after the other, and prints a table of what was run. It is
// what "make fuzz" runs.
//
// Half of the time goes to the surface, the rest is shared by the targets. What
// is found makes it fail, and stands in the testdata of the package.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

// result is a line of the table.
type result struct {
	pkg, name, ran string
	took           time.Duration
	err            error
}

func run() error {
	total := flag.Duration("time", 10*time.Minute, "how long to fuzz in all")
	only := flag.String("run", "", "only the targets whose name this regexp matches")
	seed := flag.Uint64("seed", uint64(time.Now().Unix()), "what the programs of the surface begin with")
	flag.Parse()
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	all, err := targets(wanted)
	if err != nil {
		return err
	}
	var results []result
	share := *total
	if wanted.MatchString("TestSurface") {
		share /= 2
		results = append(results, surface(share, *seed))
	}
	for i := range all {
		all[i].run(share / time.Duration(len(all)))
		results = append(results, all[i])
	}
	return report(results)
}

var declaration = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// targets finds the fuzz targets of the module. FuzzSurface is run as
// TestSurface.
func targets(wanted *regexp.Regexp) ([]result, error) {
	out, err := exec.CommandContext(context.Background(), "go", "list", "-f", "{{.ImportPath}}\t{{.Dir}}\t{{join .TestGoFiles \" \"}} {{join .XTestGoFiles \" \"}}", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages: %w", err)
	}
	var all []result
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		if len(fields) < 3 {
			continue
		}
		for _, file := range strings.Fields(fields[2]) {
			text, err := os.ReadFile(fields[1] + "/" + file)
			if err != nil {
				return nil, err
			}
			for _, m := range declaration.FindAllSubmatch(text, -1) {
				if name := string(m[1]); name != "FuzzSurface" && wanted.MatchString(name) {
					all = append(all, result{pkg: fields[0], name: name})
				}
			}
		}
	}
	return all, nil
}

// surface attacks the whole surface.
func surface(d time.Duration, seed uint64) result {
	r := result{pkg: "internal/server", name: fmt.Sprintf("TestSurface (seed %d)", seed)}
	out, took, err := command("go", "test", "-count=1", "-timeout", (d + 10*time.Minute).String(), "-run", "^TestSurface$", "-v", "./internal/server",
		"-surface", d.String(), "-surface.seed", fmt.Sprint(seed))
	r.took, r.err = took, err
	if m := regexp.MustCompile(`\d+ programs, \d+ calls, \d+ kinds of answers`).FindAllString(out, -1); m != nil {
		r.ran = m[len(m)-1]
	}
	return r
}

// run runs a target.
func (r *result) run(d time.Duration) {
	var out string
	out, r.took, r.err = command("go", "test", "-run", "^$", "-fuzz", "^"+r.name+"$", "-fuzztime", d.Round(time.Second).String(), "-parallel", "1", r.pkg)
	if m := regexp.MustCompile(`execs: (\d+)`).FindAllStringSubmatch(out, -1); m != nil {
		r.ran = m[len(m)-1][1] + " executions"
	}
}

// command runs a command, shows what it says and returns it.
func command(name string, args ...string) (string, time.Duration, error) {
	var out bytes.Buffer
	c := exec.CommandContext(context.Background(), name, args...)
	c.Stdout = io.MultiWriter(os.Stdout, &out)
	c.Stderr = c.Stdout
	// An interrupt reaches it too, and it ends by itself.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	defer signal.Stop(interrupted)
	begin := time.Now()
	err := c.Run()
	return out.String(), time.Since(begin), err
}

// report prints the table.
func report(results []result) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "\nPACKAGE\tTARGET\tRAN\tTIME\tFOUND")
	failed := 0
	for _, r := range results {
		found := "nothing"
		if r.err != nil {
			failed++
			found = r.err.Error()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", strings.TrimPrefix(r.pkg, "github.com/simlatch/simlatch/"), r.name, r.ran, r.took.Round(time.Second), found)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d targets found something", failed, len(results))
	}
	return nil
}
