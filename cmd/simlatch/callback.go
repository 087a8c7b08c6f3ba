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

func newCallbackCommand() *cobra.Command {
	cmd := group("callback", "List callbacks and send them again",
		newCallbackListCommand(), newCallbackShowCommand(), newCallbackSendCommand())
	booksFlags(cmd)
	cmd.Long = `List callbacks and send them again.

One callback tells a listener how one device of a request ended. When its last
attempt has failed, or the account had no listener, it is kept, at least for 30
days, and can be sent again: from the first attempt on, under the webhook-id it
had, to the listener that is registered then.` + onBooks
	return cmd
}

// missed are the states of callbacks that nobody acknowledged.
var missed = []store.CallbackState{store.CallbackUndelivered, store.CallbackUnsent}

// parseCallbackStates reads --state; empty means missed.
func parseCallbackStates(text string) ([]store.CallbackState, error) {
	switch state := store.CallbackState(text); state {
	case "":
		return missed, nil
	case "all":
		return append(missed[:2:2], store.CallbackWaiting, store.CallbackDelivered), nil
	case store.CallbackUndelivered, store.CallbackUnsent, store.CallbackWaiting, store.CallbackDelivered:
		return []store.CallbackState{state}, nil
	default:
		return nil, usagef("--state %q: it is undelivered, unsent, waiting, delivered or all", text)
	}
}

// timeRange is a range of time as flags give it.
type timeRange struct{ since, until string }

func (r *timeRange) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.since, "since", "", "only of requests accepted since this `time`: so long ago, such as 2h, or RFC 3339")
	cmd.Flags().StringVar(&r.until, "until", "", "only of requests accepted before this `time`, likewise")
}

// parse reads the range; a zero time is no bound.
func (r timeRange) parse(now time.Time) (since, until time.Time, err error) {
	if since, err = parseMoment("since", r.since, now); err != nil {
		return since, until, err
	}
	if until, err = parseMoment("until", r.until, now); err != nil {
		return since, until, err
	}
	if end := until; !since.IsZero() {
		if end.IsZero() {
			end = now
		}
		if !since.Before(end) {
			return since, until, usagef("--since %s: it must be before --until, or now", r.since)
		}
	}
	return since, until, nil
}

func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() < 1970 {
		return t, usagef("--%s %q: it is a duration, such as 90m or 48h, or a time, such as 2026-01-05T08:00:00Z", flag, text)
	}
	return t, nil
}

