package bulk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// keyAge is how long an Idempotency-Key is relied on; Simlatch keeps it for a
// day.
const keyAge = 23 * time.Hour

// errOldKey ends the repeating of a request whose key is no longer relied on.
var errOldKey = errors.New("the request has been under way for a day")

// passing reports whether an error may be gone when the call is made again.
func passing(err error) bool {
	var e *m2m.Error
	if errors.As(err, &e) {
		return e.Status >= 500 || e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
	}
	var certificate *tls.CertificateVerificationError
	return !errors.As(err, &certificate) && !errors.Is(err, errOldKey)
}

// notSent reports whether a call failed before anything of it was sent, or was
// turned away by what counts calls.
func notSent(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial" || errors.Is(err, m2m.ErrTooManyRequests)
}

// send sends the requests that are left, one after the other: first those that
// an earlier run left without an answer.
func (r *Run) send(ctx context.Context) error {
	r.mu.Lock()
	open := []*request{}
	for _, q := range r.state.requests {
		if q.open() {
			open = append(open, q)
		}
	}
	r.mu.Unlock()
	for _, q := range open {
		if err := r.finish(ctx, q); err != nil {
			return err
		}
	}
	for {
		r.mu.Lock()
		rows, number := r.state.unsent(), len(r.state.requests)+1
		r.mu.Unlock()
		if len(rows) == 0 {
			return nil
		}
		e := &entry{Kind: entrySend, Request: number, Rows: spans(rows), Key: uuid.NewString()}
		if !r.simlatch {
			err := r.patiently(ctx, "reading the pool", func() error {
				have, err := r.pool(ctx)
				e.Pool = &have
				return err
			})
			if err != nil {
				return err
			}
		}
		if err := r.record(e); err != nil {
			return err
		}
		if err := r.deliver(ctx, r.request(number), false); err != nil {
			return err
		}
	}
}

func (r *Run) request(number int) *request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.requests[number-1]
}

// finish finds out what became of a request that an earlier run was sending when
// it ended.
func (r *Run) finish(ctx context.Context, q *request) error {
	switch {
	case !r.simlatch:
		r.cfg.Notice(fmt.Sprintf("request %d of %d devices was being sent when the last run ended: asking what became of it", q.number, len(q.rows)))
		return r.deliver(ctx, q, true)
	case !r.keyOld(q):
		return r.deliver(ctx, q, false)
	}
	return r.findOut(ctx, q)
}

// findOut asks Simlatch what became of the devices of a request whose key is of no
// use any more. What was not done is to be sent.
func (r *Run) findOut(ctx context.Context, q *request) error {
	r.cfg.Notice(fmt.Sprintf("request %d cannot be sent again as the same: asking what became of its devices", q.number))
	return r.resolve(ctx, q, func(done bool) *entry {
		if done {
			return &entry{Kind: entryOutcome, Status: StatusSuccess, Message: "found done; the answer to the request was lost"}
		}
		return nil // not done: to be sent
	}, &entry{Kind: entryRefused, Request: q.number})
}

func (r *Run) keyOld(q *request) bool { return r.cfg.Clock.Now().Sub(q.sent) >= keyAge }

// deliver sends a request until it is accepted or refused; one that is lost may
// have arrived before. Simlatch takes a repeat under the same key for what it is.
// To others a request is sent again only where asking has shown that it did not
// arrive.
func (r *Run) deliver(ctx context.Context, q *request, lost bool) error {
	for repeated := lost; ; repeated = true {
		if lost {
			again, err := r.reconcile(ctx, q)
			if err != nil || !again {
				return err
			}
		}
		var id string
		var err error
		id, lost, err = r.try(ctx, q)
		var refusal *m2m.Error
		switch {
		case lost:
			r.cfg.Notice(fmt.Sprintf("the answer to request %d of %d devices is lost: asking what became of it", q.number, len(q.rows)))
		case errors.As(err, &refusal) && repeated && isOneOf(refusal, carriedOut):
			return r.acceptedAs(q, "")
		case errors.Is(err, errOldKey), errors.Is(err, m2m.ErrKeyReused) && r.simlatch: // sent by another version, in other words
			return r.findOut(ctx, q)
		case refusal != nil:
			return r.refused(ctx, q, refusal)
		case err != nil:
			return err
		default:
			return r.acceptedAs(q, id)
		}
	}
}

