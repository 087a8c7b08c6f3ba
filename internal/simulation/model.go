package simulation

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// model is what ought to be: it is told what the database took, at the moment it
// did, and knows what that makes of pools, SIMs and tasks.
type model struct {
	w        *world
	devices  int // accepted
	sims     map[license.ICCID]*sim
	byIMEI   map[license.IMEI]*sim
	list     []*sim
	pools    map[poolKey]*license.Pool
	requests map[license.RequestID]*request
	order    []*request
	tasks    map[place]*task
	keys     map[callKey]*keyed
	days     map[dayKey]int64
	policies map[license.AccountName]license.Policy
	stuck    map[place]bool // at the last look
	holder   map[place]string
	sender   map[place]string
}

type (
	place struct {
		request license.RequestID
		iccid   license.ICCID
	}
	poolKey struct {
		account license.AccountName
		sku     license.SKU
	}
	callKey struct {
		account license.AccountName
		action  license.Action
		key     string
	}
	dayKey struct {
		account license.AccountName
		day     time.Time
	}
)

func keyOf(t *license.Task) place { return place{t.Request, t.Device.ICCID} }

// sim is a SIM and the license it holds; while one is on its way, pending says
// which.
type sim struct {
	account license.AccountName
	device  license.Device
	state   license.State
	sku     license.SKU
	pending license.Action
}

type request struct {
	id      license.RequestID
	account license.AccountName
	sku     license.SKU
	action  license.Action
	at      time.Time // by the clock of the node that accepted it
	took    time.Time // truly
	acked   bool
	purged  bool
	tasks   []*task
}

type task struct {
	of      *request
	sim     *sim
	settled bool
	ok      bool
}

func (t *task) place() place { return place{t.of.id, t.sim.device.ICCID} }

type keyed struct {
	hash string
	id   license.RequestID
	at   time.Time
}

func newModel(w *world) *model {
	return &model{
		w: w, sims: map[license.ICCID]*sim{}, byIMEI: map[license.IMEI]*sim{}, pools: map[poolKey]*license.Pool{},
		requests: map[license.RequestID]*request{}, tasks: map[place]*task{}, keys: map[callKey]*keyed{},
		days: map[dayKey]int64{}, policies: map[license.AccountName]license.Policy{}, stuck: map[place]bool{},
		holder: map[place]string{}, sender: map[place]string{},
	}
}

func (m *model) pool(account license.AccountName, sku license.SKU) *license.Pool {
	p := m.pools[poolKey{account, sku}]
	if p == nil {
		p = &license.Pool{Account: account, SKU: sku}
		m.pools[poolKey{account, sku}] = p
	}
	return p
}

func (m *model) find(account license.AccountName, d license.Device) *sim {
	s := m.sims[d.ICCID]
	if d.ICCID == "" {
		s = m.byIMEI[d.IMEI]
	}
	if s == nil || s.account != account || d.IMEI != "" && d.IMEI != s.device.IMEI {
		return nil
	}
	return s
}

// expectation is what must come of a request.
type expectation struct {
	replay bool
	id     license.RequestID // of a replay
	err    error
}

const keptKeys = 24 * time.Hour

// expect says what must come of a request, in the order of Accept's checks.
func (m *model) expect(p license.AcceptParams) expectation {
	r := p.Request
	k := m.keys[callKey{r.Account, r.Action, p.IdempotencyKey}]
	switch {
	case p.IdempotencyKey == "" || k == nil || !k.at.After(r.At.Add(-keptKeys)):
	case k.hash != p.BodyHash:
		return expectation{err: license.ErrKeyReused}
	default:
		return expectation{replay: true, id: k.id}
	}
	if r.Action == license.Assign {
		if err := m.policies[r.Account].Check(r.SKU, len(r.Devices), m.days[dayKey{r.Account, license.Day(r.At)}]); err != nil {
			return expectation{err: err}
		}
	}
	found := map[error]bool{}
	for _, d := range r.Devices {
		found[m.refusal(r, d)] = true
	}
	for _, err := range []error{license.ErrUnknownDevice, license.ErrNotActive, license.ErrHeld, license.ErrNotHeld} {
		if found[err] {
			return expectation{err: err}
		}
	}
	if pool := m.pool(r.Account, r.SKU); r.Action == license.Assign && pool.Available() < int64(len(r.Devices)) {
		return expectation{err: license.ErrInsufficient}
	}
	return expectation{}
}

