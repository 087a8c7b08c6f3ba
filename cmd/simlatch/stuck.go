package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

func newStuckCommand() *cobra.Command {
	cmd := group("stuck", "List and resolve tasks whose carrier stayed silent",
		newStuckListCommand(),
		newStuckResolveCommand("done", license.Done, "The carrier did it: post the license, or release it where it was to be unassigned",
			`the carrier's records show that it has done what the task asked for`),
		newStuckResolveCommand("refused", license.Refused, "The carrier did not do it: give the reserved license back, or leave it assigned",
			`the carrier's records show that it has not done it and never will`),
		newStuckResolveCommand("retry", license.Retry, "Ask the carrier again, at once, under the same key",
			`it is not known, and the carrier can be asked again`))
	booksFlags(cmd)
	cmd.Long = `List and resolve tasks whose carrier stayed silent.

A carrier that does not answer may have done the work all the same. Such a task
is asked for again for 24 hours; then it is stuck: it keeps its license, and its
request stays pending, until somebody who knows what became of the SIM says so
here. The listener is then told as if the carrier had answered.` + onBooks
	return cmd
}

func newStuckListCommand() *cobra.Command {
	var form string
	var names []string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List stuck tasks",
		Example: `  simlatch stuck list --output csv`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBooks(cmd, func(s books) error {
				accounts, err := findAccounts(cmd, s, names, true)
				if err != nil {
					return err
				}
				var tasks []store.StuckTask
				for _, a := range accounts {
					of, err := s.StuckTasks(cmd.Context(), a)
					if err != nil {
						return err
					}
					tasks = append(tasks, of...)
				}
				return writeList(cmd.OutOrStdout(), form, stuckColumns, tasks)
			})
		},
	}
	cmd.Flags().StringArrayVar(&names, "account", nil, "only this account, by `name` (repeatable)")
	outputFlag(cmd, &form)
	return cmd
}

var stuckColumns = []column[store.StuckTask]{
	{"account", "ACCOUNT", func(t store.StuckTask) any { return t.Account }},
	{"request", "REQUEST", func(t store.StuckTask) any { return t.Request }},
	{"iccid", "ICCID", func(t store.StuckTask) any { return t.Device.ICCID }},
	{"action", "ACTION", func(t store.StuckTask) any { return t.Action }},
	{"sku", "SKU", func(t store.StuckTask) any { return t.SKU }},
	{"since", "SINCE", func(t store.StuckTask) any { return when(t.Since) }},
	{"comment", "LAST HEARD", func(t store.StuckTask) any { return t.Comment }},
}

type stuckOptions struct {
	account, request, iccid, reason string
	verdict                         license.Verdict
}

func newStuckResolveCommand(name string, verdict license.Verdict, short, when string) *cobra.Command {
	o := stuckOptions{verdict: verdict}
	cmd := &cobra.Command{
		Use:   name + " REQUEST ICCID --account NAME --reason TEXT",
		Short: short,
		Long:  short + ".\n\nFor when " + when + "." + onBooks,
		Example: fmt.Sprintf(`  simlatch stuck %s 019a0b5c-7d1e-7c3a-9f00-2b7c6d5e4f31 89148000000000000012 \
    --account 0000123456-00001 --reason "seen in the carrier's portal"`, name),
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.request, o.iccid = args[0], args[1]
			return runStuckResolve(cmd, o)
		},
	}
	cmd.Flags().StringVar(&o.account, "account", "", "the account's `name`")
	cmd.Flags().StringVar(&o.reason, "reason", "", "how you know, in your words; a refusal's reason is sent to the listener (`text`)")
	_ = cmd.MarkFlagRequired("account")
	_ = cmd.MarkFlagRequired("reason")
	return cmd
}

func runStuckResolve(cmd *cobra.Command, o stuckOptions) error {
	if strings.TrimSpace(o.reason) == "" {
		return usagef("--reason must not be empty: it is what people will read in a year's time")
	}
	return withBooks(cmd, func(s books) error {
		account, err := findAccount(cmd, s, o.account)
		if err != nil {
			return err
		}
		tasks, err := s.StuckTasks(cmd.Context(), account)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if string(t.Request) != o.request || string(t.Device.ICCID) != o.iccid {
				continue
			}
			err := s.ResolveStuck(cmd.Context(), t, o.verdict, o.reason, time.Now())
			if errors.Is(err, license.ErrNotFound) {
				break
			}
			return err
		}
		return fmt.Errorf("no task of request %s for SIM %s is stuck (see 'simlatch stuck list --account %s')", o.request, o.iccid, account)
	})
}