// carriedOut are the refusals that a request meets which is carried out already.
var carriedOut = []*m2m.Error{m2m.ErrLicenseHeld, m2m.ErrAlreadyLicensed, m2m.ErrNotAssigned}

// try sends a request until it is accepted, refused (an *m2m.Error), or its
// answer is lost and must not be asked for again.
func (r *Run) try(ctx context.Context, q *request) (id string, lost bool, err error) {
	body := r.plan.request(r.rowsOf(q))
	call := r.cfg.Client.Assign
	if r.plan.Action == string(license.Unassign) {
		call = r.cfg.Client.Unassign
	}
	var refusal *m2m.Error
	err = r.patiently(ctx, "sending", func() (err error) {
		if r.simlatch && r.keyOld(q) {
			return errOldKey
		}
		id, err = call(ctx, body, m2m.WithIdempotencyKey(q.key), m2m.WithoutRepeat())
		switch {
		case err == nil && id != "":
			return nil
		case err == nil:
			err = errors.New("the server accepted the request and did not say as what")
		case ctx.Err() != nil:
			return err
		case !passing(err) && errors.As(err, &refusal):
			return nil
		}
		if lost = !r.simlatch && !notSent(err); lost {
			return nil
		}
		return err
	})
	if err == nil && refusal != nil {
		err = refusal
	}
	return id, lost, err
}

// acceptedAs enters that a request was accepted. Where the id is lost nobody can
// be asked how it ends; a listener may be told.
func (r *Run) acceptedAs(q *request, id string) error {
	entries := []*entry{{Kind: entryAccepted, Request: q.number, ID: id}}
	if id == "" && r.cfg.Listener == nil {
		for _, i := range q.rows {
			entries = append(entries, &entry{
				Kind: entryOutcome, Row: &i, Status: StatusUnknown,
				Message: "the request was accepted, but its id is lost with the answer, so how the device ended cannot be asked: look it up at the provider",
			})
		}
	}
	return r.record(entries...)
}

// rowsOf are the rows of a request.
func (r *Run) rowsOf(q *request) []*Row {
	rows := make([]*Row, len(q.rows))
	for i, at := range q.rows {
		rows[i] = &r.plan.Rows[at]
	}
	return rows
}

// aboutDevices are the refusals of which some devices of a request are the
// cause: the others can go without them.
var aboutDevices = []*m2m.Error{
	m2m.ErrCarrierRefused, m2m.ErrAlreadyLicensed, m2m.ErrIdentifierInvalid, m2m.ErrKindInvalid, m2m.ErrDeviceDuplicate,
	m2m.ErrDeviceState, m2m.ErrDeviceNotEligible, m2m.ErrNotAssigned,
	{Code: "UnifiedWebService.INPUT_INVALID.Device.Account.Invalid"},
	{Code: "UnifiedWebService.REQUEST_FAILED.DeviceNotFound"},
}

// tooMany are the refusals of more devices than a request may have.
var tooMany = []*m2m.Error{m2m.ErrMaxRequestsExceeded, {Code: "UnifiedWebService.INPUT_INVALID.NumberofDevices"}}

// final are the refusals that hold for each device of a request.
var final = []*m2m.Error{m2m.ErrInsufficientLicense, m2m.ErrPolicy, m2m.ErrUnassignLifetime}

