package store_test

import (
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// modelSIM is all that the model knows of a SIM: the license it holds, and
// whether it is on its way.
type modelSIM struct {
	sku     license.SKU
	pending license.Action // empty when settled
}

// machine drives a store and a model of a few lines with the same steps.
type machine struct {
	*bench
	model    map[license.ICCID]modelSIM
	bought   map[license.SKU]int64
	held     []license.Task     // claimed, by workers that may be lost
	calls    []license.Callback // the same for callbacks
	requests []license.AcceptParams
}

// TestModel drives random assigns, unassigns, claims, settles, lost workers,
// repeats and callbacks sent again, and holds the store against the model and Verify after each step.
func TestModel(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		round := 0
		rapid.Check(t, func(rt *rapid.T) {
			// One database for all checks, with other SIMs for each: the ledger
			// must hold whatever went before.
			m := newMachine(t, s, round)
			round++
			rt.Repeat(map[string]func(*rapid.T){
				"":         m.check,
				"assign":   func(rt *rapid.T) { m.request(rt, license.Assign) },
				"unassign": func(rt *rapid.T) { m.request(rt, license.Unassign) },
				"repeat":   m.repeat,
				"claim":    m.claimSome,
				"settle":   m.settleSome,
				"late":     m.settleLate,
				"lose":     m.loseWorker,
				"return":   m.endWorker,
				"deliver":  m.deliver,
				"resend":   m.resend,
				"wait": func(rt *rapid.T) {
					m.now = m.now.Add(rapid.SampledFrom([]time.Duration{1, 10, 30}).Draw(rt, "seconds") * time.Second)
				},
			})
			m.drain()
		})
	})
}

const modelSIMs = 6

func newMachine(t *testing.T, s *store.Store, round int) *machine {
	m := &machine{model: map[license.ICCID]modelSIM{}, bought: map[license.SKU]int64{}}
	m.bench = newBench(t, s, storetest.Fixture{
		SIMs: modelSIMs, First: round * modelSIMs,
		Pools: map[license.SKU]int64{license.SKUFlexible: 4, license.SKULifetime: 3},
	})
	m.now = m.now.Add(time.Duration(round) * time.Hour)
	m.listen()
	for _, sku := range []license.SKU{license.SKUFlexible, license.SKULifetime} {
		// What former rounds left assigned stays; this round has what it bought.
		p := m.pool(sku)
		m.bought[sku] = p.Available()
	}
	return m
}

// request asks for an action on some SIMs, and expects what the model says.
func (m *machine) request(rt *rapid.T, action license.Action) {
	sku := rapid.SampledFrom([]license.SKU{license.SKUFlexible, license.SKULifetime}).Draw(rt, "sku")
	if action == license.Unassign {
		sku = license.SKUFlexible
	}
	sims := slices.Clone(m.sims)
	sims = rapid.Permutation(sims).Draw(rt, "sims")[:rapid.IntRange(1, 4).Draw(rt, "count")]
	p := m.params(action, sku, sims...)
	p.IdempotencyKey, p.BodyHash = rapid.StringMatching(`[a-z]{12}`).Draw(rt, "key"), "hash"
	p.Room, p.LeaseUntil = rapid.IntRange(0, 4).Draw(rt, "room"), m.now.Add(20*time.Second)
	want := m.expect(action, sku, sims)
	a, err := m.s.Accept(m.t.Context(), p)
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		rt.Fatalf("%s %s: %v, want %v", action, sku, err, want)
	}
	if err != nil {
		return
	}
	if !a.Replay {
		m.held = append(m.held, a.Tasks...)
		m.requests = append(m.requests, p)
		for _, sim := range sims {
			m.model[sim.Device.ICCID] = modelSIM{sku, action}
		}
	}
}

// expect is the error that the rules give a request.
func (m *machine) expect(action license.Action, sku license.SKU, sims []license.SIM) error {
	var held, notHeld bool
	for _, sim := range sims {
		have := m.model[sim.Device.ICCID]
		switch {
		case action == license.Assign:
			held = held || have.sku != ""
		case have.pending != "":
			held = true
		default:
			notHeld = notHeld || have.sku != sku
		}
	}
	switch {
	case held:
		return license.ErrHeld
	case notHeld:
		return license.ErrNotHeld
	case action == license.Assign && m.used(sku)+int64(len(sims)) > m.bought[sku]:
		return license.ErrInsufficient
	}
	return nil
}

func (m *machine) used(sku license.SKU) (n int64) {
	for _, have := range m.model {
		if have.sku == sku {
			n++
		}
	}
	return n
}

// repeat sends an accepted request again, under its key and under its ID.
func (m *machine) repeat(rt *rapid.T) {
	if len(m.requests) == 0 {
		rt.Skip()
	}
	p := rapid.SampledFrom(m.requests).Draw(rt, "request")
	first := p.Request.ID
	if rapid.Bool().Draw(rt, "by key") {
		again := *p.Request
		again.ID = license.NewRequestID(m.now, rand.Reader)
		p.Request = &again
	}
	if a, err := m.s.Accept(m.t.Context(), p); err != nil || a.ID != first || len(a.Tasks) > 0 {
		rt.Fatalf("repeated: %+v, %v; want %s and no tasks", a, err, first)
	}
}

