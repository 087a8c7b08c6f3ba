package store

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// CallbackState is where the callback of one device stands, in its latest round.
type CallbackState string

// The states of a callback. The last two are of a device that has none yet.
const (
	CallbackUndelivered CallbackState = "undelivered" // ended: attempts were made, and the last was not acknowledged
	CallbackUnsent      CallbackState = "unsent"      // ended with no attempt, for lack of a listener
	CallbackDelivered   CallbackState = "delivered"   // ended: acknowledged
	CallbackWaiting     CallbackState = "waiting"     // being sent, or sent when it is due
	CallbackCarrier     CallbackState = "carrier"     // the carrier has not answered
	CallbackStuck       CallbackState = "stuck"       // nor will it: an operator must decide
)

// Ended reports whether nothing more will be done unless it is sent again.
func (s CallbackState) Ended() bool {
	return s == CallbackUndelivered || s == CallbackUnsent || s == CallbackDelivered
}

// KeptCallback is a callback as it is kept until its request is purged. Attempt
// counts those of its latest round. Of its device, a list has the ICCID only.
type KeptCallback struct {
	license.Callback
	State    CallbackState
	Accepted time.Time // when its request was
	Settled  time.Time // when the carrier's answer was written down
	Status   int       // the HTTP status of the last attempt; 0: no answer, or no attempt
	Latency  time.Duration
	Due      time.Time // of one that is waiting: when it is sent, or when the lease to send it ends
	Ended    time.Time
}

// CallbackFilter selects the callbacks of an account.
type CallbackFilter struct {
	Account license.AccountName
	Request license.RequestID // zero: of all requests
	// Since and Until bound when the request was accepted; zero: no bound.
	// Since is within.
	Since, Until time.Time
	States       []CallbackState
	OldestFirst  bool          // else the newest request is first
	After        CallbackPlace // only those listed behind this one; zero: all
	Page         int           // about how many are wanted; zero: all
}

// CallbackPlace is a place in a list of callbacks. Without an ICCID it is the
// beginning of the request.
type CallbackPlace struct {
	Request license.RequestID
	ICCID   license.ICCID
}

// How much one statement reads: requests, and their tasks.
const (
	requestPage  = 500
	callbackPage = 5000
)

// The newest request first, or the oldest. An index on an account's requests by
// time serves both.
const (
	requestsBefore = `SELECT id, time, total, sku, action FROM request
		WHERE account = $1 AND purged = 0 AND time >= $2 AND (time, id) < ($3, $4)
		ORDER BY time DESC, id DESC LIMIT $5`
	requestsAfter = `SELECT id, time, total, sku, action FROM request
		WHERE account = $1 AND purged = 0 AND time < $2 AND (time, id) > ($3, $4)
		ORDER BY time, id LIMIT $5`
)

// The tasks of a few small requests, all of them, or some of a large one's, after
// $4. Two statements, since PostgreSQL walks the whole account to have the first
// in an order. One parameter is 1 when those that were acknowledged, the most of all, are
// wanted too.
const (
	callbacksOfSome = `SELECT request, iccid, lease, attempt, round, outcome, code, comment, status, latency, settled, ended, coalesce(carrier_due, listener_due, lease_end), phase
		FROM task WHERE account = $1 AND request {any $3}
			AND (CAST($2 AS BIGINT) = 1 OR phase <> 'ended' OR status NOT BETWEEN 200 AND 299)`
	callbacksOfOne = `SELECT request, iccid, lease, attempt, round, outcome, code, comment, status, latency, settled, ended, coalesce(carrier_due, listener_due, lease_end), phase
		FROM task WHERE account = $1 AND request = $2
			AND (CAST($3 AS BIGINT) = 1 OR phase <> 'ended' OR status NOT BETWEEN 200 AND 299)
			AND iccid > $4 ORDER BY iccid LIMIT $5`
	selectCallback = `SELECT request, iccid, lease, attempt, round, outcome, code, comment, status, latency, settled, ended, coalesce(carrier_due, listener_due, lease_end), phase
		FROM task WHERE account = $1 AND request = $2 AND iccid = $3`
)