func isOneOf(err error, list []*m2m.Error) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refused takes in that a request was refused as a whole. Where some of its
// devices are the cause, Simlatch says by a dry run which; of others it is found
// by sending halves.
func (r *Run) refused(ctx context.Context, q *request, refusal *m2m.Error) error {
	n := len(q.rows)
	end := &entry{Kind: entryRefused, Request: q.number}
	switch {
	case isOneOf(refusal, final) || n == 1 && isOneOf(refusal, aboutDevices):
		return r.record(append(r.failures(q, refusal), end)...)
	case n > 1 && (isOneOf(refusal, tooMany) || refusal.Status == http.StatusRequestEntityTooLarge):
		end.Batch = n / 2
		r.cfg.Notice(fmt.Sprintf("%v; going on with %d in a request", refusal, end.Batch))
		return r.record(end)
	case n > 1 && isOneOf(refusal, aboutDevices):
		end.Narrow = (n + 1) / 2
		if !r.simlatch {
			return r.record(end)
		}
		culprits, err := r.culprits(ctx, q)
		if err != nil {
			return err
		}
		return r.record(append(culprits, end)...)
	}
	// Nothing was sent, as far as the next run is concerned.
	return errors.Join(r.record(end), fmt.Errorf("the server refuses requests: %w", refusal))
}

func (r *Run) failures(q *request, e *m2m.Error) []*entry {
	var out []*entry
	for _, i := range q.rows {
		out = append(out, &entry{Kind: entryOutcome, Row: &i, Status: StatusFailed, Code: e.Code, Message: e.Message})
	}
	return out
}

// culprits asks which devices of a request are refused, and why.
func (r *Run) culprits(ctx context.Context, q *request) ([]*entry, error) {
	answer, err := r.dryRun(ctx, license.Action(r.plan.Action), q)
	if err != nil {
		return nil, err
	}
	var out []*entry
	for at, d := range answer.Devices {
		if d.Outcome != m2m.PlanOK {
			out = append(out, &entry{Kind: entryOutcome, Row: &q.rows[at], Status: StatusFailed, Code: d.ErrorCode, Message: d.ErrorMessage})
		}
	}
	return out, nil
}

// dryRun asks Simlatch what would become of the devices of a request.
func (r *Run) dryRun(ctx context.Context, action license.Action, q *request) (m2m.Plan, error) {
	var answer m2m.Plan
	err := r.patiently(ctx, "asking about devices", func() (err error) {
		answer, err = r.cfg.Client.Plan(ctx, wireAction(action), r.plan.request(r.rowsOf(q)))
		return err
	})
	if err == nil && len(answer.Devices) != len(q.rows) {
		err = fmt.Errorf("the dry run of %d devices was answered for %d", len(q.rows), len(answer.Devices))
	}
	return answer, err
}

// resolve asks Simlatch of each device of a request whether the request was
// carried out on it, and enters what ended says of that; nil leaves it open.
// What cannot be told is unknown. The last entry follows.
func (r *Run) resolve(ctx context.Context, q *request, ended func(done bool) *entry, last *entry) error {
	// What an unassignment would meet tells whether a device holds the license,
	// whatever its state; but a lifetime license refuses it from all.
	ask := license.Unassign
	if r.plan.SKU == string(license.SKULifetime) {
		ask = license.Assign
	}
	answer, err := r.dryRun(ctx, ask, q)
	if err != nil {
		return err
	}
	assigning := r.plan.Action == string(license.Assign)
	var out []*entry
	for at, d := range answer.Devices {
		why := d.Err()
		var holds, sure bool
		switch {
		case ask == license.Unassign:
			holds, sure = why == nil, why == nil || errors.Is(why, m2m.ErrNotAssigned)
		default:
			holds, sure = why != nil, why == nil || errors.Is(why, m2m.ErrLicenseHeld)
		}
		e := &entry{
			Kind: entryOutcome, Status: StatusUnknown, Code: d.ErrorCode,
			Message: "how it ended could not be asked: " + d.ErrorMessage,
		}
		if sure {
			e = ended(holds == assigning)
		}
		if e != nil {
			e.Row = &q.rows[at]
			out = append(out, e)
		}
	}
	if last != nil {
		out = append(out, last)
	}
	if len(out) == 0 {
		return nil
	}
	return r.record(out...)
}
