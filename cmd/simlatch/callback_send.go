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
is sent by itself, and a device still at the carrier has none yet.` + onBooks,
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

// order is what the options ask for, but for the account.
func (o callbackSendOptions) order(now time.Time) (order store.SendOrder, err error) {
	switch {
	case o.request == "" && o.iccid != "":
		return order, usagef("--iccid needs the --request, since a SIM has a callback in each")
	case o.request == "" && (o.account == "" || o.within.since == ""):
		return order, usagef("name what to send: the --request, or the --account and the time --since when")
	}
	if o.request != "" {
		if order.Request, err = license.ParseRequestID(o.request); err != nil {
			return order, err
		}
	}
	if o.iccid != "" {
		if order.ICCID, err = license.ParseICCID(o.iccid); err != nil {
			return order, err
		}
	}
	order.Delivered, order.DryRun, order.OldestFirst = o.delivered, o.dryRun, true
	order.Since, order.Until, err = o.within.parse(now)
	return order, err
}

func runCallbackSend(cmd *cobra.Command, o callbackSendOptions) error {
	order, err := o.order(time.Now())
	if err != nil {
		return err
	}
	return withBooks(cmd, func(s books) error {
		if order.Request == "" {
			order.Account, err = findAccount(cmd, s, o.account)
		} else {
			var p license.Progress
			p, err = findRequest(cmd, s, o.account, order.Request)
			order.Account = p.Account
		}
		if err == nil && order.ICCID != "" {
			err = canSend(cmd, s, order)
		}
		if err != nil {
			return err
		}
		report, err := s.SendAll(cmd.Context(), order, time.Now())
		return tellSent(streamsOf(cmd), order, report, err)
	})
}

// canSend says why the callback of one SIM cannot be sent again, if it cannot.
func canSend(cmd *cobra.Command, s books, o store.SendOrder) error {
	c, err := findCallback(cmd, s, license.Progress{Account: o.Account, ID: o.Request}, o.ICCID)
	if err != nil || o.Wants(c.State) {
		return err
	}
	of := fmt.Sprintf("the callback of SIM %s in request %s", o.ICCID, o.Request)
	switch c.State {
	case store.CallbackDelivered:
		return fmt.Errorf("%s was acknowledged at %v; --delivered sends it again all the same", of, when(c.Ended))
	case store.CallbackWaiting:
		return fmt.Errorf("%s is %w: it is sent by itself, and due at %v", of, license.ErrNotEnded, when(c.Due))
	case store.CallbackStuck:
		return fmt.Errorf("%s is not there yet: the carrier stayed silent (see 'simlatch stuck list --account %s')", of, o.Account)
	default:
		return fmt.Errorf("%s is not there yet: the device is still at the carrier", of)
	}
}

// leftAlone says what was left alone, and why; nothing where nothing was.
func leftAlone(before string, r store.SendReport) string {
	var parts []string
	note := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	note(r.Left[store.CallbackDelivered], "acknowledged (--delivered sends them too)")
	note(r.Left[store.CallbackWaiting], "still waiting, and sent by themselves")
	note(r.Left[store.CallbackCarrier], "still at the carrier")
	note(r.Left[store.CallbackStuck], "stuck at the carrier")
	note(r.Changed, "no longer as they were found")
	if len(parts) == 0 {
		return ""
	}
	return before + strings.Join(parts, ", ")
}

// tellSent says what was done before err, if that is not nil.
func tellSent(to streams, o store.SendOrder, r store.SendReport, err error) error {
	if errors.Is(err, license.ErrNoListener) {
		err = fmt.Errorf("account %s has no listener for %s, so nothing would be sent: once whoever receives the callbacks has registered one "+
			"(POST /api/m2m/v1/callbacks/%s), send them again", o.Account, license.CarrierService, o.Account)
	}
	switch {
	case err == nil && r.Queued == 0:
		return fmt.Errorf("there is nothing to send again%s", leftAlone(": ", r))
	case err != nil && r.Queued > 0 && !o.DryRun:
		return fmt.Errorf("after %d were queued: %w", r.Queued, err)
	case err != nil:
		return err
	case o.DryRun:
		fmt.Fprintf(to.out, "%d would be queued\n", r.Queued)
	default:
		fmt.Fprintf(to.out, "%d queued\n", r.Queued)
	}
	if aside := leftAlone("simlatch: left alone: ", r); aside != "" {
		fmt.Fprintln(to.err, aside)
	}
	return nil
}
