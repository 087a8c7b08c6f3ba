package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/m2m"
)

type statusOptions struct {
	watch   bool
	timeout time.Duration
	form    string
}

func newStatusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status REQUEST…",
		Short: "Tell how requests stand, and wait for their end",
		Long: `Tell how requests stand, by the ids that assign and unassign gave.

A request is Pending until the carrier has answered for each of its devices, then
Success if all succeeded, or else Failure. Which devices failed, and why, is told
by their callbacks ('simlatch listen').

With --watch it waits until none is pending. The exit status is 0 when all
succeeded, 3 when devices of one failed, and 4 when --timeout was over first. A
request that is still pending is no failure without --watch.` + onServer,
		Example: `  simlatch status c3f3d17c-79ff-4b35-82df-94446785b6e0
  simlatch status --watch --timeout 10m c3f3d17c-79ff-4b35-82df-94446785b6e0
  simlatch status --output jsonl $(cat requests.txt)`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runStatus(cmd, o, args) },
	}
	clientFlags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.watch, "watch", "w", false, "wait until no request is pending")
	f.DurationVar(&o.timeout, "timeout", 0, "wait no longer than this, such as 10m (default for ever)")
	outputFlag(cmd, &o.form)
	return cmd
}

var statusColumns = []column[m2m.RequestStatus]{
	{"request", "REQUEST", func(s m2m.RequestStatus) any { return s.RequestID }},
	{"status", "STATUS", func(s m2m.RequestStatus) any { return s.Status }},
}

func runStatus(cmd *cobra.Command, o statusOptions, ids []string) error {
	switch {
	case o.timeout < 0:
		return usagef("--timeout %s: it must not be negative", o.timeout)
	case o.timeout > 0 && !o.watch:
		return usagef("--timeout is for --watch")
	}
	list, err := newLister(cmd.OutOrStdout(), o.form, statusColumns)
	if err != nil {
		return err
	}
	client, profile, err := clientOf(cmd, func(cfg *m2m.Config) {
		if o.watch {
			cfg.Retries = 12 // some two minutes: the server may be restarted meanwhile
		}
	})
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	account, err := profile.account(ctx, client)
	if err != nil {
		return err
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errTimeout)
		defer cancel()
	}
	var failed, pending int
	for _, id := range ids {
		s, err := o.ask(ctx, client, account, id)
		if err != nil {
			return err
		}
		switch s.Status {
		case m2m.StatusPending:
			pending++
		case m2m.StatusFailure:
			failed++
		}
		if err := list.put(s); err != nil {
			return err
		}
	}
	if err := list.end(); err != nil {
		return err
	}
	return o.verdict(pending, failed, len(ids))
}

// errTimeout says that --timeout was over.
var errTimeout = errors.New("the time was over")

// ask asks how a request stands, and waits for its end if that is wanted. When
// the time is over it is left pending.
func (o statusOptions) ask(ctx context.Context, client *m2m.Client, account, id string) (m2m.RequestStatus, error) {
	id = strings.TrimSpace(id)
	ask := client.RequestStatus
	if o.watch {
		ask = client.Wait
	}
	s, err := ask(ctx, account, id)
	switch {
	case errors.Is(context.Cause(ctx), errTimeout):
		return m2m.RequestStatus{RequestID: id, Status: m2m.StatusPending}, nil
	case errors.Is(err, m2m.ErrRequestNotFound):
		return s, fmt.Errorf("account %s has no request %s: %w", account, id, err)
	case err != nil:
		return s, fmt.Errorf("request %s: %w", id, called(err))
	}
	return s, nil
}

// verdict is the exit status of what was found.
func (o statusOptions) verdict(pending, failed, all int) error {
	switch {
	case pending > 0 && o.watch:
		return withStatus(exitTimeout, fmt.Errorf("%d of %d requests are still pending after %s", pending, all, o.timeout))
	case failed > 0:
		return withStatus(exitPartly, fmt.Errorf("devices of %d of %d requests failed; their callbacks tell which and why", failed, all))
	}
	return nil
}
