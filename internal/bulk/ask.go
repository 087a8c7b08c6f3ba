package bulk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// reconcile finds out what became of a request to a server that is not Simlatch
// and may or may not have accepted it. The pool tells: a request that was
// accepted has taken its licenses from it, or given them back. What has been found
// is entered, unless the request did not arrive and may be sent again.
//
// A license that is for ever is not sent again on the word of a pool, which may
// be late: what became of it is then unknown, for a person to decide.
func (r *Run) reconcile(ctx context.Context, q *request) (again bool, err error) {
	r.mu.Lock()
	q.doubtful = true
	r.mu.Unlock()
	asks := 3
	if r.cfg.Listener != nil {
		asks = 10 // callbacks are the better witnesses; they may take a while
	}
	moved := int64(0)
	for range asks {
		if err := r.pause(ctx, 8*r.cfg.Pace); err != nil {
			return false, err
		}
		if !r.isOpen(q) {
			return false, nil // a callback has told
		}
		err := r.patiently(ctx, "reading the pool", func() error {
			have, err := r.pool(ctx)
			if q.pool != nil {
				moved = q.pool.LicenseAvailable - have.LicenseAvailable
			}
			return err
		})
		if err != nil {
			return false, err
		}
		if r.plan.Action == string(license.Unassign) {
			moved = -moved
		}
		if moved == int64(len(q.rows)) {
			r.cfg.Notice(fmt.Sprintf("request %d was accepted: the pool has moved by its %d licenses", q.number, moved))
			return false, r.acceptedAs(q, "")
		}
	}
	if moved == 0 && q.pool != nil && !r.plan.Irreversible {
		r.cfg.Notice(fmt.Sprintf("request %d has not arrived: the pool has not moved; sending it again", q.number))
		return true, nil
	}
	r.cfg.Notice(fmt.Sprintf("nobody can tell what became of request %d of %d devices; it is not sent again", q.number, len(q.rows)))
	return false, r.record(&entry{
		Kind: entryLost, Request: q.number, Status: StatusUnknown,
		Message: fmt.Sprintf("the answer was lost, and the pool has moved by %d for %d devices, so whether the request was accepted is not known: "+
			"look the device up at the provider; 'simlatch apply --repeat-lost' sends those again that were not", moved, len(q.rows)),
	})
}

func (r *Run) isOpen(q *request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return q.open()
}

// ErrUntold says that the server does not tell how requests ended, and that there
// is no listener that it could tell.
var ErrUntold = errors.New("the server does not say how requests ended; with --listen it tells this command")

// watch asks how the accepted requests stand until each of their rows has ended
// and nothing is left to be sent. Where there is a listener it asks only about
// what has not been told for a while.
func (r *Run) watch(ctx context.Context) error {
	// So many questions a second, not more.
	between := r.cfg.Pace / 10
	if r.simlatch {
		between = r.cfg.Pace / 100
	}
	silent := false // the server knows no statuses
	for {
		q, due, awaited := r.nextToAsk()
		select {
		case <-r.sent:
			switch {
			case awaited == 0:
				return nil
			case silent && r.cfg.Listener == nil:
				return ErrUntold
			}
		default:
		}
		wait := r.cfg.Pace / 10
		if q != nil && due <= 0 && !silent {
			told, err := r.ask(ctx, q)
			if err != nil {
				return err
			}
			silent, wait = !told, between
		}
		if err := r.pause(ctx, wait); err != nil {
			return err
		}
	}
}

// nextToAsk finds the request to ask about next, and in what time, and how many
// are awaited.
func (r *Run) nextToAsk() (next *request, due time.Duration, awaited int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Clock.Now()
	for _, q := range r.state.requests {
		if !q.awaited() {
			continue
		}
		awaited++
		if q.id == "" {
			continue
		}
		// The longer it takes, the less it matters to know at once.
		first := r.cfg.Pace
		if r.simlatch {
			first /= 10
		}
		pause := min(max(first, now.Sub(q.accepted)/10), 30*r.cfg.Pace)
		if r.cfg.Listener != nil {
			first, pause = 20*r.cfg.Pace, max(pause, 10*r.cfg.Pace)
		}
		in := q.accepted.Add(first).Sub(now)
		if !q.asked.IsZero() {
			in = q.asked.Add(pause).Sub(now)
		}
		if next == nil || in < due {
			next, due = q, in
		}
	}
	return next, due, awaited
}

// ask asks how a request stands and enters what that tells of its rows. It
// reports whether the server knows the status of requests at all.
func (r *Run) ask(ctx context.Context, q *request) (told bool, err error) {
	var status m2m.RequestStatus
	err = r.patiently(ctx, "asking how requests stand", func() (err error) {
		status, err = r.cfg.Client.RequestStatus(ctx, r.plan.Account, q.id)
		return err
	})
	r.mu.Lock()
	q.asked = r.cfg.Clock.Now()
	r.mu.Unlock()
	var e *m2m.Error
	if errors.As(err, &e) && !r.simlatch && e.Status != http.StatusUnauthorized {
		r.cfg.Notice(fmt.Sprintf("the server does not tell how requests stand: %v", e))
		return false, nil
	}
	if err != nil {
		return false, err
	}
	switch status.Status {
	case m2m.StatusSuccess:
		return true, r.record(&entry{Kind: entrySettled, Request: q.number, Status: StatusSuccess})
	case m2m.StatusFailure:
		return true, r.failed(ctx, q)
	}
	return true, nil
}

// failed finds out which devices of a request failed that did not succeed as a
// whole. The listener knows best, and is given time as long as callbacks come.
// Those that came while nobody listened will not come again for a while.
func (r *Run) failed(ctx context.Context, q *request) error {
	now := r.cfg.Clock.Now()
	r.mu.Lock()
	if q.failed.IsZero() {
		q.failed = now
	}
	quiet := min(now.Sub(q.failed), now.Sub(r.told))
	r.mu.Unlock()
	const code = m2m.CodeCarrierRequestUnsuccessful
	reason := "the carrier refused it; why is told to listeners only (--listen)"
	if r.cfg.Listener != nil {
		reason = "the carrier refused it; the callback that says why has not come"
	}
	switch {
	case r.cfg.Listener != nil && (quiet < 6*r.cfg.Pace || !r.simlatch):
		return nil
	case r.simlatch:
		return r.resolve(ctx, q, func(done bool) *entry {
			if done {
				return &entry{Kind: entryOutcome, Status: StatusSuccess}
			}
			return &entry{Kind: entryOutcome, Status: StatusFailed, Code: code, Message: reason}
		}, nil)
	}
	var out []*entry
	for _, i := range q.rows {
		e := &entry{Kind: entryOutcome, Row: &i, Status: StatusFailed, Code: code, Message: reason}
		if len(q.rows) > 1 {
			e.Status, e.Code = StatusUnknown, ""
			e.Message = fmt.Sprintf("some of the %d devices of its request failed, and the server tells listeners only which: "+
				"use --listen, or --batch 1", len(q.rows))
		}
		out = append(out, e)
	}
	return r.record(out...)
}
