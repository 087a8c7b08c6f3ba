package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// A posting is one line of the ledger: so many units of a request. There is one
// for each settled batch, not for each device; who holds what stands in the
// SIMs and tasks.
type posting struct {
	request license.RequestID
	number  int64
	sku     license.SKU
	kind    string
	units   int
	at      time.Time
}

// The kinds of posting.
const (
	reserve = "reserve" // set aside, when an assign is accepted
	post    = "post"    // assigned, when the carrier did it
	void    = "void"    // given back, when the carrier refused
	release = "release" // given back, when the carrier unassigned it
)

const insertPosting = `INSERT INTO posting (account, request, number, sku, kind, units, time)
	SELECT $1, request, number, sku, kind, units, time
	FROM {each $2 request TEXT, number BIGINT, sku TEXT, kind TEXT, units BIGINT, time BIGINT}`

func insertPostings(account license.AccountName, lines []posting) step {
	n := len(lines)
	request, sku, kind := make([]string, n), make([]string, n), make([]string, n)
	number, units, at := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, l := range lines {
		request[i], sku[i], kind[i] = string(l.request), string(l.sku), l.kind
		number[i], units[i], at[i] = l.number, int64(l.units), micros(l.at)
	}
	return step{text: insertPosting, args: []any{string(account), list{request, number, sku, kind, units, at}}}
}

// SettleTasks writes down what the carrier said: licenses are posted, voided or
// released, and tasks whose device has ended move on to the listener. Outcomes
// whose lease is no longer the task's own change nothing.
func (s *Store) SettleTasks(ctx context.Context, p license.SettleParams) (license.Settled, error) {
	return s.settleWith(ctx, p, func(*tx, license.Settled) error { return nil })
}

// settleWith is SettleTasks, and in the same transaction what is to be done with
// what came of it.
func (s *Store) settleWith(ctx context.Context, p license.SettleParams, also func(*tx, license.Settled) error) (settled license.Settled, err error) {
	if len(p.Outcomes) == 0 {
		return license.Settled{}, nil
	}
	accounts, parts := byAccount(p.Outcomes, func(o *license.Outcome) license.AccountName { return o.Task.Account })
	err = trusting(ctx, s, parts, func(tx *tx, trust bool) error {
		settled = license.Settled{}
		for _, account := range accounts {
			st := newSettlement(tx, p, account, parts[account])
			st.trust, st.listens = trust, &s.listens
			if err := st.run(&settled); err != nil {
				return err
			}
		}
		return also(tx, settled)
	})
	if err != nil {
		return license.Settled{}, s.failed("settling tasks", err)
	}
	crash.At(crash.SettleCommitted)
	return settled, nil
}

// A settlement is the part of a batch that concerns one account.
type settlement struct {
	tx      *tx
	p       license.SettleParams
	account license.AccountName
	trust   bool               // that all leases stand
	given   []*license.Outcome // one for each task, in the order of their keys
	won     []wonTask          // those whose lease still stood, in the same order
	wholes  []wonTask          // the first task of each request that is settled whole, and alike
	listens *sync.Map          // what the last settlement found, by account: whether it has a listener
}

type taskKey struct {
	request license.RequestID
	iccid   license.ICCID
}

func keyOf(o *license.Outcome) taskKey { return taskKey{o.Task.Request, o.Task.Device.ICCID} }

// compare is the order in which tasks are locked.
func (k taskKey) compare(other taskKey) int {
	return cmp.Or(cmp.Compare(k.request, other.request), cmp.Compare(k.iccid, other.iccid))
}

// inOrder sorts by task and leaves one value for each, that of the latest lease.
func inOrder[T any](list []T, key func(*T) taskKey, lease func(*T) int64) []*T {
	sorted := make([]*T, len(list))
	for i := range list {
		sorted[i] = &list[i]
	}
	order := func(a, b *T) int { return cmp.Or(key(a).compare(key(b)), -cmp.Compare(lease(a), lease(b))) }
	if !slices.IsSortedFunc(sorted, order) {
		slices.SortStableFunc(sorted, order)
	}
	return slices.CompactFunc(sorted, func(a, b *T) bool { return key(a) == key(b) })
}

// find is the place of a task in a list in order; next is where it should be.
func find[T any](list []*T, key func(*T) taskKey, want taskKey, next int) int {
	if next < len(list) && key(list[next]) == want {
		return next
	}
	i, _ := slices.BinarySearchFunc(list, want, func(v *T, want taskKey) int { return key(v).compare(want) })
	return i
}

// wonTask is a task that an outcome was written to.
type wonTask struct {
	*license.Outcome
	move

	lease int64
	prior license.RequestID
}

// A move is where an outcome takes its task.
type move struct {
	phase license.Phase
	due   time.Time // in its new phase
	until time.Time // instead of due, when it is leased on
}

func newSettlement(tx *tx, p license.SettleParams, account license.AccountName, outcomes []license.Outcome) *settlement {
	return &settlement{
		tx: tx, p: p, account: account,
		given: inOrder(outcomes, keyOf, func(o *license.Outcome) int64 { return o.Task.Lease }),
	}
}