// refusal is what keeps a device from what a request wants; nil: nothing.
func (m *model) refusal(r *license.Request, d license.Device) error {
	s := m.find(r.Account, d)
	switch {
	case s == nil:
		return license.ErrUnknownDevice
	case r.Action == license.Assign && s.state != license.StateActive:
		return license.ErrNotActive
	case s.pending != "", r.Action == license.Assign && s.sku != "":
		return license.ErrHeld
	case r.Action == license.Unassign && s.sku != r.SKU:
		return license.ErrNotHeld
	}
	return nil
}

// accept holds what came of a request against what was expected.
func (m *model) accept(p license.AcceptParams, a license.Accepted, err error, want expectation) {
	w, r := m.w, p.Request
	switch {
	case !sameRefusal(err, want.err):
		w.fail("%s %s of %s, %d devices: %v; want %v", r.ID, r.Action, r.SKU, len(r.Devices), err, want.err)
		return
	case err != nil:
		m.refused(err)
		return
	case want.replay:
		if !a.Replay || a.ID != want.id || len(a.Tasks) > 0 {
			w.fail("a repeated key gave %+v, and stands for %s", a, want.id)
		}
		return
	case a.Replay || a.ID != r.ID:
		w.fail("a new request %s was taken for an old one: %+v", r.ID, a)
		return
	}
	m.take(p)
}

// forget is what a purge forgets beside requests, where a clock was far behind when
// they were written: keys and days that are old by now.
func (m *model) forget() {
	before := m.w.now.Add(-keptKeys)
	maps.DeleteFunc(m.keys, func(_ callKey, k *keyed) bool { return k.at.Before(before) })
	maps.DeleteFunc(m.days, func(d dayKey, _ int64) bool { return d.day.Before(license.Day(m.w.now).Add(-24 * time.Hour)) })
}

// sameRefusal reports whether err is of the kind that was wanted, and of a policy
// says the same.
func sameRefusal(err, want error) bool {
	var got, policy *license.PolicyError
	if errors.As(want, &policy) {
		return errors.As(err, &got) && *got == *policy
	}
	return errors.Is(err, want)
}

// take enters an accepted request.
func (m *model) take(p license.AcceptParams) {
	w, r := m.w, p.Request
	req := &request{id: r.ID, account: r.Account, sku: r.SKU, action: r.Action, at: r.At, took: w.now}
	m.requests[r.ID] = req
	m.order = append(m.order, req)
	m.devices += len(r.Devices)
	if p.IdempotencyKey != "" {
		m.keys[callKey{r.Account, r.Action, p.IdempotencyKey}] = &keyed{p.BodyHash, r.ID, r.At}
	}
	for _, d := range r.Devices {
		s := m.find(r.Account, d)
		s.pending = r.Action
		if r.Action == license.Assign {
			s.sku = r.SKU
			m.pool(r.Account, r.SKU).Reserved++
			day := dayKey{r.Account, license.Day(r.At)}
			if m.days[day]++; m.days[dayKey{r.Account, day.day.Add(-24 * time.Hour)}] > 0 && m.policies[r.Account].DailyDevices > 0 {
				w.reach(daysTwo)
			}
		}
		t := &task{of: req, sim: s}
		req.tasks = append(req.tasks, t)
		m.tasks[t.place()] = t
	}
	slices.SortFunc(req.tasks, func(a, b *task) int {
		if a.sim.device.ICCID < b.sim.device.ICCID {
			return -1
		}
		return 1
	})
	w.log("%s %s of %s accepted: %d devices", r.ID, r.Action, r.SKU, len(r.Devices))
}

