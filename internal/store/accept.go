package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// keepIdempotency is how long a key stands for its first answer.
const keepIdempotency = 24 * time.Hour

// Accept takes a request in, whole or not at all: it reserves a license for
// each device of an assign, marks each device of an unassign as in transition,
// and writes the tasks. The devices are completed with what the inventory knows.
//
// Run again with the same request, or with the same idempotency key and body,
// it changes nothing and returns the ID that stands. It fails with
// license.ErrKeyReused for the same key with another body, a
// *license.DevicesError of ErrUnknownDevice, ErrDuplicate, ErrNotActive,
// ErrNotEligible, ErrHeld or ErrNotHeld, or license.ErrInsufficient, in this
// order where several apply.
func (s *Store) Accept(ctx context.Context, p license.AcceptParams) (accepted license.Accepted, err error) {
	r := *p.Request
	if r.Devices, err = s.resolve(ctx, r.Account, r.Devices); err != nil {
		return license.Accepted{}, s.failed("looking devices up", err)
	}
	// The devices may have been sorted anew, so two of them may be one SIM now.
	if twice := license.SortDevices(r.Devices); len(twice) > 0 {
		return license.Accepted{}, s.failed("checking devices", s.refuse(s.reader(ctx), &r))
	}
	p.Request = &r
	err = s.write(ctx, r.Account, len(r.Devices), func(tx *tx) (err error) {
		accepted, err = accept(tx, p)
		return err
	})
	if errors.Is(err, errNotAll) {
		// Which device is at fault is found out of the writer's time. Should
		// nothing be wrong any more, one was held when it counted.
		if err = s.refuse(s.reader(ctx), &r); err == nil {
			err = &license.DevicesError{Err: license.ErrHeld, Devices: r.Devices}
		}
	}
	if err != nil {
		return license.Accepted{}, s.failed("accepting a request", err)
	}
	return accepted, nil
}

// errNotAll says that some device could not be taken, and not yet which.
var errNotAll = errors.New("not all devices can be taken")

const insertRequest = `INSERT INTO request (account, id, sku, action, time, application, username, trace, total, postings)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
	ON CONFLICT (account, id) DO NOTHING`

const insertTasks = `INSERT INTO task (account, request, iccid, phase, leased, due_at, prior)
	SELECT $1, $2, value ->> 0, 'carrier', CAST(value ->> 1 AS SMALLINT), CAST(value ->> 2 AS BIGINT), value ->> 3
	FROM {each $3}`

const reservePool = `UPDATE pool SET reserved = reserved + $3
	WHERE account = $1 AND sku = $2 AND purchased - reserved - assigned >= $3`

func accept(tx *tx, p license.AcceptParams) (license.Accepted, error) {
	r := p.Request
	replay := license.Accepted{ID: r.ID, Replay: true, More: true}
	if p.IdempotencyKey != "" {
		id, err := claimKey(tx, p)
		if err != nil {
			return license.Accepted{}, err
		}
		if id != r.ID {
			replay.ID = id
			return replay, tx.confirm()
		}
	}
	postings := 0
	if r.Action == license.Assign {
		postings = 1
	}
	n, err := tx.exec(insertRequest, string(r.Account), string(r.ID), string(r.SKU), string(r.Action), micros(r.At),
		p.Application, p.User, p.Trace, len(r.Devices), postings)
	if err != nil {
		return license.Accepted{}, err
	}
	if n == 0 {
		return replay, tx.confirm()
	}
	take := takeForAssign
	if r.Action == license.Unassign {
		take = takeForUnassign
	}
	taken, err := take(tx, r)
	if err != nil {
		return license.Accepted{}, err
	}
	accepted := license.Accepted{ID: r.ID}
	if accepted.Tasks, accepted.More, err = createTasks(tx, p, taken); err != nil {
		return license.Accepted{}, err
	}
	if r.Action == license.Unassign {
		return accepted, nil
	}
	lines := []posting{{request: r.ID, number: 1, sku: r.SKU, kind: reserve, units: len(r.Devices)}}
	if err := insertPostings(tx, r.Account, r.At, lines); err != nil {
		return license.Accepted{}, err
	}
	// Pool last: it is the row everyone shares.
	if n, err = tx.exec(reservePool, string(r.Account), string(r.SKU), len(r.Devices)); err == nil && n == 0 {
		err = license.ErrInsufficient
	}
	return accepted, err
}

const insertKey = `INSERT INTO idempotency (account, application, operation, key, hash, request, time)
	VALUES ($1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (account, application, operation, key)
	DO UPDATE SET hash = excluded.hash, request = excluded.request, time = excluded.time
	WHERE idempotency.time <= $8`

// claimKey makes the idempotency key stand for the request, or returns the
// request it stands for.
func claimKey(tx *tx, p license.AcceptParams) (license.RequestID, error) {
	r := p.Request
	n, err := tx.exec(insertKey, string(r.Account), p.Application, string(r.Action), p.IdempotencyKey,
		p.BodyHash, string(r.ID), micros(r.At), micros(r.At.Add(-keepIdempotency)))
	if err != nil || n > 0 {
		return r.ID, err
	}
	return findKey(tx, r.Account, p.Application, string(r.Action), p.IdempotencyKey, p.BodyHash, time.Time{})
}

const selectKey = `SELECT hash, request FROM idempotency
	WHERE account = $1 AND application = $2 AND operation = $3 AND key = $4 AND time > $5`

func findKey(q querier, account license.AccountName, application, operation, key, bodyHash string, since time.Time) (license.RequestID, error) {
	type entry struct{ hash, request string }
	e, err := first(q, func(scan func(...any) error) (e entry, err error) {
		return e, scan(&e.hash, &e.request)
	}, selectKey, string(account), application, operation, key, micros(since))
	if err == nil && e.hash != bodyHash {
		err = license.ErrKeyReused
	}
	return license.RequestID(e.request), err
}