func (st *settlement) run(settled *license.Settled) error {
	crash.At(crash.SettleBegun)
	lines, err := st.settle()
	if err != nil {
		return err
	}
	crash.At(crash.SettleCounted)
	st.tx.wait()
	if err := st.sims(); err != nil {
		return err
	}
	crash.At(crash.SettleFreed)
	settled.Counted += len(st.won)
	settled.Callbacks = slices.Grow(settled.Callbacks, len(st.won))
	for i := range st.won {
		switch w := &st.won[i]; {
		case w.phase != license.PhaseListener:
		case w.until.IsZero():
			settled.More = true
		default:
			settled.Callbacks = append(settled.Callbacks, w.callback())
		}
	}
	if err := st.tx.together(st.book(lines)...); err != nil {
		return err
	}
	crash.At(crash.SettleWritten)
	return nil
}

// settle writes the tasks and counts them in their requests. What it can, it books as
// well: lines is what is left.
func (st *settlement) settle() (lines []posting, err error) {
	listens, steps, err := st.hasListener()
	if err != nil {
		return nil, err
	}
	moves := st.moves(listens)
	if st.trust && !slices.ContainsFunc(st.given, needsAnswer) {
		steps = append(steps, st.all(moves)...)
	} else if err := st.tasks(moves); err != nil {
		return nil, err
	}
	steps = append(steps, st.countWholes(&lines)...)
	counts := st.requests(&lines)
	steps = append(steps, counts...)
	if len(counts) == 0 && !slices.ContainsFunc(st.won, movesSIM) {
		steps = append(steps, st.book(lines)...)
		lines = nil
	}
	return lines, st.tx.inParts(steps...)
}

func (w *wonTask) callback() license.Callback {
	t := w.Task
	return license.Callback{
		Request: t.Request, Action: t.Action, SKU: t.SKU, Account: t.Account, Device: t.Device,
		OK: w.Verdict == license.Done, Code: clean(w.Code, maxCode), Comment: clean(w.Comment, maxComment),
		Place: t.Place, Trace: t.Trace, Lease: w.lease, Until: w.until,
	}
}

const hasListener = `SELECT count(*) FROM listener WHERE account = $1 AND service = $2`

// The tasks are there, so nothing is inserted: this is an update by key, in the
// order of the list.
const settleTasks = `INSERT INTO task (account, request, iccid, lease, phase, carrier_due, listener_due, lease_end,
		outcome, code, comment, settled, ended)
	SELECT $1, request, iccid, lease, phase, NULLIF(carrier_due, 0), NULLIF(listener_due, 0), lease_end, outcome, code, comment, CAST($2 AS BIGINT),
		CASE WHEN phase = 'ended' THEN CAST($2 AS BIGINT) ELSE 0 END
	FROM {each $3 request TEXT, iccid TEXT, lease BIGINT, phase TEXT, carrier_due BIGINT, listener_due BIGINT,
		lease_end BIGINT, outcome TEXT, code TEXT, comment TEXT}
	WHERE true
	ON CONFLICT (account, request, iccid) DO UPDATE SET phase = excluded.phase, carrier_due = excluded.carrier_due,
		listener_due = excluded.listener_due,
		lease_end = excluded.lease_end, lease = task.lease + 1,
		attempt = CASE WHEN excluded.phase IN ('carrier', 'stuck') THEN task.attempt + 1 ELSE 0 END,
		outcome = excluded.outcome, code = excluded.code, comment = excluded.comment, settled = excluded.settled,
		ended = excluded.ended
	WHERE task.lease = excluded.lease AND task.phase IN ('carrier', 'stuck')
	RETURNING request, iccid, lease, prior`

const removeTask = `DELETE FROM task WHERE account = $1 AND request = $2 AND iccid = $3`

// removeInserted takes back what an update by key inserted: rows of tasks that
// were purged since they were leased, long ago.
func removeInserted(tx *tx, account license.AccountName, keys []taskKey) error {
	for _, key := range keys {
		if _, err := tx.exec(removeTask, string(account), string(key.request), string(key.iccid)); err != nil {
			return err
		}
	}
	return nil
}

// hasListener says whether the account has one. Where all goes as it should, that is
// what the last settlement found, and the step sees whether it still is so.
func (st *settlement) hasListener() (listens bool, steps []step, err error) {
	var n int64
	look := step{
		text: hasListener, args: []any{string(st.account), license.CarrierService},
		row: func(scan func(...any) error) error { return scan(&n) },
	}
	if st.trust {
		if before, ok := st.listens.Load(st.account); ok {
			listens, _ = before.(bool)
			look.check = func(int64) error {
				if listens != (n > 0) {
					return errTorn
				}
				return nil
			}
			return listens, []step{look}, nil
		}
	}
	if err := st.tx.together(look); err != nil {
		return false, nil, err
	}
	if st.listens != nil {
		st.listens.Store(st.account, n > 0)
	}
	return n > 0, nil, nil
}

