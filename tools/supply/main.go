// Command supply looks after what the program is made of:
//
//	supply vulnerabilities   what is known of the modules and the Go in use, by govulncheck
//	supply sbom PROGRAM      writes PROGRAM.cdx.json, which names them, in CycloneDX
//	supply reproduce [-anew] builds twice, from two directories, and compares
//
// It runs at the root of the tree.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "supply:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "vulnerabilities":
		return vulnerabilities(ctx)
	case len(args) == 2 && args[0] == "sbom":
		return sbom(ctx, args[1])
	case len(args) == 1 && args[0] == "reproduce":
		return reproduce(ctx, false)
	case len(args) == 2 && args[0] == "reproduce" && args[1] == "-anew":
		return reproduce(ctx, true)
	}
	return errors.New("the commands are vulnerabilities, sbom PROGRAM, and reproduce [-anew]")
}

// tool is the command that runs one of the tools, by version.
func tool(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "go", append([]string{"tool", "-modfile=tools/" + name + "/go.mod", name}, args...)...)
}

// errUnreachable is what vulnerabilities fails with where nothing could be
// looked up, and that may not be.
var errUnreachable = errors.New("the vulnerability database could not be reached, and VULN_REQUIRED is set")

// vulnerabilities runs govulncheck. Where its database is out of reach it says so,
// and fails if VULN_REQUIRED is set.
func vulnerabilities(ctx context.Context) error {
	var out, complaint bytes.Buffer
	c := tool(ctx, "govulncheck", "./...")
	c.Stdout, c.Stderr = &out, &complaint
	err := c.Run()
	if err != nil && strings.Contains(complaint.String(), "fetching vulnerabilities") {
		why, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		fmt.Printf("NOT CHECKED for known vulnerabilities, since the database is out of reach: %s\n"+
			"GOVULNDB may name another, and VULN_REQUIRED=yes has this fail.\n", why)
		if os.Getenv("VULN_REQUIRED") != "" {
			return errUnreachable
		}
		return nil
	}
	fmt.Print(out.String(), complaint.String())
	if err != nil {
		return fmt.Errorf("govulncheck: %w", err)
	}
	return nil
}
