package store

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// Accept takes a request in, whole or not at all: it reserves a license for
// each device of an assign, marks each device of an unassign as in transition,
// and writes the tasks. The devices are completed with what the inventory knows.
// Small requests of one account that come at once share a transaction.
//
// Run again with the same request, or with the same idempotency key and body,
// it changes nothing and returns the ID that stands. It fails with
// license.ErrKeyReused for the same key with another body, a
// *license.PolicyError, a *license.DevicesError of ErrUnknownDevice,
// ErrDuplicate, ErrNotActive, ErrNotEligible, ErrHeld or ErrNotHeld, or
// license.ErrInsufficient, in this order where several apply.
func (s *Store) Accept(ctx context.Context, p license.AcceptParams) (accepted license.Accepted, err error) {
	r := *p.Request
	if r.Devices, err = s.resolve(ctx, r.Account, r.Devices); err != nil {
		return license.Accepted{}, s.failed("looking devices up", err)
	}
	// The devices may have been sorted anew, so two of them may be one SIM now.
	if twice := license.SortDevices(r.Devices); len(twice) > 0 {
		return license.Accepted{}, s.failed("checking devices", s.whyNot(ctx, &r))
	}
	p.Request = &r
	together, err := s.blockOf(ctx, &r)
	if err != nil {
		return license.Accepted{}, s.failed("reading SIMs", err)
	}
	accepted, err = s.acceptAs(ctx, p, together)
	if errors.Is(err, errNotAll) {
		// Which device is at fault is found out of the writer's time. Should
		// nothing be wrong any more, one was held when it counted.
		if err = s.whyNot(ctx, &r); err == nil {
			err = &license.DevicesError{Err: license.ErrHeld, Devices: r.Devices}
		}
	}
	if err != nil {
		return license.Accepted{}, s.failed("accepting a request", err)
	}
	crash.At(crash.AcceptCommitted)
	if len(accepted.Tasks) > 0 && len(r.Devices) <= littleMost {
		s.littles.expect(r.Account)
	}
	return accepted, nil
}

// acceptAs accepts a request as a block, or as any other where that changed since it
// was read.
func (s *Store) acceptAs(ctx context.Context, p license.AcceptParams, b *block) (license.Accepted, error) {
	accepted, err := s.combiner.accept(ctx, p, b)
	if errors.Is(err, errNotBlock) {
		accepted, err = s.combiner.accept(ctx, p, nil)
	}
	return accepted, err
}

// whyNot finds out why a request was not taken: its account's policy, or the
// devices.
func (s *Store) whyNot(ctx context.Context, r *license.Request) error {
	q := s.reader(ctx)
	if err := refusal(q, r); err != nil {
		return err
	}
	return s.refuse(q, r)
}

// errNotAll says that some device could not be taken, and not yet which.
var errNotAll = errors.New("not all devices can be taken")

// errReplay says that a request was accepted before.
var errReplay = errors.New("accepted before")

// errApart says that of several requests one needs an answer of its own.
var errApart = errors.New("not all requests can be accepted together")

// An acceptance is one transaction that accepts requests of one account. No two
// of them name one SIM or one idempotency key.
type acceptance struct {
	tx      *tx
	account license.AccountName
	params  []license.AcceptParams
	block   *block        // of a request that is alone; may be nil
	taken   []taken       // the devices of all, sorted by ICCID
	closely []reservation // what reservePool has passed by
}

// acceptTogether accepts several requests, or none of them: errApart says that
// one is not like the others, and anything else that is refused is of one of
// them, which it does not tell.
func acceptTogether(tx *tx, params []license.AcceptParams, b *block) ([]license.Accepted, error) {
	crash.At(crash.AcceptBegun)
	a := acceptance{tx: tx, account: params[0].Request.Account, params: params, block: b}
	for i := range params {
		if params[i].IdempotencyKey == "" {
			continue
		}
		if id, err := claimKey(tx, params[i]); err != nil {
			return nil, err
		} else if id != params[i].Request.ID {
			return a.replay(id)
		}
		crash.At(crash.AcceptKeyed)
	}
	if err := a.write(); err != nil {
		return nil, err
	}
	crash.At(crash.AcceptWritten)
	return a.accepted(), nil
}

