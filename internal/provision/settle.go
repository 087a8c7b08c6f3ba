package provision

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// pace is the least time from one settlement that is not full to the next. Under
// load, small ones would stand in the way of what makes work for large ones; the
// first after a rest does not wait.
const pace = 10 * time.Millisecond

// suspect is how often the store may refuse a batch for a reason that is not
// its own being out of reach before the batch is taken apart.
const suspect = 3

// settle settles the pending outcomes of such heaps, a batch as soon as the one
// before it is settled, until they are closed and none is left. A batch that
// the store does not take is kept and tried again; callers then wait. When ctx
// ends first, the error says how much was left. Once working has ended, it hurries.
func (w *Worker) settle(working, ctx context.Context, of which) error {
	var batch []license.Outcome
	for tries := 0; ; {
		if len(batch) == 0 {
			var ok bool
			if batch, ok = w.pending.take(of); !ok {
				return nil
			}
			w.lines.look()
		}
		begun, full := time.Now(), len(batch) >= batchSize
		err := w.flush(ctx, batch)
		if err != nil && tries >= suspect && !unavailable(err) {
			batch, err = w.takeApart(ctx, batch)
		}
		if err == nil {
			batch, tries = nil, 0
			if !full {
				sleep(working, pace-time.Since(begun))
			}
			continue
		}
		w.metrics.settleFailures.Inc()
		w.cfg.Logger.Error("settling outcomes", "error", err, "outcomes", len(batch))
		if !sleep(ctx, storeBackoff(tries)) {
			return fmt.Errorf("ending with %d outcomes that could not be settled: %w", len(batch)+w.pending.size(), err)
		}
		tries++
	}
}

// flush settles one batch, of any accounts, and hands the callbacks over that
// this gives.
func (w *Worker) flush(ctx context.Context, batch []license.Outcome) error {
	now, begun := w.cfg.Clock.Now(), time.Now()
	sums := tally(batch)
	p := license.SettleParams{
		Now: now, Outcomes: batch,
		Room: make(map[license.AccountName]int, len(sums)), LeaseUntil: now.Add(w.cfg.Lease),
	}
	for account, s := range sums {
		if s.ended > 0 {
			p.Room[account] = w.cfg.Sink.Reserve(account, s.ended)
		}
	}
	settled, err := w.cfg.Queue.SettleTasks(ctx, p)
	if err != nil {
		settled = license.Settled{}
	}
	w.handOver(settled, p.Room)
	if err != nil {
		return err
	}
	w.trace(begun, batch)
	w.metrics.settled(w.cfg.Clock.Now(), batch, settled.Counted)
	w.putOff(now, batch)
	for account, s := range sums {
		w.room.release(account, s.all)
	}
	return nil
}

// sum counts the outcomes of one account.
type sum struct {
	all   int
	ended int // done or refused: each gives a callback
}

func tally(batch []license.Outcome) map[license.AccountName]sum {
	sums := map[license.AccountName]sum{}
	for first, i := 0, 0; i < len(batch); first = i {
		var s sum
		account := batch[first].Task.Account
		for ; i < len(batch) && batch[i].Task.Account == account; i++ {
			s.all++
			if v := batch[i].Verdict; v == license.Done || v == license.Refused {
				s.ended++
			}
		}
		sums[account] = sum{all: sums[account].all + s.all, ended: sums[account].ended + s.ended}
	}
	return sums
}

// handOver gives the sink its callbacks and the room it set aside back.
func (w *Worker) handOver(settled license.Settled, reserved map[license.AccountName]int) {
	callbacks := settled.Callbacks
	byAccount := func(a, b license.Callback) int { return cmp.Compare(a.Account, b.Account) }
	if !slices.IsSortedFunc(callbacks, byAccount) {
		slices.SortStableFunc(callbacks, byAccount)
	}
	for len(callbacks) > 0 {
		account := callbacks[0].Account
		n := slices.IndexFunc(callbacks, func(c license.Callback) bool { return c.Account != account })
		if n < 0 {
			n = len(callbacks)
		}
		if room, ok := reserved[account]; ok {
			w.cfg.Sink.Give(account, room, callbacks[:n:n])
			delete(reserved, account)
		}
		callbacks = callbacks[n:]
	}
	for account, room := range reserved {
		w.cfg.Sink.Give(account, room, nil)
	}
	if settled.More {
		w.cfg.Sink.Wake()
	}
}

// putOff has this worker look again when what it put off falls due.
func (w *Worker) putOff(now time.Time, batch []license.Outcome) {
	var last time.Time
	for i := range batch {
		if due := batch[i].Due; !due.IsZero() && !due.Equal(last) {
			w.alarms.set(now, due)
			last = due
		}
	}
}

// takeApart settles a batch request by request, so that one the store will never
// take does not hold up all others. What fails alone while something else
// succeeds, or after its lease has ended, is given up: its tasks fall due and are
// asked for again under the same key. It returns what is still to be settled.
func (w *Worker) takeApart(ctx context.Context, batch []license.Outcome) ([]license.Outcome, error) {
	slices.SortStableFunc(batch, func(a, b license.Outcome) int { return cmp.Compare(a.Task.Request, b.Task.Request) })
	var failed []license.Outcome
	var failure error
	settled := false
	for first, i := 0, 1; i <= len(batch); i++ {
		if i < len(batch) && batch[i].Task.Request == batch[first].Task.Request {
			continue
		}
		err := w.flush(ctx, batch[first:i:i])
		switch {
		case err == nil:
			settled = true
		case unavailable(err) || ctx.Err() != nil:
			return append(failed, batch[first:]...), err
		default:
			failed, failure = append(failed, batch[first:i]...), err
		}
		first = i
	}
	now := w.cfg.Clock.Now()
	kept := failed[:0]
	for _, o := range failed {
		if !settled && now.Before(o.Task.Until) {
			kept = append(kept, o)
			continue
		}
		w.giveUp(now, o, failure)
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return kept, failure
}

// giveUp leaves an outcome that cannot be settled to the task's lease.
func (w *Worker) giveUp(now time.Time, o license.Outcome, err error) {
	w.cfg.Logger.Error("giving up an outcome that cannot be settled; its task will be asked for again",
		"error", err, "request_id", o.Task.Request, "iccid", o.Task.Device.ICCID, "verdict", o.Verdict.String())
	w.room.release(o.Task.Account, 1)
	w.alarms.set(now, o.Task.Until)
}

func unavailable(err error) bool {
	var u *license.UnavailableError
	return errors.As(err, &u)
}

// storeBackoff is how long to leave the store alone after so many failures.
func storeBackoff(failures int) time.Duration {
	return min(5*time.Second, 100*time.Millisecond<<min(failures, 10))
}

// sleep waits for d; false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