// moves says where each outcome takes its task.
func (st *settlement) moves(listens bool) []move {
	room := st.p.Room[st.account]
	moves := make([]move, len(st.given))
	for i := range st.given {
		m := &moves[i]
		switch o := st.given[i]; o.Verdict {
		case license.Retry, license.Later:
			m.phase, m.due = license.PhaseCarrier, o.Due
			if m.due.IsZero() {
				m.due = st.p.Now
			}
		case license.Stuck:
			m.phase = license.PhaseStuck
		case license.Done, license.Refused:
			switch {
			case !listens:
				m.phase = license.PhaseEnded
			case room > 0:
				room--
				m.phase, m.until = license.PhaseListener, st.p.LeaseUntil
			default:
				m.phase, m.due = license.PhaseListener, st.p.Now
			}
		}
	}
	return moves
}

// needsAnswer reports whether an outcome takes more than the number of rows that
// were written. What a refused unassign points its SIM back at must be read. And
// only of what ended do the counts of the request tell that its task was there:
// a row inserted in the place of one that was purged breaks their rule.
func needsAnswer(o *license.Outcome) bool {
	switch o.Verdict {
	case license.Done:
		return false
	case license.Refused:
		return o.Task.Action == license.Unassign
	case license.Retry, license.Later, license.Stuck:
	}
	return true
}

// rows is the list of settleTasks.
func (st *settlement) rows(given []*license.Outcome, moves []move) list {
	n := len(given)
	request, iccid, phase := make([]string, n), make([]string, n), make([]string, n)
	outcome, code, comment := make([]string, n), make([]string, n), make([]string, n)
	lease, carrierDue, listenerDue, leaseEnd := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, o := range given {
		m := &moves[i]
		request[i], iccid[i], lease[i] = string(o.Task.Request), string(o.Task.Device.ICCID), o.Task.Lease
		phase[i], leaseEnd[i] = string(m.phase), micros(m.until)
		switch m.phase {
		case license.PhaseCarrier:
			carrierDue[i] = micros(m.due)
		case license.PhaseStuck:
			carrierDue[i] = neverDue
		case license.PhaseListener, license.PhaseEnded:
			listenerDue[i] = micros(m.due)
		}
		if o.Verdict == license.Done || o.Verdict == license.Refused {
			outcome[i] = o.Verdict.String()
		}
		code[i], comment[i] = clean(o.Code, maxCode), clean(o.Comment, maxComment)
	}
	return list{request, iccid, lease, phase, carrierDue, listenerDue, leaseEnd, outcome, code, comment}
}

// tasks moves the tasks on, and learns which outcomes count.
func (st *settlement) tasks(moves []move) (err error) {
	var inserted []taskKey
	next := 0
	st.won, err = collect(st.tx, func(scan func(...any) error) (w wonTask, err error) {
		var request, iccid, prior string
		if err := scan(&request, &iccid, &w.lease, &prior); err != nil {
			return w, err
		}
		key := taskKey{license.RequestID(request), license.ICCID(iccid)}
		i := find(st.given, keyOf, key, next)
		next = i + 1
		w.Outcome, w.move, w.prior = st.given[i], moves[i], license.RequestID(prior)
		if w.lease != w.Task.Lease+1 {
			inserted = append(inserted, key)
		}
		return w, nil
	}, settleTasks, string(st.account), micros(st.p.Now), st.rows(st.given, moves))
	if err != nil {
		return err
	}
	if len(inserted) > 0 {
		st.won = slices.DeleteFunc(st.won, func(w wonTask) bool { return w.lease == w.Task.Lease })
	}
	// The request's order, so that a listener hears of its devices in it.
	order := func(a, b wonTask) int { return keyOf(a.Outcome).compare(keyOf(b.Outcome)) }
	if !slices.IsSortedFunc(st.won, order) {
		slices.SortFunc(st.won, order)
	}
	return removeInserted(st.tx, st.account, inserted)
}

const freeSIMs = `UPDATE sim SET sku = '', request = '' WHERE account = $1 AND iccid {any $2}`

// movesSIM reports whether a task's outcome is written to its SIM.
func movesSIM(w wonTask) bool {
	return w.Verdict == license.Refused || w.Verdict == license.Done && w.Task.Action == license.Unassign
}

// sims frees the SIMs whose assign was refused or whose unassign was done, and
// points those whose unassign was refused back at the request that assigned
// them. An assign that was done has nothing to write: its SIM has the SKU, and
// its task is no longer at the carrier.
func (st *settlement) sims() error {
	var free []license.ICCID
	back := map[license.RequestID][]license.ICCID{}
	for i := range st.won {
		w := &st.won[i]
		unassign := w.Task.Action == license.Unassign
		switch {
		case w.Verdict == license.Done && unassign, w.Verdict == license.Refused && !unassign:
			free = append(free, w.Task.Device.ICCID)
		case w.Verdict == license.Refused:
			back[w.prior] = append(back[w.prior], w.Task.Device.ICCID)
		}
	}
	if len(free) > 0 {
		if _, err := st.tx.exec(freeSIMs, string(st.account), only(free)); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(back)) {
		if _, err := st.tx.exec(touchSIMs, string(st.account), string(id), only(back[id])); err != nil {
			return err
		}
	}
	return nil
}
