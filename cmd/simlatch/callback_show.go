package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

func newCallbackShowCommand() *cobra.Command {
	var account, form string
	cmd := &cobra.Command{
		Use:   "show REQUEST ICCID",
		Short: "Show one callback with its failed attempts",
		Long: `Show one callback with its failed attempts: when each ended, the HTTP status (empty
where there was no answer), how long it took, and the answer's first bytes or
what went wrong. An attempt that was acknowledged is counted and not listed.`,
		Example: `  simlatch callback show 019a0b5c-7d1e-7c3a-9f00-2b7c6d5e4f31 89148000000000000012`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCallbackShow(cmd, account, args[0], args[1], form)
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "the account's `name`, where several have the request")
	cmd.Flags().StringVarP(&form, "output", "o", formTable, "`form`: table or json")
	_ = cmd.RegisterFlagCompletionFunc("output",
		cobra.FixedCompletions([]string{formTable, formJSON}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runCallbackShow(cmd *cobra.Command, account, request, iccid, form string) error {
	if form != formTable && form != formJSON {
		return usagef("unknown output form %q: use table or json", form)
	}
	id, err := license.ParseRequestID(request)
	if err != nil {
		return err
	}
	sim, err := license.ParseICCID(iccid)
	if err != nil {
		return err
	}
	return withBooks(cmd, func(s books) error {
		p, err := findRequest(cmd, s, account, id)
		if err != nil {
			return err
		}
		shown := shownCallback{}
		if shown.KeptCallback, err = findCallback(cmd, s, p, sim); err != nil {
			return err
		}
		if shown.attempts, err = s.Attempts(cmd.Context(), p.Account, id, sim); err != nil {
			return err
		}
		if form == formJSON {
			return writeObject(cmd.OutOrStdout(), append(showColumns[:len(showColumns):len(showColumns)], attemptsColumn), shown, "", "\n")
		}
		return shown.writeText(cmd.OutOrStdout())
	})
}

// shownCallback is a callback with its failed attempts.
type shownCallback struct {
	store.KeptCallback
	attempts []store.Attempt
}

// said is what a stranger said, in a form that a terminal shows and does not
// obey.
func said(text string) any {
	if text == "" {
		return nil
	}
	return strconv.QuoteToGraphic(text)
}

// writeText writes a line for each fact, and a list of the attempts.
func (c shownCallback) writeText(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, column := range showColumns {
		value := column.value(c)
		if text, ok := value.(string); ok && (column.name == "code" || column.name == "comment") {
			value = said(text)
		}
		if text := cell(value); text != "" {
			fmt.Fprintf(tw, "%s\t%s\n", strings.ToLower(column.heading), text)
		}
	}
	if err := tw.Flush(); err != nil || len(c.attempts) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return writeList(w, formTable, attemptColumns, c.attempts)
}

var showColumns = []column[shownCallback]{
	{"account", "ACCOUNT", func(c shownCallback) any { return c.Account }},
	{"request", "REQUEST", func(c shownCallback) any { return c.Request }},
	{"action", "ACTION", func(c shownCallback) any { return c.Action }},
	{"sku", "SKU", func(c shownCallback) any { return c.SKU }},
	{"iccid", "ICCID", func(c shownCallback) any { return c.Device.ICCID }},
	{"imei", "IMEI", func(c shownCallback) any { return c.Device.IMEI }},
	{"mdn", "MDN", func(c shownCallback) any { return c.Device.MDN }},
	{"webhookId", "WEBHOOK-ID", func(c shownCallback) any { return c.WebhookID() }},
	{"accepted", "ACCEPTED", func(c shownCallback) any { return when(c.Accepted) }},
	{"settled", "SETTLED", func(c shownCallback) any { return when(c.Settled) }},
	{"outcome", "OUTCOME", func(c shownCallback) any { return callbackOutcome(c.KeptCallback) }},
	{"code", "CODE", func(c shownCallback) any { return c.Code }},
	{"comment", "COMMENT", func(c shownCallback) any { return c.Comment }},
	{"state", "STATE", func(c shownCallback) any { return c.State }},
	{"round", "ROUND", func(c shownCallback) any { return c.Round }},
	{"attempts", "ATTEMPTS", func(c shownCallback) any { return c.Attempt }},
	{"status", "LAST STATUS", func(c shownCallback) any { return set(c.Status) }},
	{"latency", "LAST LATENCY", func(c shownCallback) any { return set(c.Latency) }},
	{"due", "DUE", func(c shownCallback) any { return when(c.Due) }},
	{"ended", "ENDED", func(c shownCallback) any { return when(c.Ended) }},
}

// attemptsColumn is the last member of a callback in JSON.
var attemptsColumn = column[shownCallback]{"failures", "", func(c shownCallback) any {
	type attempt struct {
		Round   int    `json:"round"`
		Attempt int    `json:"attempt"`
		Ended   any    `json:"ended"`
		Status  any    `json:"status"`
		Latency string `json:"latency"`
		Answer  string `json:"answer"`
	}
	list := []attempt{}
	for _, a := range c.attempts {
		list = append(list, attempt{a.Round, a.Number, when(a.At), set(a.Status), a.Latency.String(), a.Answer})
	}
	return list
}}

var attemptColumns = []column[store.Attempt]{
	{"round", "ROUND", func(a store.Attempt) any { return a.Round }},
	{"attempt", "ATTEMPT", func(a store.Attempt) any { return a.Number }},
	{"ended", "ENDED", func(a store.Attempt) any { return when(a.At) }},
	{"status", "STATUS", func(a store.Attempt) any { return set(a.Status) }},
	{"latency", "LATENCY", func(a store.Attempt) any { return a.Latency }},
	{"answer", "ANSWER", func(a store.Attempt) any { return said(a.Answer) }},
}