// write writes the requests, the SIMs, the tasks and the reservations. Only what an
// unassign takes hold of must be read before its tasks are written.
func (a *acceptance) write() error {
	assign, unassign := a.wanted()
	a.taken = slices.Concat(assign, unassign)
	assign, unassign = a.taken[:len(assign)], a.taken[len(assign):]
	steps := []step{a.insertRequests()}
	switch {
	case len(unassign) == 0:
	case a.block != nil:
		steps = append(steps, a.takeBlockBack(unassign)...)
	default:
		if err := a.tx.together(steps...); err != nil {
			return err
		}
		for part := range portions(a.tx, unassign) {
			if err := a.takeForUnassign(part); err != nil {
				return err
			}
		}
		crash.At(crash.AcceptTaken)
		steps = steps[:0]
	}
	if len(assign) > 0 {
		steps = append(steps, a.takeForAssign(assign)...)
	}
	a.place()
	steps = append(steps, a.insertTasks()...)
	if err := a.tx.inParts(append(steps, a.reserve()...)...); err != nil {
		return err
	}
	return a.reserveClosely()
}

// replay is the answer to a request that was accepted before, as id.
func (a *acceptance) replay(id license.RequestID) ([]license.Accepted, error) {
	if len(a.params) > 1 {
		return nil, errApart
	}
	return []license.Accepted{{ID: id, Replay: true, More: true}}, a.tx.confirm()
}

// lease_end is of the tasks that are born leased.
const insertRequests = `INSERT INTO request (account, id, sku, action, time, application, username, trace, total, postings, lease_end)
	SELECT $1, id, sku, action, time, application, username, trace, total, CASE WHEN action = 'assign' THEN 1 ELSE 0 END,
		NULLIF(lease_end, 0)
	FROM {each $2 id TEXT, sku TEXT, action TEXT, time BIGINT, application TEXT, username TEXT, trace TEXT, total BIGINT, lease_end BIGINT}
	WHERE true
	ON CONFLICT (account, id) DO NOTHING
	RETURNING 1`

// insertRequests fails with errReplay where one was there before.
func (a *acceptance) insertRequests() step {
	n := len(a.params)
	var id, sku, action, application, username, trace []string
	at, total, leaseEnd := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, p := range a.params {
		r := p.Request
		id, sku, action = append(id, string(r.ID)), append(sku, string(r.SKU)), append(action, string(r.Action))
		application, username, trace = append(application, p.Application), append(username, p.User), append(trace, p.Trace)
		at[i], total[i] = micros(r.At), int64(len(r.Devices))
		if p.Room > 0 {
			leaseEnd[i] = micros(p.LeaseUntil)
		}
	}
	return step{
		text: insertRequests, row: unread,
		args: []any{string(a.account), list{id, sku, action, at, application, username, trace, total, leaseEnd}},
		check: func(inserted int64) error {
			if inserted < int64(n) {
				return errReplay
			}
			return nil
		},
	}
}

// taken is a device that a request has laid hold of, or is to.
type taken struct {
	device  license.Device
	request int    // its index
	place   int    // in the request
	prior   string // of an unassign: the request that assigned it
}

// wanted are the devices of all requests. SIMs are locked by ICCID.
func (a *acceptance) wanted() (assign, unassign []taken) {
	for i, p := range a.params {
		of := &unassign
		if p.Request.Action == license.Assign {
			of = &assign
		}
		*of = slices.Grow(*of, len(p.Request.Devices))
		for _, d := range p.Request.Devices {
			*of = append(*of, taken{device: d, request: i})
		}
	}
	byICCID := func(a, b taken) int { return cmp.Compare(a.device.ICCID, b.device.ICCID) }
	if len(a.params) > 1 { // those of one are in order
		slices.SortFunc(assign, byICCID)
		slices.SortFunc(unassign, byICCID)
	}
	return assign, unassign
}

// The SIMs are there: an update by key, as in settleTasks. What it might insert
// all the same would have no number.
const takeSIMs = `INSERT INTO sim (account, iccid, sku, request, imei, state, generation, number, added)
	SELECT $1, iccid, sku, request, '', '', '', 0, 0 FROM {each $2 iccid TEXT, sku TEXT, request TEXT} WHERE true
	ON CONFLICT (account, iccid) DO UPDATE SET sku = excluded.sku, request = excluded.request
	WHERE sim.sku = '' AND sim.state = 'active' AND sim.generation = '4G'
	RETURNING iccid, imei, mdn, number`

// takeForAssign gives the SKU to each SIM, if all are free and eligible, and
// completes the devices.
func (a *acceptance) takeForAssign(want []taken) (steps []step) {
	if a.block != nil {
		return a.takeBlock(want)
	}
	for part := range portions(a.tx, want) {
		steps = append(steps, a.takeSIMs(part))
	}
	return steps
}