// Replay finds the request that an idempotency key stands for. It fails with
// license.ErrNotFound when it stands for none, and with license.ErrKeyReused
// when it was given with another body.
func (s *Store) Replay(ctx context.Context, account license.AccountName, application, operation, key, bodyHash string, now time.Time) (license.RequestID, error) {
	id, err := findKey(s.reader(ctx), account, application, operation, key, bodyHash, now.Add(-keepIdempotency))
	if err == nil && s.dialect.confirm != "" {
		err = s.write(ctx, account, 1, (*tx).confirm)
	}
	return id, s.failed("looking an idempotency key up", err)
}

// taken is a device that a request has laid hold of.
type taken struct {
	device license.Device
	prior  string // of an unassign: the request that assigned it
}

const takeSIMs = `UPDATE sim SET sku = $2, request = $3
	WHERE account = $1 AND iccid {any $4} AND sku = '' AND state = 'active' AND generation = '4G'
	RETURNING iccid, imei, mdn`

// takeForAssign gives the SKU to each SIM, if all are free and eligible.
func takeForAssign(tx *tx, r *license.Request) ([]taken, error) {
	list, err := iccidParam(r.Devices)
	if err != nil {
		return nil, err
	}
	got, err := collect(tx, func(scan func(...any) error) (t taken, err error) {
		return t, scan(&t.device.ICCID, &t.device.IMEI, &t.device.MDN)
	}, takeSIMs, string(r.Account), string(r.SKU), string(r.ID), list)
	if err != nil {
		return nil, err
	}
	return matching(r.Devices, got)
}

const lockSIMs = `SELECT iccid, imei, mdn, sku, request FROM sim
	WHERE account = $1 AND iccid {any $2} ORDER BY iccid {wait}`

// A scalar subquery, which no planner turns into a join.
const selectPending = `SELECT value ->> 1 FROM {each $2}
	WHERE (SELECT phase FROM task t WHERE t.account = $1 AND t.request = value ->> 0 AND t.iccid = value ->> 1)
		IN ('carrier', 'stuck')`

const touchSIMs = `UPDATE sim SET request = $2 WHERE account = $1 AND iccid {any $3}`

// takeForUnassign marks each SIM as in transition, if all hold the SKU and none
// is in transition already.
func takeForUnassign(tx *tx, r *license.Request) ([]taken, error) {
	list, err := iccidParam(r.Devices)
	if err != nil {
		return nil, err
	}
	same := true
	got, err := collect(tx, func(scan func(...any) error) (t taken, err error) {
		var sku license.SKU
		err = scan(&t.device.ICCID, &t.device.IMEI, &t.device.MDN, &sku, &t.prior)
		same = same && sku == r.SKU
		return t, err
	}, lockSIMs, string(r.Account), list)
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, errNotAll
	}
	// The SIMs are locked, so none can come to be pending any more.
	held := make(rows, len(got))
	for i, t := range got {
		held[i] = []any{t.prior, t.device.ICCID}
	}
	pending, err := pendingAmong(tx, r.Account, held)
	if err != nil {
		return nil, err
	}
	if len(pending) > 0 {
		return nil, errNotAll
	}
	if _, err := tx.exec(touchSIMs, string(r.Account), string(r.ID), list); err != nil {
		return nil, err
	}
	return matching(r.Devices, got)
}

// pendingAmong finds those SIMs that are in transition, either way, among
// pairs of the request that last touched a SIM and the SIM.
func pendingAmong(q querier, account license.AccountName, held rows) ([]license.ICCID, error) {
	param, err := held.param()
	if err != nil {
		return nil, err
	}
	return collect(q, one[license.ICCID], selectPending, string(account), param)
}

// matching sorts what was got like the devices asked for, which it must match
// one by one, also in the IMEI where one was given.
func matching(devices []license.Device, got []taken) ([]taken, error) {
	if len(got) != len(devices) {
		return nil, errNotAll
	}
	slices.SortFunc(got, func(a, b taken) int { return cmp.Compare(a.device.ICCID, b.device.ICCID) })
	for i, d := range devices {
		if got[i].device.ICCID != d.ICCID || d.IMEI != "" && d.IMEI != got[i].device.IMEI {
			return nil, errNotAll
		}
	}
	return got, nil
}

// createTasks writes a task for each device: as many as there is room for are
// born leased to the caller, the others are due at once.
func createTasks(tx *tx, p license.AcceptParams, list []taken) (leased []license.Task, more bool, err error) {
	r := p.Request
	room := min(max(p.Room, 0), len(list))
	lines := make(rows, len(list))
	leased = make([]license.Task, 0, room)
	for i, t := range list {
		if i >= room {
			lines[i] = []any{t.device.ICCID, 0, micros(r.At), t.prior}
			continue
		}
		lines[i] = []any{t.device.ICCID, 1, micros(p.LeaseUntil), t.prior}
		leased = append(leased, license.Task{
			Request: r.ID, Account: r.Account, SKU: r.SKU, Action: r.Action,
			Device: t.device, At: r.At, Lease: 1, Until: p.LeaseUntil,
		})
	}
	param, err := lines.param()
	if err != nil {
		return nil, false, err
	}
	_, err = tx.exec(insertTasks, string(r.Account), string(r.ID), param)
	return leased, room < len(list), err
}

func iccidParam(devices []license.Device) (string, error) {
	list := make([]license.ICCID, len(devices))
	for i, d := range devices {
		list[i] = d.ICCID
	}
	return params(list)
}