// findRequests finds a request by its ID among accounts named or, without any,
// among all. It is there at least once, with its callbacks.
func findRequests(cmd *cobra.Command, s books, names []string, id license.RequestID) (found []license.Progress, err error) {
	accounts, err := findAccounts(cmd, s, names, true)
	if err != nil {
		return nil, err
	}
	var purged time.Time
	for _, a := range accounts {
		p, err := s.Progress(cmd.Context(), a, id)
		switch {
		case errors.Is(err, license.ErrNotFound):
		case err != nil:
			return nil, err
		case !p.Purged.IsZero():
			purged = p.Purged
		default:
			found = append(found, p)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case !purged.IsZero():
		return nil, fmt.Errorf("the callbacks of request %s are no longer kept: they were purged at %v", id, when(purged))
	case len(names) > 0:
		return nil, fmt.Errorf("there is no request %s of account %s", id, strings.Join(names, " or "))
	}
	return nil, fmt.Errorf("there is no request %s", id)
}

// findRequest finds the one request with this ID, of an account or, where that
// is empty, of any.
func findRequest(cmd *cobra.Command, s books, account string, id license.RequestID) (license.Progress, error) {
	var names []string
	if account != "" {
		names = []string{account}
	}
	found, err := findRequests(cmd, s, names, id)
	if err != nil {
		return license.Progress{}, err
	}
	if len(found) > 1 {
		return license.Progress{}, usagef("%d accounts have a request %s: name one with --account", len(found), id)
	}
	return found[0], nil
}

// findCallback finds one callback of a request.
func findCallback(cmd *cobra.Command, s books, p license.Progress, iccid license.ICCID) (store.KeptCallback, error) {
	c, err := s.Callback(cmd.Context(), p.Account, p.ID, iccid)
	return c, missing(err, "request %s of account %s has no device with ICCID %s", p.ID, p.Account, iccid)
}

type callbackListOptions struct {
	accounts             []string
	request, state, form string
	within               timeRange
	limit                int
}

func newCallbackListCommand() *cobra.Command {
	var o callbackListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List kept callbacks, by default those that nobody acknowledged",
		Long: `List kept callbacks, by default those that nobody acknowledged. They are listed
account by account, the newest request first, its devices by ICCID.

The states are
  undelivered  attempts were made, and the last was not acknowledged
  unsent       no attempt was made: the account had no listener
  waiting      being sent, or sent when it is due
  delivered    acknowledged with a 2xx

A callback whose device is still at the carrier is not there yet. ATTEMPTS counts
those of the latest round, and ROUND how often sending began anew. An empty
STATUS is no answer. Every request in the range is looked at: with millions of
them, --since makes it quick.`,
		Example: `  simlatch callback list --since 24h
  simlatch callback list --request 019a0b5c-7d1e-7c3a-9f00-2b7c6d5e4f31 --state all
  simlatch callback list --account 0000123456-00001 --limit 0 --output csv > missed.csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCallbackList(cmd, o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.accounts, "account", nil, "only this account, by `name` (repeatable)")
	f.StringVar(&o.request, "request", "", "only of the request with this `ID`")
	f.StringVar(&o.state, "state", "", "only in this `state`: undelivered, unsent, waiting, delivered or all; empty means the first two")
	o.within.addFlags(cmd)
	f.IntVar(&o.limit, "limit", 100, "at most this many; 0 for all")
	outputFlag(cmd, &o.form)
	cmd.MarkFlagsMutuallyExclusive("request", "since")
	cmd.MarkFlagsMutuallyExclusive("request", "until")
	return cmd
}

func runCallbackList(cmd *cobra.Command, o callbackListOptions) (err error) {
	var filter store.CallbackFilter
	if filter.States, err = parseCallbackStates(o.state); err != nil {
		return err
	}
	if filter.Since, filter.Until, err = o.within.parse(time.Now()); err != nil {
		return err
	}
	if o.limit < 0 {
		return usagef("--limit %d: it must not be negative", o.limit)
	}
	if o.request != "" {
		if filter.Request, err = license.ParseRequestID(o.request); err != nil {
			return err
		}
	}
	list, err := newLister(cmd.OutOrStdout(), o.form, callbackColumns)
	if err != nil {
		return err
	}
	return withBooks(cmd, func(s books) error {
		accounts, err := o.find(cmd, s, filter.Request)
		if err != nil {
			return err
		}
		more, err := listCallbacks(cmd, s, filter, accounts, o.limit, list)
		if err != nil {
			return err
		}
		if more {
			fmt.Fprintln(cmd.ErrOrStderr(), "simlatch: there are more; --limit 0 lists all")
		}
		return list.end()
	})
}

// find finds the accounts to list of: those that have the request, where one is
// named.
func (o callbackListOptions) find(cmd *cobra.Command, s books, request license.RequestID) (accounts []license.AccountName, err error) {
	if request == "" {
		return findAccounts(cmd, s, o.accounts, true)
	}
	found, err := findRequests(cmd, s, o.accounts, request)
	for _, p := range found {
		accounts = append(accounts, p.Account)
	}
	return accounts, err
}

// listCallbacks lists the callbacks of accounts, up to limit unless that is 0,
// and reports whether there were more.
func listCallbacks(cmd *cobra.Command, s books, filter store.CallbackFilter, accounts []license.AccountName, limit int, list *lister[store.KeptCallback]) (more bool, err error) {
	n := 0
	for _, filter.Account = range accounts {
		for c, err := range s.Callbacks(cmd.Context(), filter) {
			if err != nil {
				return false, err
			}
			if limit > 0 && n == limit {
				return true, nil
			}
			if err := list.put(c); err != nil {
				return false, err
			}
			n++
		}
	}
	return false, nil
}

var callbackColumns = []column[store.KeptCallback]{
	{"account", "ACCOUNT", func(c store.KeptCallback) any { return c.Account }},
	{"request", "REQUEST", func(c store.KeptCallback) any { return c.Request }},
	{"iccid", "ICCID", func(c store.KeptCallback) any { return c.Device.ICCID }},
	{"outcome", "OUTCOME", func(c store.KeptCallback) any { return callbackOutcome(c) }},
	{"state", "STATE", func(c store.KeptCallback) any { return c.State }},
	{"attempts", "ATTEMPTS", func(c store.KeptCallback) any { return c.Attempt }},
	{"round", "ROUND", func(c store.KeptCallback) any { return c.Round }},
	{"status", "STATUS", func(c store.KeptCallback) any { return set(c.Status) }},
	{"ended", "ENDED", func(c store.KeptCallback) any { return when(c.Ended) }},
	{"due", "DUE", func(c store.KeptCallback) any { return when(c.Due) }},
}

// callbackOutcome is what a callback tells of its device; nil where there is
// nothing to tell yet.
func callbackOutcome(c store.KeptCallback) any {
	switch {
	case c.State == store.CallbackCarrier || c.State == store.CallbackStuck:
		return nil
	case c.OK:
		return license.Done.String()
	default:
		return license.Refused.String()
	}
}
