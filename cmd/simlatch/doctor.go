package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newDoctorCommand() *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, and say what to do about it",
		Long: `Look for what is wrong, and say what to do about it: one line for each check, with
the remedy where there is one.

  server       it answers, over a connection that can be trusted, and is ready
  clock        it agrees with this machine's
  credentials  it knows the application and its secret
  session      it knows the user and the password
  account      the user has access to the account
  listener     one is registered for CarrierService, and can be reached from here
  database     it can be opened, and who may read its files
  migrations   the schema is that of this program
  engine       the version of SQLite or PostgreSQL
  key          the key that seals stored secrets can be read
  disk         there is room beside a SQLite database

The first six are about the server that 'simlatch login' stored, or that --server
names, and are skipped without one; the others about --database, and are skipped
where there is none. Nothing is changed. That the ledger is right is what
'simlatch verify' looks at.

The exit status is 1 when a check failed; a warning is no failure.`,
		Example: `  simlatch doctor
  simlatch doctor --profile test
  simlatch doctor --database sqlite:/var/lib/simlatch/simlatch.db
  simlatch doctor --output jsonl | jq 'select(.state != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDoctor(cmd, o) },
	}
	clientFlags(cmd)
	cmd.Flags().StringVarP(&o.form, "output", "o", formText, "`form` of the output: text, table, json, jsonl or csv")
	completeFlag(cmd, "output", func() []string { return []string{formText, formTable, formJSON, formJSONL, formCSV} })
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Second, "how long a check may take")
	return cmd
}

type doctorOptions struct {
	form    string
	timeout time.Duration
}

// findingState is how a check ended.
type findingState string

const (
	stateOK   findingState = "ok"
	stateWarn findingState = "warn" // something that is not good, and no failure
	stateFail findingState = "fail"
	stateSkip findingState = "skip" // there was nothing to look at
)

// finding is what a check has found.
type finding struct {
	check  string
	state  findingState
	what   string
	remedy string // what to do about it
}

var findingColumns = []column[finding]{
	{"check", "CHECK", func(f finding) any { return f.check }},
	{"state", "STATE", func(f finding) any { return f.state }},
	{"finding", "FINDING", func(f finding) any { return f.what }},
	{"remedy", "REMEDY", func(f finding) any { return f.remedy }},
}

// doctor looks at one thing after another, and tells of each at once.
type doctor struct {
	o     doctorOptions
	put   func(finding) error
	count map[findingState]int
	err   error // of printing
}

func runDoctor(cmd *cobra.Command, o doctorOptions) error {
	if o.timeout <= 0 {
		return usagef("--timeout %s: it must be more than nothing", o.timeout)
	}
	d := &doctor{o: o, count: map[findingState]int{}}
	end := func() error { return nil }
	if o.form == formText {
		d.put = textFindings(cmd.OutOrStdout())
	} else {
		list, err := newLister(cmd.OutOrStdout(), o.form, findingColumns)
		if err != nil {
			return err
		}
		d.put, end = list.put, list.end
	}
	d.lookAtServer(cmd)
	d.lookAtDatabase(cmd)
	if err := errors.Join(d.err, end()); err != nil {
		return err
	}
	return d.verdict()
}

// textFindings prints findings as lines for people.
func textFindings(w io.Writer) func(finding) error {
	p := paintOf(w)
	return func(f finding) error {
		state := fmt.Sprintf("%-4s", f.state)
		switch f.state {
		case stateOK:
			state = p.good(state)
		case stateWarn:
			state = p.warn(state)
		case stateFail:
			state = p.bad(state)
		case stateSkip:
		}
		text := fmt.Sprintf("%s  %-11s  %s", state, f.check, printable(f.what))
		if f.remedy != "" {
			text += " -> " + printable(f.remedy)
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
}

func (d *doctor) tell(f finding) {
	d.count[f.state]++
	d.err = errors.Join(d.err, d.put(f))
}

func (d *doctor) ok(check, format string, args ...any) {
	d.tell(finding{check: check, state: stateOK, what: fmt.Sprintf(format, args...)})
}

func (d *doctor) warn(check, remedy, format string, args ...any) {
	d.tell(finding{check: check, state: stateWarn, what: fmt.Sprintf(format, args...), remedy: remedy})
}

func (d *doctor) fail(check, remedy, format string, args ...any) {
	d.tell(finding{check: check, state: stateFail, what: fmt.Sprintf(format, args...), remedy: remedy})
}

// skip tells of checks that cannot be made.
func (d *doctor) skip(why string, checks ...string) {
	for _, check := range checks {
		d.tell(finding{check: check, state: stateSkip, what: why})
	}
}

// verdict is the exit status of what was found.
func (d *doctor) verdict() error {
	done := d.count[stateOK] + d.count[stateWarn] + d.count[stateFail]
	switch {
	case done == 0:
		return errors.New("there is nothing to look at: 'simlatch login' stores which server, and --database names a database")
	case d.count[stateFail] == 1:
		return errors.New("1 check failed")
	case d.count[stateFail] > 1:
		return fmt.Errorf("%d checks failed", d.count[stateFail])
	}
	return nil
}
