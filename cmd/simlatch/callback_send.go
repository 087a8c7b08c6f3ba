package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

type callbackSendOptions struct {
	account, request, iccid string
	within                  timeRange
	delivered, dryRun       bool
}

func newCallbackSendCommand() *cobra.Command {
	var o callbackSendOptions
	cmd := &cobra.Command{
		Use:   "send (--request ID [--iccid ICCID] | --account NAME --since TIME)",
		Short: "Send callbacks again",
		Long: `Send callbacks again: one, those of a request, or those of an account's requests
of some time, the oldest first. Only those that nobody acknowledged are sent,
unless --delivered says otherwise.

Each begins a new round: callbackCount 1, as many attempts as the listener gets,
and the webhook-id it had, by which a receiver can tell that it is the same
message. It goes to the listener that is registered now, so without one nothing
is sent again. A running server finds what is due by itself, within a second.

A callback that has not ended is left alone: one that waits for its next attempt
is sent by itself, and a device still at the carrier has none yet.` + onDatabase,
		Example: `  simlatch callback send --request 019a0b5c-7d1e-7c3a-9f00-2b7c6d5e4f31
  simlatch callback send --request 019a0b5c-7d1e-7c3a-9f00-2b7c6d5e4f31 --iccid 89148000000000000012 --delivered
  simlatch callback send --account 0000123456-00001 --since 2026-01-05T08:00:00Z --until 2026-01-05T12:00:00Z --dry-run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCallbackSend(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.account, "account", "", "the account's `name`; with --request only where several have it")
	f.StringVar(&o.request, "request", "", "those of the request with this `ID`")
	f.StringVar(&o.iccid, "iccid", "", "only the one of the SIM with this `ICCID`")
	o.within.addFlags(cmd)
	f.BoolVar(&o.delivered, "delivered", false, "those too that were acknowledged")
	f.BoolVar(&o.dryRun, "dry-run", false, "count them, and send nothing")
	cmd.MarkFlagsMutuallyExclusive("request", "since")
	cmd.MarkFlagsMutuallyExclusive("request", "until")
	return cmd
}

// filter is what the options select, but for the account: with a request all of
// it, so that what is left alone can be told.
func (o callbackSendOptions) filter(now time.Time) (f store.CallbackFilter, iccid license.ICCID, err error) {
	switch {
	case o.request == "" && o.iccid != "":
		return f, "", usagef("--iccid needs the --request, since a SIM has a callback in each")
	case o.request == "" && (o.account == "" || o.within.since == ""):
		return f, "", usagef("name what to send: the --request, or the --account and the time --since when")
	}
	if o.request != "" {
		if f.Request, err = license.ParseRequestID(o.request); err != nil {
			return f, "", err
		}
	}
	if o.iccid != "" {
		if iccid, err = license.ParseICCID(o.iccid); err != nil {
			return f, "", err
		}
	}
	f.Since, f.Until, err = o.within.parse(now)
	f.OldestFirst = true
	f.States = o.states()
	if f.Request != "" {
		f.States = []store.CallbackState{
			store.CallbackUndelivered, store.CallbackUnsent, store.CallbackDelivered,
			store.CallbackWaiting, store.CallbackCarrier, store.CallbackStuck,
		}
	}
	return f, iccid, err
}

// states are those of callbacks to send.
func (o callbackSendOptions) states() []store.CallbackState {
	if o.delivered {
		return append(missed[:2:2], store.CallbackDelivered)
	}
	return missed
}

func runCallbackSend(cmd *cobra.Command, o callbackSendOptions) error {
	filter, iccid, err := o.filter(time.Now())
	if err != nil {
		return err
	}
	return withStore(cmd, func(s *store.Store) error {
		if filter.Request == "" {
			filter.Account, err = findAccount(cmd, s, o.account)
		} else {
			var p license.Progress
			p, err = findRequest(cmd, s, o.account, filter.Request)
			filter.Account = p.Account
		}
		if err != nil {
			return err
		}
		again := &sendingAgain{s: s, account: filter.Account, wanted: o.states(), dryRun: o.dryRun, left: map[store.CallbackState]int{}}
		if iccid != "" {
			err = again.one(cmd, license.Progress{Account: filter.Account, ID: filter.Request}, iccid)
		} else {
			err = again.all(cmd.Context(), filter)
		}
		return again.report(streamsOf(cmd), err)
	})
}

// sendingAgain sends callbacks of one account again, some at a time.
type sendingAgain struct {
	s       *store.Store
	account license.AccountName
	wanted  []store.CallbackState
	dryRun  bool

	batch   []store.KeptCallback
	queued  int
	changed int                         // meanwhile
	left    map[store.CallbackState]int // alone
}

// one sends the callback of one SIM, or says why not.
func (a *sendingAgain) one(cmd *cobra.Command, p license.Progress, iccid license.ICCID) error {
	c, err := findCallback(cmd, a.s, p, iccid)
	if err != nil {
		return err
	}
	if err := a.take(cmd.Context(), c); err != nil {
		return err
	}
	of := fmt.Sprintf("the callback of SIM %s in request %s", iccid, p.ID)
	switch {
	case a.left[c.State] == 0:
		return a.flush(cmd.Context())
	case c.State == store.CallbackDelivered:
		return fmt.Errorf("%s was acknowledged at %v; --delivered sends it again all the same", of, when(c.Ended))
	case c.State == store.CallbackWaiting:
		return fmt.Errorf("%s is %w: it is sent by itself, and due at %v", of, license.ErrNotEnded, when(c.Due))
	case c.State == store.CallbackStuck:
		return fmt.Errorf("%s is not there yet: the carrier stayed silent (see 'simlatch stuck list --account %s')", of, a.account)
	default:
		return fmt.Errorf("%s is not there yet: the device is still at the carrier", of)
	}
}

// all sends all that a filter selects.
func (a *sendingAgain) all(ctx context.Context, filter store.CallbackFilter) error {
	for c, err := range a.s.Callbacks(ctx, filter) {
		if err == nil {
			err = a.take(ctx, c)
		}
		if err != nil {
			return err
		}
	}
	return a.flush(ctx)
}

// take puts a callback that is wanted among those to send.
func (a *sendingAgain) take(ctx context.Context, c store.KeptCallback) error {
	const most = 500
	wanted := false
	for _, state := range a.wanted {
		wanted = wanted || state == c.State
	}
	if !wanted {
		a.left[c.State]++
		return nil
	}
	if a.batch = append(a.batch, c); len(a.batch) < most {
		return nil
	}
	return a.flush(ctx)
}

func (a *sendingAgain) flush(ctx context.Context) error {
	n, err := len(a.batch), error(nil)
	switch {
	case n == 0:
	case a.dryRun:
		err = a.s.CanSend(ctx, a.account)
	default:
		n, err = a.s.SendAgain(ctx, a.account, a.batch, time.Now())
	}
	a.queued += n
	if err == nil {
		a.changed += len(a.batch) - n
	}
	a.batch = a.batch[:0]
	return err
}

// aside says what was left alone, and why; nothing where nothing was.
func (a *sendingAgain) aside(before string) string {
	var parts []string
	note := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	note(a.left[store.CallbackDelivered], "acknowledged (--delivered sends them too)")
	note(a.left[store.CallbackWaiting], "still waiting, and sent by themselves")
	note(a.left[store.CallbackCarrier], "still at the carrier")
	note(a.left[store.CallbackStuck], "stuck at the carrier")
	note(a.changed, "no longer as they were found")
	if len(parts) == 0 {
		return ""
	}
	return before + strings.Join(parts, ", ")
}

// report says what was done before err, if that is not nil.
func (a *sendingAgain) report(to streams, err error) error {
	if errors.Is(err, license.ErrNoListener) {
		err = fmt.Errorf("account %s has no listener for %s, so nothing would be sent: once whoever receives the callbacks has registered one "+
			"(POST /api/m2m/v1/callbacks/%s), send them again", a.account, license.CarrierService, a.account)
	}
	switch {
	case err == nil && a.queued == 0:
		return fmt.Errorf("there is nothing to send again%s", a.aside(": "))
	case err != nil && a.queued > 0 && !a.dryRun:
		return fmt.Errorf("after %d were queued: %w", a.queued, err)
	case err != nil:
		return err
	case a.dryRun:
		fmt.Fprintf(to.out, "%d would be queued\n", a.queued)
	default:
		fmt.Fprintf(to.out, "%d queued\n", a.queued)
	}
	if aside := a.aside("simlatch: left alone: "); aside != "" {
		fmt.Fprintln(to.err, aside)
	}
	return nil
}