func (a *acceptance) takeSIMs(want []taken) step {
	iccid, sku, request := make([]string, len(want)), make([]string, len(want)), make([]string, len(want))
	for i, w := range want {
		r := a.params[w.request].Request
		iccid[i], sku[i], request[i] = string(w.device.ICCID), string(r.SKU), string(r.ID)
	}
	got := make([]taken, 0, len(want))
	return step{
		text: takeSIMs, args: []any{string(a.account), list{iccid, sku, request}},
		row: func(scan func(...any) error) error {
			var iccid, imei, mdn string
			var number int64
			err := scan(&iccid, &imei, &mdn, &number)
			if err == nil && number == 0 {
				err = errNotAll
			}
			got = append(got, taken{device: license.Device{ICCID: license.ICCID(iccid), IMEI: license.IMEI(imei), MDN: license.MDN(mdn)}})
			return err
		},
		check: func(int64) error { return match(want, got) },
	}
}

const lockSIMs = `SELECT iccid, imei, mdn, sku, request FROM sim
	WHERE account = $1 AND iccid {any $2} ORDER BY iccid {wait}`

// A scalar subquery, which no planner turns into a join.
const selectPending = `SELECT each.iccid FROM {each $2 request TEXT, iccid TEXT}
	WHERE (SELECT phase FROM task t WHERE t.account = $1 AND t.request = each.request AND t.iccid = each.iccid)
		IN ('carrier', 'stuck')`

const touchSIMs = `UPDATE sim SET request = $2 WHERE account = $1 AND iccid {any $3}`

// takeForUnassign marks each SIM as in transition, if all hold the SKU and none
// is in transition already.
func (a *acceptance) takeForUnassign(want []taken) error {
	a.tx.wait()
	var skus []license.SKU
	got, err := collect(a.tx, func(scan func(...any) error) (t taken, err error) {
		var sku license.SKU
		err = scan(&t.device.ICCID, &t.device.IMEI, &t.device.MDN, &sku, &t.prior)
		skus = append(skus, sku)
		return t, err
	}, lockSIMs, string(a.account), only(iccids(want)))
	if err == nil {
		err = match(want, got)
	}
	if err != nil {
		return err
	}
	// The SIMs are locked, so none can come to be pending any more.
	held := make([]pair, len(want))
	byRequest := map[int][]license.ICCID{}
	for i, w := range want {
		if skus[i] != a.params[w.request].Request.SKU {
			return errNotAll
		}
		held[i] = pair{w.prior, w.device.ICCID}
		byRequest[w.request] = append(byRequest[w.request], w.device.ICCID)
	}
	a.tx.wait()
	pending, err := pendingAmong(a.tx, a.account, held)
	if err != nil {
		return err
	}
	if len(pending) > 0 {
		return errNotAll
	}
	a.tx.wait()
	for _, i := range slices.Sorted(maps.Keys(byRequest)) {
		if _, err := a.tx.exec(touchSIMs, string(a.account), string(a.params[i].Request.ID), only(byRequest[i])); err != nil {
			return err
		}
	}
	return nil
}

func iccids(list []taken) []license.ICCID {
	out := make([]license.ICCID, len(list))
	for i, t := range list {
		out[i] = t.device.ICCID
	}
	return out
}

// match completes the devices wanted, which are sorted by ICCID, from those that
// were got, which must be the same, also in the IMEI where one was given. It
// sorts those.
func match(want, got []taken) error {
	if len(got) != len(want) {
		return errNotAll
	}
	byICCID := func(a, b taken) int { return cmp.Compare(a.device.ICCID, b.device.ICCID) }
	if !slices.IsSortedFunc(got, byICCID) {
		slices.SortFunc(got, byICCID)
	}
	for i := range want {
		w, g := &want[i], &got[i]
		if g.device.ICCID != w.device.ICCID || w.device.IMEI != "" && w.device.IMEI != g.device.IMEI {
			return errNotAll
		}
		w.device, w.prior = g.device, g.prior
	}
	return nil
}

// A pair is a request that last touched a SIM, and the SIM.
type pair struct {
	request string
	iccid   license.ICCID
}

