package store

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

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
}

// The kinds of posting.
const (
	reserve = "reserve" // set aside, when an assign is accepted
	post    = "post"    // assigned, when the carrier did it
	void    = "void"    // given back, when the carrier refused
	release = "release" // given back, when the carrier unassigned it
)

const insertPosting = `INSERT INTO posting (account, request, number, sku, kind, units, time)
	SELECT $1, value ->> 0, CAST(value ->> 1 AS BIGINT), value ->> 2, value ->> 3, CAST(value ->> 4 AS BIGINT), $2
	FROM {each $3}`

func insertPostings(tx *tx, account license.AccountName, now time.Time, lines []posting) error {
	if len(lines) == 0 {
		return nil
	}
	list := make(rows, len(lines))
	for i, l := range lines {
		list[i] = []any{l.request, l.number, l.sku, l.kind, l.units}
	}
	param, err := list.param()
	if err != nil {
		return err
	}
	_, err = tx.exec(insertPosting, string(account), micros(now), param)
	return err
}

// SettleTasks writes down what the carrier said: licenses are posted, voided or
// released, and tasks whose device has ended move on to the listener. Outcomes
// whose lease is no longer the task's own change nothing.
func (s *Store) SettleTasks(ctx context.Context, p license.SettleParams) (settled license.Settled, err error) {
	if len(p.Outcomes) == 0 {
		return license.Settled{}, nil
	}
	byAccount := map[license.AccountName][]license.Outcome{}
	for _, o := range p.Outcomes {
		byAccount[o.Task.Account] = append(byAccount[o.Task.Account], o)
	}
	// One order of accounts for all nodes, so that they cannot deadlock.
	accounts := slices.Sorted(maps.Keys(byAccount))
	err = s.write(ctx, accounts[0], len(p.Outcomes), func(tx *tx) error {
		settled = license.Settled{}
		for _, account := range accounts {
			if err := settleAccount(tx, p, account, byAccount[account], &settled); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return license.Settled{}, s.failed("settling tasks", err)
	}
	return settled, nil
}

// A settlement is the part of a batch that concerns one account.
type settlement struct {
	tx      *tx
	p       license.SettleParams
	account license.AccountName
	given   map[taskKey]license.Outcome
	won     []wonTask // those whose lease still stood
}

type taskKey struct {
	request license.RequestID
	iccid   license.ICCID
}

// sortedKeys is the order in which tasks are locked.
func sortedKeys[T any](m map[taskKey]T) []taskKey {
	return slices.SortedFunc(maps.Keys(m), func(a, b taskKey) int {
		return cmp.Or(cmp.Compare(a.request, b.request), cmp.Compare(a.iccid, b.iccid))
	})
}

// wonTask is a task that an outcome was written to.
type wonTask struct {
	license.Outcome
	lease int64
	until time.Time
	prior license.RequestID
	phase license.Phase
}

func settleAccount(tx *tx, p license.SettleParams, account license.AccountName, outcomes []license.Outcome, settled *license.Settled) error {
	st := &settlement{tx: tx, p: p, account: account, given: make(map[taskKey]license.Outcome, len(outcomes))}
	for _, o := range outcomes {
		o.Code, o.Comment = clean(o.Code, maxCode), clean(o.Comment, maxComment)
		key := taskKey{o.Task.Request, o.Task.Device.ICCID}
		if o.Task.Lease >= st.given[key].Task.Lease {
			st.given[key] = o
		}
	}
	if err := st.tasks(); err != nil {
		return err
	}
	lines, err := st.requests()
	if err != nil {
		return err
	}
	if err := st.sims(); err != nil {
		return err
	}
	if err := insertPostings(tx, account, p.Now, lines); err != nil {
		return err
	}
	settled.Counted += len(st.won)
	for _, w := range st.won {
		switch {
		case w.phase != license.PhaseListener:
		case w.until.IsZero():
			settled.More = true
		default:
			settled.Callbacks = append(settled.Callbacks, w.callback())
		}
	}
	return st.pools(lines)
}

func (w wonTask) callback() license.Callback {
	t := w.Task
	return license.Callback{
		Request: t.Request, Action: t.Action, SKU: t.SKU, Account: t.Account, Device: t.Device,
		OK: w.Verdict == license.Done, Code: w.Code, Comment: w.Comment, Lease: w.lease, Until: w.until,
	}
}

const hasListener = `SELECT count(*) FROM listener WHERE account = $1 AND service = $2`

// The tasks are there, so nothing is inserted: this is an update by key, in the
// order of the list.
const settleTasks = `INSERT INTO task (account, request, iccid, lease, phase, due_at, leased, outcome, code, comment, settled, ended)
	SELECT $1, value ->> 0, value ->> 1, CAST(value ->> 2 AS BIGINT), value ->> 3, CAST(value ->> 4 AS BIGINT),
		CAST(value ->> 5 AS SMALLINT), value ->> 6, value ->> 7, value ->> 8, CAST($2 AS BIGINT),
		CASE WHEN value ->> 3 = 'ended' THEN CAST($2 AS BIGINT) ELSE 0 END
	FROM {each $3} WHERE true
	ON CONFLICT (account, request, iccid) DO UPDATE SET phase = excluded.phase, due_at = excluded.due_at,
		leased = excluded.leased, lease = task.lease + 1,
		attempt = CASE WHEN excluded.phase IN ('carrier', 'stuck') THEN task.attempt + 1 ELSE 0 END,
		outcome = excluded.outcome, code = excluded.code, comment = excluded.comment, settled = excluded.settled,
		ended = excluded.ended
	WHERE task.lease = excluded.lease AND task.phase IN ('carrier', 'stuck')
	RETURNING request, iccid, lease, prior, phase, leased`

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

// tasks moves the tasks on, and learns which outcomes count.
func (st *settlement) tasks() error {
	listeners, err := first(st.tx, one[int64], hasListener, string(st.account), license.CarrierService)
	if err != nil {
		return err
	}
	room := st.p.Room[st.account]
	list := make(rows, 0, len(st.given))
	for _, key := range sortedKeys(st.given) {
		o := st.given[key]
		line := []any{key.request, key.iccid, o.Task.Lease, license.PhaseCarrier, micros(o.Due), 0, "", o.Code, o.Comment}
		switch o.Verdict {
		case license.Retry, license.Later:
		case license.Stuck:
			line[3], line[4] = license.PhaseStuck, nil
		case license.Done, license.Refused:
			line[3], line[4] = license.PhaseListener, micros(st.p.Now)
			if listeners == 0 {
				line[3], line[4] = license.PhaseEnded, nil
			} else if room > 0 {
				room--
				line[4], line[5] = micros(st.p.LeaseUntil), 1
			}
			line[6] = o.Verdict.String()
		}
		list = append(list, line)
	}
	param, err := list.param()
	if err != nil {
		return err
	}
	var inserted []taskKey
	st.won, err = collect(st.tx, func(scan func(...any) error) (w wonTask, err error) {
		var key taskKey
		var leased int
		err = scan(&key.request, &key.iccid, &w.lease, &w.prior, &w.phase, &leased)
		w.Outcome = st.given[key]
		if err == nil && w.lease != w.Task.Lease+1 {
			inserted = append(inserted, key)
		}
		if leased == 1 {
			w.until = st.p.LeaseUntil
		}
		return w, err
	}, settleTasks, string(st.account), micros(st.p.Now), param)
	if err != nil {
		return err
	}
	st.won = slices.DeleteFunc(st.won, func(w wonTask) bool { return w.lease == w.Task.Lease })
	// The request's order, so that a listener hears of its devices in it.
	slices.SortFunc(st.won, func(a, b wonTask) int {
		return cmp.Or(cmp.Compare(a.Task.Request, b.Task.Request), cmp.Compare(a.Task.Device.ICCID, b.Task.Device.ICCID))
	})
	return removeInserted(st.tx, st.account, inserted)
}

// The requests are there: an update by key, as in settleTasks.
const countSettled = `INSERT INTO request (account, id, sku, action, time, total, succeeded, failed, postings)
	SELECT $1, value ->> 0, '', 'assign', 0, CAST(value ->> 1 AS BIGINT) + CAST(value ->> 2 AS BIGINT),
		CAST(value ->> 1 AS BIGINT), CAST(value ->> 2 AS BIGINT), CAST(value ->> 3 AS BIGINT)
	FROM {each $2} WHERE true
	ON CONFLICT (account, id) DO UPDATE SET succeeded = request.succeeded + excluded.succeeded,
		failed = request.failed + excluded.failed, postings = request.postings + excluded.postings
	RETURNING id, postings`

// requests counts the devices that ended in their requests' rows, and makes the
// lines of the ledger for them.
func (st *settlement) requests() (lines []posting, err error) {
	type count struct {
		task         license.Task
		done, failed int
		lines        []posting
	}
	counts := map[license.RequestID]*count{}
	for _, w := range st.won {
		if w.Verdict != license.Done && w.Verdict != license.Refused {
			continue
		}
		c := counts[w.Task.Request]
		if c == nil {
			c = &count{task: w.Task}
			counts[w.Task.Request] = c
		}
		if w.Verdict == license.Done {
			c.done++
		} else {
			c.failed++
		}
	}
	if len(counts) == 0 {
		return nil, nil
	}
	list := make(rows, 0, len(counts))
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		c := counts[id]
		c.lines = ledgerLines(c.task, c.done, c.failed)
		list = append(list, []any{id, c.done, c.failed, len(c.lines)})
	}
	param, err := list.param()
	if err != nil {
		return nil, err
	}
	type numbered struct {
		id   license.RequestID
		last int64
	}
	last, err := collect(st.tx, func(scan func(...any) error) (n numbered, err error) {
		return n, scan(&n.id, &n.last)
	}, countSettled, string(st.account), param)
	for _, n := range last {
		own := counts[n.id].lines
		for i := range own {
			own[i].number = n.last - int64(len(own)-1-i)
		}
		lines = append(lines, own...)
	}
	return lines, err
}

// ledgerLines is what the ends of some devices of one request mean for the
// ledger. A refused unassign means nothing: the license stays where it is.
func ledgerLines(t license.Task, done, failed int) (lines []posting) {
	if t.Action == license.Unassign {
		if done > 0 {
			lines = append(lines, posting{request: t.Request, sku: t.SKU, kind: release, units: done})
		}
		return lines
	}
	if done > 0 {
		lines = append(lines, posting{request: t.Request, sku: t.SKU, kind: post, units: done})
	}
	if failed > 0 {
		lines = append(lines, posting{request: t.Request, sku: t.SKU, kind: void, units: failed})
	}
	return lines
}

const freeSIMs = `UPDATE sim SET sku = '', request = '' WHERE account = $1 AND iccid {any $2}`

// sims frees the SIMs whose assign was refused or whose unassign was done, and
// points those whose unassign was refused back at the request that assigned
// them. An assign that was done has nothing to write: its SIM has the SKU, and
// its task is no longer at the carrier.
func (st *settlement) sims() error {
	var free []license.ICCID
	back := map[license.RequestID][]license.ICCID{}
	for _, w := range st.won {
		unassign := w.Task.Action == license.Unassign
		switch {
		case w.Verdict == license.Done && unassign, w.Verdict == license.Refused && !unassign:
			free = append(free, w.Task.Device.ICCID)
		case w.Verdict == license.Refused:
			back[w.prior] = append(back[w.prior], w.Task.Device.ICCID)
		}
	}
	if len(free) > 0 {
		list, err := params(free)
		if err == nil {
			_, err = st.tx.exec(freeSIMs, string(st.account), list)
		}
		if err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(back)) {
		list, err := params(back[id])
		if err == nil {
			_, err = st.tx.exec(touchSIMs, string(st.account), string(id), list)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const movePool = `UPDATE pool SET reserved = reserved + $3, assigned = assigned + $4
	WHERE account = $1 AND sku = $2`

// pools moves the balances by what the lines of the ledger say.
func (st *settlement) pools(lines []posting) error {
	type move struct{ reserved, assigned int }
	moves := map[license.SKU]move{}
	for _, l := range lines {
		m := moves[l.sku]
		switch l.kind {
		case post:
			m.reserved -= l.units
			m.assigned += l.units
		case void:
			m.reserved -= l.units
		case release:
			m.assigned -= l.units
		}
		moves[l.sku] = m
	}
	for _, sku := range slices.Sorted(maps.Keys(moves)) {
		m := moves[sku]
		if _, err := st.tx.exec(movePool, string(st.account), string(sku), m.reserved, m.assigned); err != nil {
			return err
		}
	}
	return nil
}