// refused counts what was refused.
func (m *model) refused(err error) {
	var p *license.PolicyError
	switch {
	case errors.As(err, &p) && p.Rule == license.RuleDaily:
		m.w.reach(refusedDaily)
	case errors.As(err, &p):
		m.w.reach(refusedLifetime)
	case errors.Is(err, license.ErrInsufficient):
		m.w.reach(refusedInsufficient)
	case errors.Is(err, license.ErrUnknownDevice):
		m.w.reach(refusedUnknown)
	case errors.Is(err, license.ErrNotActive):
		m.w.reach(refusedInactive)
	case errors.Is(err, license.ErrNotHeld):
		m.w.reach(refusedNotHeld)
	case errors.Is(err, license.ErrHeld):
		m.w.reach(refusedHeld)
	}
}

// hold notes which node works on tasks.
func (m *model) hold(n *node, tasks []license.Task) {
	for i := range tasks {
		key := keyOf(&tasks[i])
		if was := m.holder[key]; was != "" && was != n.who() {
			m.w.reach(taskTaken)
		}
		m.holder[key] = n.who()
	}
}

// holdCallbacks is hold for callbacks.
func (m *model) holdCallbacks(n *node, list []license.Callback) {
	for i := range list {
		key := place{list[i].Request, list[i].Device.ICCID}
		if was := m.sender[key]; was != "" && was != n.who() {
			m.w.reach(callbackTaken)
		}
		m.sender[key] = n.who()
	}
}

// finished notes that attempts were written down.
func (m *model) finished(ends []license.Delivery) {
	for i := range ends {
		delete(m.sender, place{ends[i].Callback.Request, ends[i].Callback.Device.ICCID})
	}
}

// settle enters what a settlement changed. Of one that counted less than it was
// given, the database tells which.
func (m *model) settle(outcomes []license.Outcome, s license.Settled) {
	all := s.Counted == len(outcomes)
	if !all {
		m.w.reach(outcomeFenced)
	}
	for i := range outcomes {
		o := &outcomes[i]
		key := keyOf(&o.Task)
		ends := o.Verdict == license.Done || o.Verdict == license.Refused
		switch {
		case all && ends:
			m.end(key, o.Verdict == license.Done, m.w.carrier.said(key, o.Verdict == license.Done))
		case all && o.Verdict == license.Stuck:
			m.w.reach(taskStuck)
			m.w.log("%s %s is stuck", key.request, key.iccid)
		case ends && m.tasks[key] != nil && !m.tasks[key].settled:
			if ok, settled := m.w.settled(m.tasks[key]); settled {
				m.end(key, ok, m.w.carrier.said(key, ok))
			}
		}
		if all {
			delete(m.holder, key)
		}
	}
}

// end enters that a task was settled; said tells whether anybody who may decide it
// said so.
func (m *model) end(key place, ok, said bool) {
	t := m.tasks[key]
	switch {
	case t == nil:
		m.w.fail("%s %s was settled, and nobody accepted it", key.request, key.iccid)
		return
	case t.settled:
		m.w.fail("%s %s was settled twice", key.request, key.iccid)
		return
	case !said:
		m.w.fail("%s %s was settled (done: %t), which the carrier never said", key.request, key.iccid, ok)
		return
	}
	t.settled, t.ok = true, ok
	delete(m.holder, key)
	pool := m.pool(t.of.account, t.of.sku)
	t.sim.pending = ""
	switch {
	case t.of.action == license.Assign && ok:
		pool.Reserved--
		pool.Assigned++
	case t.of.action == license.Assign:
		pool.Reserved--
		t.sim.sku = ""
		m.w.reach(assignRefused)
	case ok:
		pool.Assigned--
		t.sim.sku = ""
	default:
		m.w.reach(unassignRefused)
	}
	m.w.log("%s %s %s settled, done: %t", key.request, key.iccid, t.of.action, ok)
}