// pendingAmong finds those SIMs that are in transition, either way.
func pendingAmong(q querier, account license.AccountName, held []pair) ([]license.ICCID, error) {
	request, iccid := make([]string, len(held)), make([]string, len(held))
	for i, h := range held {
		request[i], iccid[i] = h.request, string(h.iccid)
	}
	return collect(q, one[license.ICCID], selectPending, string(account), list{request, iccid})
}

// A task is leased, or due.
const insertTasks = `INSERT INTO task (account, request, iccid, place, phase, carrier_due, lease_end, prior)
	SELECT $1, request, iccid, place, 'carrier', NULLIF(carrier_due, 0), lease_end, prior
	FROM {each $2 request TEXT, iccid TEXT, place BIGINT, carrier_due BIGINT, lease_end BIGINT, prior TEXT}`

// place gives each device its place in its request.
func (a *acceptance) place() {
	placed := make([]int, len(a.params))
	for i := range a.taken {
		t := &a.taken[i]
		placed[t.request]++
		t.place = placed[t.request]
	}
}

// insertTasks writes a task for each device: as many of each request as there is
// room for are born leased to the caller, the others are due at once.
func (a *acceptance) insertTasks() (steps []step) {
	if len(a.params) == 1 && (a.params[0].Request.Action == license.Assign || a.block != nil) {
		return a.insertAlike()
	}
	for part := range portions(a.tx, a.taken) {
		steps = append(steps, a.insertMixed(part))
	}
	return steps
}

func (a *acceptance) insertMixed(devices []taken) step {
	n := len(devices)
	request, iccid, prior := make([]string, n), make([]string, n), make([]string, n)
	place, dueAt, leaseEnd := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, t := range devices {
		p := &a.params[t.request]
		request[i], iccid[i], prior[i], place[i] = string(p.Request.ID), string(t.device.ICCID), t.prior, int64(t.place)
		if t.place <= p.Room {
			leaseEnd[i] = micros(p.LeaseUntil)
		} else {
			dueAt[i] = micros(p.Request.At)
		}
	}
	return step{text: insertTasks, args: []any{string(a.account), list{request, iccid, place, dueAt, leaseEnd, prior}}}
}

const insertTasksOf = `INSERT INTO task (account, request, iccid, place, phase, carrier_due, lease_end, prior)
	SELECT $1, $2, iccid, place, 'carrier', NULLIF(CAST($3 AS BIGINT), 0), $4, $5 FROM {each $6 iccid TEXT, place BIGINT}`

// insertAlike writes the tasks of the one request, of which many in a row are alike:
// what they have in common travels once.
func (a *acceptance) insertAlike() (steps []step) {
	p, n := a.params[0], len(a.taken)
	leased := min(max(p.Room, 0), n)
	for from, to := 0, 0; from < n; from = to {
		first := a.taken[from]
		for to = from + 1; to < n && to != leased && a.taken[to].prior == first.prior; to++ {
		}
		due, leaseEnd := micros(p.Request.At), int64(0)
		if from < leased {
			due, leaseEnd = 0, micros(p.LeaseUntil)
		}
		for some := range portions(a.tx, a.taken[from:to]) {
			steps = append(steps, step{text: insertTasksOf, args: []any{
				string(a.account), string(p.Request.ID), due, leaseEnd, first.prior, placesOf(some),
			}})
		}
	}
	return steps
}

// placesOf are devices with their places in the request, as insertTasksOf has them.
func placesOf(devices []taken) list {
	iccid, place := make([]string, len(devices)), make([]int64, len(devices))
	for i, t := range devices {
		iccid[i], place[i] = string(t.device.ICCID), int64(t.place)
	}
	return list{iccid, place}
}

// accepted are the requests with their tasks that were born leased.
func (a *acceptance) accepted() []license.Accepted {
	accepted := make([]license.Accepted, len(a.params))
	for i, p := range a.params {
		leased := min(max(p.Room, 0), len(p.Request.Devices))
		accepted[i] = license.Accepted{
			ID: p.Request.ID, Tasks: make([]license.Task, 0, leased), More: leased < len(p.Request.Devices),
		}
	}
	for _, t := range a.taken {
		p, to := &a.params[t.request], &accepted[t.request]
		r := p.Request
		if t.place <= p.Room {
			to.Tasks = append(to.Tasks, license.Task{
				Request: r.ID, Account: r.Account, SKU: r.SKU, Action: r.Action,
				Device: t.device, At: r.At, Place: t.place, Of: len(r.Devices), Trace: p.Trace, Lease: 1, Until: p.LeaseUntil,
			})
		}
	}
	return accepted
}