func (m *machine) claimSome(rt *rapid.T) {
	m.held = append(m.held, m.claim(rapid.IntRange(1, 5).Draw(rt, "limit"))...)
	m.calls = append(m.calls, m.claimCallbacks(rapid.IntRange(1, 5).Draw(rt, "callbacks"))...)
}

// settleSome settles some of what workers hold, whether or not their lease
// still stands, sometimes twice.
func (m *machine) settleSome(rt *rapid.T) {
	if len(m.held) == 0 {
		rt.Skip()
	}
	n := rapid.IntRange(1, len(m.held)).Draw(rt, "count")
	var list []license.Outcome
	for _, task := range m.held[:n] {
		v := rapid.SampledFrom([]license.Verdict{license.Done, license.Done, license.Refused, license.Retry, license.Later}).Draw(rt, "verdict")
		list = append(list, license.Outcome{Task: task, Verdict: v, Due: m.now.Add(time.Second)})
	}
	m.apply(list)
	if rapid.Bool().Draw(rt, "twice") {
		m.apply(list)
	}
	if rapid.Bool().Draw(rt, "forget") {
		m.held = m.held[n:]
	}
}

// apply settles outcomes, and changes the model by those that counted, as the
// store's own records of the requests tell.
func (m *machine) apply(list []license.Outcome) {
	m.t.Helper()
	for _, o := range list {
		settled := m.settle(o)
		if settled.Counted == 0 || o.Verdict != license.Done && o.Verdict != license.Refused {
			continue
		}
		m.end(o.Task, o.Verdict)
	}
}

// end changes the model by an outcome that counted.
func (m *machine) end(task license.Task, v license.Verdict) {
	id := task.Device.ICCID
	switch assign := task.Action == license.Assign; {
	case assign == (v == license.Done): // assigned, or the unassign refused
		m.model[id] = modelSIM{sku: m.model[id].sku}
	default:
		delete(m.model, id)
	}
}

// settleLate has the carrier bring outcomes by itself of what workers hold, or held.
func (m *machine) settleLate(rt *rapid.T) {
	if len(m.held) == 0 {
		rt.Skip()
	}
	for _, task := range m.held[:rapid.IntRange(1, len(m.held)).Draw(rt, "count")] {
		o := license.LateOutcome{
			Request: task.Request, ICCID: task.Device.ICCID,
			Verdict: rapid.SampledFrom([]license.Verdict{license.Done, license.Refused}).Draw(rt, "verdict"),
		}
		switch r := m.late(o)[0]; r {
		case license.LateSettled:
			m.end(task, o.Verdict)
		case license.LateRepeated, license.LateContradicts:
		case license.LateUnknown, license.LateEnded:
			rt.Fatalf("a late outcome of %s is %v", task.Key(), r)
		}
	}
}

// loseWorker forgets what was claimed: the leases run out by themselves.
func (m *machine) loseWorker(*rapid.T) { m.held, m.calls = nil, nil }

// endWorker gives back what was claimed, also what it had lost meanwhile.
func (m *machine) endWorker(rt *rapid.T) {
	if _, err := m.s.GiveTasksBack(m.t.Context(), m.now, m.held); err != nil {
		rt.Fatalf("GiveTasksBack: %v", err)
	}
	if _, err := m.s.GiveCallbacksBack(m.t.Context(), m.now, m.calls); err != nil {
		rt.Fatalf("GiveCallbacksBack: %v", err)
	}
	if rapid.Bool().Draw(rt, "forget") {
		m.held, m.calls = nil, nil
	}
}

func (m *machine) deliver(rt *rapid.T) {
	for _, c := range m.calls {
		m.finish(c, rapid.SampledFrom([]license.DeliveryVerdict{license.Delivered, license.Again, license.Exhausted, license.Unsent}).Draw(rt, "verdict"))
	}
	m.calls = nil
}

// resend has some callbacks sent again, as they were listed some time ago.
func (m *machine) resend(rt *rapid.T) {
	ended := []store.CallbackState{store.CallbackUndelivered, store.CallbackUnsent, store.CallbackDelivered}
	list := m.kept(store.CallbackFilter{States: ended})
	if len(list) == 0 {
		rt.Skip()
	}
	list = list[:min(len(list), rapid.IntRange(1, 5).Draw(rt, "count"))]
	if n := m.sendAgain(list); n != len(list) {
		rt.Fatalf("sent %d of %d again", n, len(list))
	}
	if n := m.sendAgain(list); n != 0 {
		rt.Fatalf("sent %d again twice", n)
	}
}

// check compares the pools with the model and verifies the ledger.
func (m *machine) check(rt *rapid.T) {
	for sku, bought := range m.bought {
		if got, want := m.pool(sku).Available(), bought-m.used(sku); got != want {
			rt.Fatalf("%s: %d available, the model says %d", sku, got, want)
		}
	}
	if _, err := m.s.Verify(m.t.Context(), func(d license.Drift) { rt.Fatalf("drift: %v", d) }); err != nil {
		rt.Fatalf("Verify: %v", err)
	}
}

// drain ends all work, so that the next round begins with none.
func (m *machine) drain() {
	m.now = m.now.Add(30 * time.Minute)
	m.carry(license.Done)
	for calls := m.claimCallbacks(500); len(calls) > 0; calls = m.claimCallbacks(500) {
		for _, c := range calls {
			m.finish(c, license.Delivered)
		}
	}
}