// Callbacks lists the kept callbacks that a filter selects, by request and
// ICCID. It holds no lock, and a page in memory. A request that it is asked for
// and does not find is license.ErrNotFound; one that was purged has none.
func (s *Store) Callbacks(ctx context.Context, f CallbackFilter) iter.Seq2[KeptCallback, error] {
	return func(yield func(KeptCallback, error) bool) {
		err := s.walkRequests(ctx, f, func(requests []license.Progress) (bool, error) {
			return s.walkCallbacks(ctx, f, requests, func(c KeptCallback) bool { return yield(c, nil) })
		})
		if err != nil {
			yield(KeptCallback{}, s.failed("listing callbacks", err))
		}
	}
}

// walkRequests calls do with the requests that a filter selects, some at a time,
// until it returns false.
func (s *Store) walkRequests(ctx context.Context, f CallbackFilter, do func([]license.Progress) (bool, error)) error {
	if f.Request != "" {
		p, err := s.Progress(ctx, f.Account, f.Request)
		if err == nil && p.Purged.IsZero() {
			_, err = do([]license.Progress{p})
		}
		return err
	}
	until := int64(math.MaxInt64)
	if !f.Until.IsZero() {
		until = micros(f.Until)
	}
	text, bound, at, id := requestsBefore, micros(f.Since), until, license.RequestID("")
	if f.OldestFirst {
		text, bound, at = requestsAfter, until, micros(f.Since)
	}
	if f.After.Request != "" {
		p, err := s.Progress(ctx, f.Account, f.After.Request)
		if err != nil {
			return err
		}
		at, id = micros(p.At), p.ID
		if more, err := do([]license.Progress{p}); err != nil || !more {
			return err
		}
	}
	for {
		page, err := collect(s.reader(ctx), func(scan func(...any) error) (license.Progress, error) {
			p := license.Progress{Account: f.Account}
			err := scan(&p.ID, &at, &p.Total, &p.SKU, &p.Action)
			p.At, id = fromMicros(at), p.ID
			return p, err
		}, text, string(f.Account), bound, at, string(id), requestPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for len(page) > 0 {
			n := atOnce(page)
			if more, err := do(page[:n]); err != nil || !more {
				return err
			}
			page = page[n:]
		}
	}
}

// atOnce is how many of the first requests have no more tasks than one
// statement reads; it is one at least.
func atOnce(requests []license.Progress) int {
	tasks := 0
	for i, p := range requests {
		if tasks += p.Total; i > 0 && tasks > callbackPage {
			return i
		}
	}
	return len(requests)
}

// walkCallbacks yields the callbacks of requests that one statement may read,
// or of a single one, in the order of the requests, and reports whether more are
// wanted.
func (s *Store) walkCallbacks(ctx context.Context, f CallbackFilter, requests []license.Progress, yield func(KeptCallback) bool) (more bool, err error) {
	place := make(map[license.RequestID]int, len(requests))
	for i, p := range requests {
		place[p.ID] = i
	}
	after, size := license.ICCID(""), callbackPage
	if len(requests) == 1 && requests[0].ID == f.After.Request {
		after = f.After.ICCID
	}
	if f.Page > 0 {
		size = min(max(f.Page, requestPage), callbackPage)
	}
	for {
		page, err := s.pageCallbacks(ctx, f, requests, after, size)
		if err != nil {
			return false, err
		}
		slices.SortFunc(page, func(a, b KeptCallback) int {
			return cmp.Or(cmp.Compare(place[a.Request], place[b.Request]), cmp.Compare(a.Device.ICCID, b.Device.ICCID))
		})
		for _, c := range page {
			if slices.Contains(f.States, c.State) && !yield(c.of(requests[place[c.Request]])) {
				return false, nil
			}
		}
		if len(page) < size || len(requests) > 1 {
			return true, nil
		}
		after = page[len(page)-1].Device.ICCID
	}
}

// pageCallbacks reads the callbacks of some requests, or a page of one's, the
// acknowledged ones only where a filter wants them.
func (s *Store) pageCallbacks(ctx context.Context, f CallbackFilter, requests []license.Progress, after license.ICCID, size int) ([]KeptCallback, error) {
	delivered := 0
	if slices.Contains(f.States, CallbackDelivered) {
		delivered = 1
	}
	if len(requests) == 1 {
		return collect(s.reader(ctx), scanCallback, callbacksOfOne,
			string(f.Account), string(requests[0].ID), delivered, string(after), size)
	}
	ids := make([]license.RequestID, len(requests))
	for i, p := range requests {
		ids[i] = p.ID
	}
	return collect(s.reader(ctx), scanCallback, callbacksOfSome, string(f.Account), delivered, only(ids))
}

// scanCallback reads what the task knows of a callback.
func scanCallback(scan func(...any) error) (c KeptCallback, err error) {
	var outcome string
	var phase license.Phase
	var latency, settled, ended, due int64
	err = scan(&c.Request, &c.Device.ICCID, &c.Lease, &c.Attempt, &c.Round, &outcome, &c.Code, &c.Comment,
		&c.Status, &latency, &settled, &ended, &due, &phase)
	c.State = stateOf(phase, c.Status, c.Attempt)
	c.OK, c.Latency = outcome == license.Done.String(), time.Duration(latency)*time.Microsecond
	if c.Settled, c.Ended = fromMicros(settled), fromMicros(ended); c.State != CallbackStuck {
		c.Due = fromMicros(due)
	}
	return c, err
}

func stateOf(phase license.Phase, status, attempts int) CallbackState {
	switch {
	case phase == license.PhaseCarrier:
		return CallbackCarrier
	case phase == license.PhaseStuck:
		return CallbackStuck
	case phase == license.PhaseListener:
		return CallbackWaiting
	case status >= 200 && status <= 299:
		return CallbackDelivered
	case attempts > 0:
		return CallbackUndelivered
	}
	return CallbackUnsent
}

// of is the callback with what its request knows.
func (c KeptCallback) of(p license.Progress) KeptCallback {
	c.Account, c.SKU, c.Action, c.Accepted = p.Account, p.SKU, p.Action, p.At
	return c
}

// Callback reads one callback, with all that is known of its device. It fails
// with license.ErrNotFound, also where its request was purged.
func (s *Store) Callback(ctx context.Context, account license.AccountName, request license.RequestID, iccid license.ICCID) (KeptCallback, error) {
	c, err := s.callback(ctx, account, request, iccid)
	return c, s.failed("reading a callback", err)
}

func (s *Store) callback(ctx context.Context, account license.AccountName, request license.RequestID, iccid license.ICCID) (KeptCallback, error) {
	p, err := s.Progress(ctx, account, request)
	if err != nil {
		return KeptCallback{}, err
	}
	c, err := first(s.reader(ctx), scanCallback, selectCallback, string(account), string(request), string(iccid))
	if err != nil {
		return KeptCallback{}, err
	}
	devices, _, err := describe(s.reader(ctx), account, []claimed{{key: taskKey{request, iccid}}}, []license.RequestID{request})
	c.Device = devices[iccid]
	return c.of(p), err
}

// Attempt is an attempt to deliver a callback that failed.
type Attempt struct {
	Round, Number int
	At            time.Time // when it ended
	Status        int       // 0: no answer
	Latency       time.Duration
	Answer        string // the first bytes, or the error in words
}

const selectAttempts = `SELECT round, number, time, status, latency, answer FROM attempt
	WHERE account = $1 AND request = $2 AND iccid = $3 ORDER BY round, number`

// Attempts lists the attempts to deliver a callback that failed, in all rounds.
func (s *Store) Attempts(ctx context.Context, account license.AccountName, request license.RequestID, iccid license.ICCID) ([]Attempt, error) {
	list, err := collect(s.reader(ctx), func(scan func(...any) error) (a Attempt, err error) {
		var at, latency int64
		err = scan(&a.Round, &a.Number, &at, &a.Status, &latency, &a.Answer)
		a.At, a.Latency = fromMicros(at), time.Duration(latency)*time.Microsecond
		return a, err
	}, selectAttempts, string(account), string(request), string(iccid))
	return list, s.failed("listing attempts", err)
}

// CanSend fails with license.ErrNoListener where an account's callbacks would go
// nowhere.
func (s *Store) CanSend(ctx context.Context, account license.AccountName) error {
	return s.failed("looking for a listener", needListener(s.reader(ctx), account))
}

func needListener(q querier, account license.AccountName) error {
	n, err := first(q, one[int64], hasListener, string(account), license.CarrierService)
	if err == nil && n == 0 {
		err = license.ErrNoListener
	}
	return err
}

// The tasks are there: an update by key, as in settleTasks. The attempts of
// former rounds stay.
const sendAgain = `INSERT INTO task (account, request, iccid, lease, phase, listener_due)
	SELECT $1, request, iccid, lease, 'listener', CAST($2 AS BIGINT)
	FROM {each $3 request TEXT, iccid TEXT, lease BIGINT} WHERE true
	ON CONFLICT (account, request, iccid) DO UPDATE SET phase = excluded.phase, listener_due = excluded.listener_due,
		lease = task.lease + 1, attempt = 0, round = task.round + 1, ended = 0
	WHERE task.lease = excluded.lease AND task.phase = 'ended'
	RETURNING request, iccid, lease`

// An endedTask is the fencing number of a callback that has ended, and whether
// nobody acknowledged it.
type endedTask struct {
	lease   int64
	unacked bool
}

// sendBatch is how many callbacks one transaction sends again.
const sendBatch = 500

// SendAgain has ended callbacks of an account sent again, at once and from the
// first attempt on: a new round under the same webhook-id. Those that are no
// longer as they were listed, since another operator was quicker or the purge,
// are left alone; it returns how many were not, also where it fails half way.
// It fails with license.ErrNotEnded, and then changes nothing, and with
// license.ErrNoListener.
func (s *Store) SendAgain(ctx context.Context, account license.AccountName, callbacks []KeptCallback, now time.Time) (queued int, err error) {
	given := make(map[taskKey]endedTask, len(callbacks))
	for _, c := range callbacks {
		if !c.State.Ended() {
			return 0, fmt.Errorf("callback %s is %s: %w", c.WebhookID(), c.State, license.ErrNotEnded)
		}
		given[taskKey{c.Request, c.Device.ICCID}] = endedTask{c.Lease, c.State != CallbackDelivered}
	}
	for keys := range slices.Chunk(slices.SortedFunc(maps.Keys(given), taskKey.compare), sendBatch) {
		var n int
		e := s.entry("callback.send", account, "")
		err := s.write(ctx, account, len(keys), func(tx *tx) (err error) {
			if n, err = sendKeysAgain(tx, account, keys, given, now); err == nil && n > 0 {
				err = tx.record(e, nil, sentFacts(keys, n))
			}
			return err
		})
		if err != nil {
			return queued, s.failed("sending callbacks again", err)
		}
		queued += n
	}
	return queued, nil
}

// sentFacts is what the audit says of callbacks that are sent again.
func sentFacts(keys []taskKey, n int) facts {
	f := facts{"callbacks": n, "first": keys[0].request, "last": keys[len(keys)-1].request}
	if len(keys) == 1 {
		f["iccid"] = keys[0].iccid
	}
	return f
}

// beganAgain takes callbacks back out of the count of those that ended.
const beganAgain = `UPDATE request SET ended = ended - $3, unacked = unacked - $4 WHERE account = $1 AND id = $2`

func sendKeysAgain(tx *tx, account license.AccountName, keys []taskKey, given map[taskKey]endedTask, now time.Time) (queued int, err error) {
	if err := needListener(tx, account); err != nil {
		return 0, err
	}
	request, iccid, lease := make([]string, len(keys)), make([]string, len(keys)), make([]int64, len(keys))
	for i, key := range keys {
		request[i], iccid[i], lease[i] = string(key.request), string(key.iccid), given[key].lease
	}
	var inserted []taskKey
	began, unacked := map[license.RequestID]int{}, map[license.RequestID]int{}
	_, err = collect(tx, func(scan func(...any) error) (key taskKey, err error) {
		var lease int64
		err = scan(&key.request, &key.iccid, &lease)
		switch {
		case err != nil:
		case lease == given[key].lease:
			inserted = append(inserted, key)
		default:
			queued++
			began[key.request]++
			if given[key].unacked {
				unacked[key.request]++
			}
		}
		return key, err
	}, sendAgain, string(account), micros(now), list{request, iccid, lease})
	if err != nil {
		return 0, err
	}
	for _, id := range slices.Sorted(maps.Keys(began)) {
		if _, err := tx.exec(beganAgain, string(account), string(id), began[id], unacked[id]); err != nil {
			return 0, err
		}
	}
	return queued, removeInserted(tx, account, inserted)
}
