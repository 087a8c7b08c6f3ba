package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// planOptions say what to plan.
type planOptions struct {
	action  license.Action
	sku     string
	file    string
	out     string
	skipBad bool
	form    string
}

func newPlanCommand() *cobra.Command {
	cmd := group("plan", "Say what assigning or unassigning a fleet would do",
		newPlanActionCommand(license.Assign), newPlanActionCommand(license.Unassign))
	cmd.Long = `Say what assigning or unassigning the licenses of a fleet would do, row by row, and
write it down as a plan that 'simlatch apply' carries out. Nothing is changed.`
	return cmd
}

func newPlanActionCommand(action license.Action) *cobra.Command {
	o := planOptions{action: action}
	cmd := &cobra.Command{
		Use:   string(action) + " --sku SKU --file FILE",
		Short: "Plan to " + string(action) + " the licenses of the devices in a file",
		Long: `Plan to ` + string(action) + ` the licenses of the devices in a file: say for each row what would
happen, or why it would not, with the code that the API documents for it, and what
that makes of the pool. Nothing is changed.

The file is CSV, with - for standard input. Its first line names the columns: iccid
and imei, or one of them, in any order and case, and any others beside them. Commas,
semicolons or tabs, a byte order mark, CRLF and quotes make no difference. What a
spreadsheet has spoilt, such as 8.91E+19, is named by line and column, with what to
do about it.

A Simlatch server checks each row itself, in a dry run. Of another server its lists
of devices and pools are read, and the plan says what that leaves unchecked.

The plan is written to --out, for 'simlatch apply' and for people. The exit status
is 3 when there are rows that would not be done, unless --skip-bad is given: the
plan then leaves them out.` + onServer,
		Example: `  simlatch plan ` + string(action) + ` --sku SIMSec-IoT --file fleet.csv
  simlatch devices list --output csv | simlatch plan ` + string(action) + ` --sku SIMSec-IoT --file - --output csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPlan(cmd, o) },
	}
	clientFlags(cmd)
	planFlags(cmd, &o)
	cmd.Flags().StringVar(&o.out, "out", "", "`file` to write the plan to (default FILE with .plan instead of .csv)")
	_ = cmd.MarkFlagRequired("sku")
	_ = cmd.MarkFlagRequired("file")
	outputFlag(cmd, &o.form)
	return cmd
}

// planFlags adds the flags that say what to plan.
func planFlags(cmd *cobra.Command, o *planOptions) {
	skuFlag(cmd, &o.sku, "the license, by its `SKU`")
	cmd.Flags().StringVarP(&o.file, "file", "f", "", "CSV `file` with the devices; - is standard input")
	_ = cmd.MarkFlagFilename("file", "csv") // it is there
	cmd.Flags().BoolVar(&o.skipBad, "skip-bad", false, "leave out the rows that would not be done")
}

// planPath is where the plan of a fleet file is put.
func (o planOptions) planPath() string {
	switch {
	case o.out != "":
		return o.out
	case o.file == "-":
		return string(o.action) + ".plan"
	}
	return strings.TrimSuffix(o.file, filepath.Ext(o.file)) + ".plan"
}

func runPlan(cmd *cobra.Command, o planOptions) error {
	s := streamsOf(cmd)
	list, err := newLister(s.out, o.form, verdictColumns)
	if err != nil {
		return err
	}
	fleet, err := o.fleet(s.in)
	if err != nil {
		return err
	}
	client, profile, err := clientOf(cmd)
	if err != nil {
		return err
	}
	p, err := o.make(cmd.Context(), client, &profile, fleet, s.err)
	if err != nil {
		return err
	}
	path := o.planPath()
	if err := p.WriteFile(path); err != nil {
		return err
	}
	summary := s.out
	if o.form != formTable {
		summary = s.err
		for _, row := range p.Rows {
			if err := list.put(row); err != nil {
				return err
			}
		}
		if err := list.end(); err != nil {
			return err
		}
	}
	printPlan(summary, p, o.form == formTable)
	say(summary, "\nThe plan is in %s; carry it out with\n  simlatch apply %s", path, strings.Join(applyArgs(p, path), " "))
	return planVerdict(p)
}

// fleet reads the file of devices.
func (o planOptions) fleet(in io.Reader) (*bulk.Fleet, error) {
	if o.file == "-" {
		return bulk.ReadFleet(in, "standard input")
	}
	f, err := os.Open(o.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bulk.ReadFleet(f, o.file)
}

// make has each row of a fleet checked.
func (o planOptions) make(ctx context.Context, client *m2m.Client, profile *clientProfile, fleet *bulk.Fleet, messages io.Writer) (*bulk.Plan, error) {
	account, err := profile.account(ctx, client)
	if err != nil {
		return nil, err
	}
	bar := newProgress(ctx, messages, "checked", len(fleet.Rows)-fleet.Bad())
	bar.quiet = true
	before := 0
	p, err := bulk.Make(ctx, bulk.MakeParams{
		Client: client, Server: profile.server, Account: account, Action: o.action, SKU: o.sku, Fleet: fleet,
		SkipBad: o.skipBad, Now: time.Now(),
		Progress: func(rows int) { bar.add(rows - before); before = rows },
	})
	bar.end()
	if err != nil {
		return nil, called(err)
	}
	return p, nil
}

// verdictColumns are those of a plan's rows.
var verdictColumns = []column[bulk.Row]{
	{"line", "LINE", func(r bulk.Row) any { return r.Line }},
	{"iccid", "ICCID", func(r bulk.Row) any { return r.ICCID }},
	{"imei", "IMEI", func(r bulk.Row) any { return r.IMEI }},
	{"outcome", "OUTCOME", func(r bulk.Row) any {
		if r.OK() {
			return m2m.PlanOK
		}
		return m2m.PlanRefused
	}},
	{"column", "COLUMN", func(r bulk.Row) any { return r.Column }},
	{"code", "CODE", func(r bulk.Row) any { return r.Code }},
	{"message", "MESSAGE", func(r bulk.Row) any { return r.Message }},
}

// mostNamed is how many rows that would not be done are named one by one.
const mostNamed = 50

// printPlan says what a plan is about.
func printPlan(w io.Writer, p *bulk.Plan, named bool) {
	if bad := len(p.Rows) - p.OK(); named && bad > 0 {
		printBadRows(w, p)
		say(w, "")
	}
	to := "to be assigned " + p.SKU
	if p.Action == string(license.Unassign) {
		to = "to give back " + p.SKU
	}
	say(w, "account %s at %s, %s:", p.Account, p.Server, p.File)
	width := len(thousands(len(p.Rows))) + 2
	say(w, "%s  %s", pad(thousands(p.OK()), width), to)
	for _, c := range p.Verdicts() {
		say(w, "%s  %s (%s)", pad(thousands(c.Rows), width), c.Verdict, c.Code)
	}
	say(w, "")
	printPools(w, p)
	if n := p.Short(); n > 0 {
		say(w, "\nTOO FEW LICENSES: the pool has %s available, %s fewer than the plan needs.", thousands(int(p.Before.LicenseAvailable)), thousands(n))
	}
	if p.DryRun {
		say(w, "\nEach row was checked by a dry run on the server.")
	}
	for i, what := range p.Unchecked {
		if i == 0 {
			say(w, "\nThe server cannot be asked for a dry run. NOT CHECKED:")
		}
		say(w, "  - %s", what)
	}
	if p.Irreversible && p.OK() > 0 {
		say(w, "\n%s", irreversible(p))
	}
}

// irreversible says loudly that a plan cannot be undone.
func irreversible(p *bulk.Plan) string {
	return fmt.Sprintf(`*** IRREVERSIBLE *** %s license%s of %s would be gone for good: each stays on its
*** SIM for the life of the SIM, and nobody can take it back.`, thousands(p.OK()), plural(p.OK()), p.SKU)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func rows(n int) string { return thousands(n) + " row" + plural(n) }

// pad puts spaces before a text.
func pad(s string, width int) string { return strings.Repeat(" ", max(0, width-len(s))) + s }

// printBadRows names the rows that would not be done, as compilers name lines:
// first those that are wrong in the file, for they may be mended there.
func printBadRows(w io.Writer, p *bulk.Plan) {
	named := 0
	for _, wrong := range []bool{true, false} {
		for _, r := range p.Rows {
			if r.OK() || wrong != (r.Code == m2m.CodeIdentifierInvalid || r.Code == m2m.CodeDeviceDuplicate) {
				continue
			}
			if named++; named > mostNamed {
				continue
			}
			where := ""
			if p.File != "" {
				where = fmt.Sprintf("%s:%d: ", p.File, r.Line)
			}
			say(w, "%s%s", where, printable(reason(r)))
		}
	}
	if named > mostNamed {
		say(w, "and %s more; --output csv lists each row", thousands(named-mostNamed))
	}
}

// reason says why a row would not be done: in our words, or in the server's where
// we have none.
func reason(r bulk.Row) string {
	id, words := r.ICCID, bulk.Verdict(r.Code, r.Message)
	if id == "" {
		id = r.IMEI
	}
	switch {
	case r.Column != "":
		return r.Column + ": " + r.Message
	case r.Code == m2m.CodeIdentifierInvalid, r.Code == m2m.CodeDeviceDuplicate, words == "refused":
		words = strings.TrimSuffix(r.Message, ".")
	}
	return fmt.Sprintf("%s: %s (%s)", id, words, r.Code)
}

// printPools shows the pool before and after.
func printPools(w io.Writer, p *bulk.Plan) {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "pool\tPURCHASED\tASSIGNED\tAVAILABLE\t\n")
	for _, row := range []struct {
		when string
		pool m2m.Subscription
	}{{"before", p.Before}, {"after", p.After}} {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t\n", row.when, thousands(int(row.pool.LicensePurchased)),
			thousands(int(row.pool.LicenseAssigned)), thousands(int(row.pool.LicenseAvailable)))
	}
	_ = table.Flush() // w tells
}

// applyArgs are the arguments of simlatch apply for a plan.
func applyArgs(p *bulk.Plan, path string) []string {
	args := []string{path}
	if p.OK() < len(p.Rows) && !p.SkipBad {
		args = append(args, "--skip-bad")
	}
	if p.Irreversible {
		args = append(args, "--yes-lifetime")
	}
	return args
}

// planVerdict is the exit status of a plan.
func planVerdict(p *bulk.Plan) error {
	bad := len(p.Rows) - p.OK()
	switch {
	case p.OK() == 0:
		return withStatus(exitPartly, fmt.Errorf("not one of %s would be done", rows(len(p.Rows))))
	case bad > 0 && !p.SkipBad:
		return withStatus(exitPartly, fmt.Errorf("%s of %s would not be done: mend the file and plan again, or leave them out with --skip-bad",
			thousands(bad), rows(len(p.Rows))))
	case p.Short() > 0:
		return withStatus(exitPartly, errors.New("the pool has too few licenses"))
	}
	return nil
}
