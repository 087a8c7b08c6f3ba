package store

import (
	"context"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// SendOrder says which callbacks to send again: those that a filter selects and
// that nobody acknowledged.
type SendOrder struct {
	CallbackFilter               // but for its States
	ICCID          license.ICCID // only this SIM's, of the filter's request
	Delivered      bool          // those too that were acknowledged
	DryRun         bool          // count them, and send nothing
	Most           int           // stop after about as many; 0: never
}

// SendReport says what became of a SendOrder.
type SendReport struct {
	Queued  int
	Changed int                   // no longer were as they were found
	Left    map[CallbackState]int // were left alone, by their state
	Next    CallbackPlace         // where to go on; zero: it is all done
}

// Wants reports whether an order is for callbacks in a state.
func (o SendOrder) Wants(state CallbackState) bool {
	return state == CallbackUndelivered || state == CallbackUnsent || state == CallbackDelivered && o.Delivered
}

// SendAll has all callbacks that an order selects sent again, as SendAgain does.
// It fails like that, after it may have sent some, which the report counts.
func (s *Store) SendAll(ctx context.Context, o SendOrder, now time.Time) (SendReport, error) {
	sending := &sending{s: s, order: o, now: now, report: SendReport{Left: map[CallbackState]int{}}}
	if o.ICCID != "" {
		c, err := s.Callback(ctx, o.Account, o.Request, o.ICCID)
		if err == nil {
			_, err = sending.take(ctx, c)
		}
		if err == nil {
			err = sending.flush(ctx)
		}
		return sending.report, err
	}
	// Of a request all are looked at, so that what is left alone can be told.
	o.States = []CallbackState{CallbackUndelivered, CallbackUnsent}
	if o.Request != "" || o.Delivered {
		o.States = append(o.States, CallbackDelivered)
	}
	if o.Request != "" {
		o.States = append(o.States, CallbackWaiting, CallbackCarrier, CallbackStuck)
	}
	for c, err := range s.Callbacks(ctx, o.CallbackFilter) {
		more := true
		if err == nil {
			more, err = sending.take(ctx, c)
		}
		if err != nil {
			return sending.report, err
		}
		if !more {
			sending.report.Next = CallbackPlace{c.Request, c.Device.ICCID}
			break
		}
	}
	return sending.report, sending.flush(ctx)
}

// sending is a SendAll under way.
type sending struct {
	s      *Store
	order  SendOrder
	now    time.Time
	report SendReport
	taken  int
	batch  []KeptCallback
}

// take puts a callback that is wanted among those to send, and reports whether
// more are.
func (a *sending) take(ctx context.Context, c KeptCallback) (more bool, err error) {
	if !a.order.Wants(c.State) {
		a.report.Left[c.State]++
		return true, nil
	}
	a.taken++
	if a.batch = append(a.batch, c); len(a.batch) == sendBatch {
		err = a.flush(ctx)
	}
	return a.order.Most == 0 || a.taken < a.order.Most, err
}

func (a *sending) flush(ctx context.Context) error {
	n, err := len(a.batch), error(nil)
	switch {
	case n == 0:
	case a.order.DryRun:
		err = a.s.CanSend(ctx, a.order.Account)
	default:
		n, err = a.s.SendAgain(ctx, a.order.Account, slices.Clone(a.batch), a.now)
	}
	if err == nil || !a.order.DryRun {
		a.report.Queued += n
	}
	if err == nil {
		a.report.Changed += len(a.batch) - n
	}
	a.batch = a.batch[:0]
	return err
}
