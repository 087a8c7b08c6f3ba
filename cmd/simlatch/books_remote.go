package main

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// remote is the books as a server's operator API has them.
type remote struct{ c *client.Client }

// all reads a list to its end.
func all[In, Out any](list iter.Seq2[In, error], as func(In) Out) (out []Out, err error) {
	for v, err := range list {
		if err != nil {
			return nil, meant(err)
		}
		out = append(out, as(v))
	}
	return out, nil
}

// Accounts implements books.
func (r remote) Accounts(ctx context.Context) ([]license.AccountName, error) {
	return all(r.c.Accounts(ctx), func(a client.Account) license.AccountName { return license.AccountName(a.Name) })
}

// AddAccount implements books.
func (r remote) AddAccount(ctx context.Context, name license.AccountName, _ time.Time) error {
	_, err := r.c.AddAccount(ctx, string(name))
	return meant(err)
}

func poolFrom(p client.Pool) license.Pool {
	return license.Pool{
		Account: license.AccountName(p.Account), SKU: license.SKU(p.SKU), Purchased: p.Purchased, Reserved: p.Reserved, Assigned: p.Assigned,
		Threshold: p.Threshold,
	}
}

// Pools implements books.
func (r remote) Pools(ctx context.Context, account license.AccountName) ([]license.Pool, error) {
	return all(r.c.Pools(ctx, string(account)), poolFrom)
}

// AddPurchase implements books.
func (r remote) AddPurchase(ctx context.Context, p license.Purchase, _ time.Time) (license.Pool, error) {
	pool, err := r.c.AddPurchase(ctx, string(p.Account), string(p.SKU), client.NewPurchase{
		Units: p.Units, Reference: p.Reference, Reason: p.Reason,
	})
	return poolFrom(pool), meant(err)
}

// SetThreshold implements books.
func (r remote) SetThreshold(ctx context.Context, account license.AccountName, sku license.SKU, threshold int64) (license.Pool, error) {
	pool, err := r.c.ChangePool(ctx, string(account), string(sku), client.PoolChange{Threshold: threshold})
	return poolFrom(pool), meant(err)
}

func simFrom(s client.SIM) license.SIM {
	sim := license.SIM{
		Account: license.AccountName(s.Account),
		Device:  license.Device{ICCID: license.ICCID(s.ICCID), IMEI: license.IMEI(s.IMEI), MDN: license.MDN(s.MDN)},
		IMSI:    s.IMSI, State: license.State(s.State), Generation: license.Generation(s.Generation), Number: s.Number, Added: s.Added,
	}
	if s.License != nil {
		sim.SKU, sim.Request = license.SKU(s.License.SKU), license.RequestID(s.License.Request)
	}
	return sim
}

// EachDevice implements books. It lists account by account.
func (r remote) EachDevice(ctx context.Context, f license.DeviceFilter) iter.Seq2[license.SIM, error] {
	return func(yield func(license.SIM, error) bool) {
		for _, account := range f.Accounts {
			for s, err := range r.c.SIMs(ctx, client.SIMFilter{
				Account: string(account), ICCID: string(f.Device.ICCID), IMEI: string(f.Device.IMEI), MDN: string(f.Device.MDN),
				State: string(f.State),
			}) {
				if !yield(simFrom(s), meant(err)) || err != nil {
					return
				}
			}
		}
	}
}

// SetState implements books.
func (r remote) SetState(ctx context.Context, account license.AccountName, iccids []license.ICCID, state license.State) (int, error) {
	change := client.SIMsChange{State: string(state)}
	for _, id := range iccids {
		change.ICCIDs = append(change.ICCIDs, string(id))
	}
	changed, err := r.c.ChangeSIMs(ctx, string(account), change)
	return changed.Changed, meant(err)
}

// ImportFile implements books.
func (r remote) ImportFile(ctx context.Context, f deviceFile) (store.ImportResult, error) {
	done, err := r.c.ImportSIMs(ctx, f.in, string(f.account))
	for _, w := range done.Warnings {
		f.warn(fmt.Sprintf("%s:%d: %s", f.name, w.Line, w.Detail))
	}
	return store.ImportResult{Added: done.Added, Unchanged: done.Unchanged}, meant(err)
}

// StuckTasks implements books.
func (r remote) StuckTasks(ctx context.Context, account license.AccountName) ([]store.StuckTask, error) {
	return all(r.c.StuckTasks(ctx, string(account)), func(t client.StuckTask) store.StuckTask {
		return store.StuckTask{
			Task: license.Task{
				Request: license.RequestID(t.Request), Account: license.AccountName(t.Account), SKU: license.SKU(t.SKU), Action: license.Action(t.Action),
				Device:  license.Device{ICCID: license.ICCID(t.ICCID), IMEI: license.IMEI(t.IMEI), MDN: license.MDN(t.MDN)},
				Attempt: t.Asked,
			},
			Since: t.Since, Comment: t.Comment,
		}
	})
}

// ResolveStuck implements books.
func (r remote) ResolveStuck(ctx context.Context, t store.StuckTask, v license.Verdict, reason string, _ time.Time) error {
	return meant(r.c.Decide(ctx, string(t.Account), string(t.Request), string(t.Device.ICCID), client.Decision{Decision: v.String(), Reason: reason}))
}

// Progress implements books.
func (r remote) Progress(ctx context.Context, account license.AccountName, id license.RequestID) (license.Progress, error) {
	d, err := r.c.Request(ctx, string(account), string(id))
	p := d.Request
	return license.Progress{
		ID: license.RequestID(p.ID), Account: license.AccountName(p.Account), SKU: license.SKU(p.SKU), Action: license.Action(p.Action),
		At: p.Accepted, Total: p.Devices, Done: p.Succeeded, Failed: p.Failed, Purged: p.Purged,
	}, meant(err)
}

func callbackFrom(t client.Task) store.KeptCallback {
	return store.KeptCallback{
		Callback: license.Callback{
			Request: license.RequestID(t.Request), Action: license.Action(t.Action), SKU: license.SKU(t.SKU), Account: license.AccountName(t.Account),
			Device: license.Device{ICCID: license.ICCID(t.ICCID), IMEI: license.IMEI(t.IMEI), MDN: license.MDN(t.MDN)},
			OK:     t.Outcome == client.DecideDone, Code: t.Code, Comment: t.Comment, Attempt: t.Attempts, Round: t.Round,
		},
		State: store.CallbackState(t.State), Accepted: t.Accepted, Settled: t.Settled, Status: t.Status, Latency: latencyOf(t.LatencyMS),
		Due: t.Due, Ended: t.Ended,
	}
}

func latencyOf(ms float64) time.Duration { return time.Duration(ms*1000) * time.Microsecond }

// Callbacks implements books.
func (r remote) Callbacks(ctx context.Context, f store.CallbackFilter) iter.Seq2[store.KeptCallback, error] {
	filter := client.CallbackFilter{Account: string(f.Account), Request: string(f.Request), Since: f.Since, Until: f.Until}
	for _, state := range f.States {
		filter.States = append(filter.States, string(state))
	}
	return func(yield func(store.KeptCallback, error) bool) {
		for t, err := range r.c.Callbacks(ctx, filter) {
			if !yield(callbackFrom(t), meant(err)) || err != nil {
				return
			}
		}
	}
}

// Callback implements books.
func (r remote) Callback(ctx context.Context, account license.AccountName, request license.RequestID, iccid license.ICCID) (store.KeptCallback, error) {
	t, err := r.c.Task(ctx, string(account), string(request), string(iccid))
	return callbackFrom(t.Task), meant(err)
}

// Attempts implements books.
func (r remote) Attempts(ctx context.Context, account license.AccountName, request license.RequestID, iccid license.ICCID) (list []store.Attempt, err error) {
	t, err := r.c.Task(ctx, string(account), string(request), string(iccid))
	for _, f := range t.Failures {
		list = append(list, store.Attempt{
			Round: f.Round, Number: f.Attempt, At: f.Ended, Status: f.Status, Latency: latencyOf(f.LatencyMS), Answer: f.Answer,
		})
	}
	return list, meant(err)
}

// SendAll implements books. The server sends some at a time.
func (r remote) SendAll(ctx context.Context, o store.SendOrder, _ time.Time) (store.SendReport, error) {
	report := store.SendReport{Left: map[store.CallbackState]int{}}
	order := client.SendCallbacks{
		Request: string(o.Request), ICCID: string(o.ICCID), Since: o.Since, Until: o.Until, Delivered: o.Delivered, DryRun: o.DryRun,
	}
	for {
		sent, err := r.c.SendCallbacks(ctx, string(o.Account), order)
		if err != nil {
			return report, meant(err)
		}
		report.Queued += sent.Queued
		report.Changed += sent.Changed
		for state, n := range sent.Left {
			report.Left[store.CallbackState(state)] += n
		}
		if order.Cursor = sent.NextCursor; order.Cursor == "" {
			return report, nil
		}
	}
}
