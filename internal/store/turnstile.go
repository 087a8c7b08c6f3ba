package store

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// littleMost is the most rows of a call that is little. Whoever asks for so little
// should not wait because others ask for much.
const littleMost = combineMost

const (
	// calm is how long no little call must have come for an account to do as much
	// at once as it likes.
	calm = time.Second
	// promptly is how soon after its acceptance a little request is settled where
	// the carrier is quick.
	promptly = 10 * time.Millisecond
	// holdMost bounds how long much waits for little, each time it looks: where
	// little never ends, much goes on all the same.
	holdMost = 20 * time.Millisecond
	// yieldMost is the same for what is done to one device.
	yieldMost = 5 * time.Millisecond
)

// littles are the accounts that lately asked for little.
type littles struct {
	mu    sync.Mutex // guards what follows
	of    map[license.AccountName]*little
	ended chan struct{} // closed when a little call has ended
}

type little struct {
	running  int
	last     time.Time // when the last one began
	expected time.Time // until when another is expected
}

func newLittles() *littles {
	return &littles{of: map[license.AccountName]*little{}, ended: make(chan struct{})}
}

func (l *littles) begin(account license.AccountName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of[account]
	if a == nil {
		a = &little{}
		l.of[account] = a
	}
	a.running++
	a.last, a.expected = time.Now(), time.Time{}
}

func (l *littles) end(account license.AccountName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[account].running--
	close(l.ended)
	l.ended = make(chan struct{})
}

// expect says that a little call of an account follows promptly: its request was
// accepted, and is to be settled.
func (l *littles) expect(account license.AccountName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.of[account]; a != nil {
		a.expected = time.Now().Add(promptly)
	}
}

// beside reports whether other accounts than this one lately asked for little, and
// whether a call of theirs is under way or expected. ended is closed when one ends.
func (l *littles) beside(account license.AccountName) (lately, now bool, ended <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now()
	maps.DeleteFunc(l.of, func(_ license.AccountName, a *little) bool { return a.running == 0 && at.Sub(a.last) > calm })
	for name, a := range l.of {
		if name != account {
			lately = true
			now = now || a.running > 0 || at.Before(a.expected)
		}
	}
	return lately, now, l.ended
}

// hold waits until no other account has a little call under way, for most at the
// longest, or until ctx ends.
func (l *littles) hold(ctx context.Context, account license.AccountName, most time.Duration) {
	var late <-chan time.Time
	for {
		_, now, ended := l.beside(account)
		if !now {
			return
		}
		if late == nil {
			timer := time.NewTimer(most)
			defer timer.Stop()
			late = timer.C
		}
		soon := time.NewTimer(promptly) // what is expected may not come
		select {
		case <-ended:
		case <-soon.C:
		case <-late:
			soon.Stop()
			return
		case <-ctx.Done():
			soon.Stop()
			return
		}
		soon.Stop()
	}
}

// Yield waits a little while other accounts have something little under way, for work
// of an account that has much to do, elsewhere than in the database.
func (s *Store) Yield(ctx context.Context, account license.AccountName) {
	s.littles.hold(ctx, account, yieldMost)
}

// A turnstile is what writes to PostgreSQL pass. Transactions run beside each
// other there, and those of one account with much to do would take all there is:
// the processors, and the log that every commit waits for. So where other accounts
// ask for little, what is much goes one at a time, in turns between accounts, and
// stops between its statements while something little is under way. Where nobody
// else asks for anything, nothing waits.
type turnstile struct {
	littles *littles
	flush   func(context.Context) // writes the log that was made so far; nil in some tests
	mu      sync.Mutex            // guards what follows
	queue   queue
	busy    bool // somebody has the turn
}

func newTurnstile(l *littles) *turnstile { return &turnstile{littles: l, queue: newQueue()} }

// pass has fn run, when it is its turn. fn is given what it should wait in between
// statements; nil for what is little. A caller whose context ends
// before its turn gets that context's error and nothing is done.
func (t *turnstile) pass(ctx context.Context, account license.AccountName, weight int, fn func(*hold) error) error {
	switch {
	case account == "": // of the service itself
		return fn(nil)
	case weight <= littleMost:
		t.littles.begin(account)
		defer t.littles.end(account)
		return fn(nil)
	}
	if lately, _, _ := t.littles.beside(account); lately {
		if err := t.enter(ctx, account, weight); err != nil {
			return err
		}
		defer t.leave()
	}
	t.littles.hold(ctx, account, holdMost)
	return fn(&hold{t: t, ctx: ctx, account: account})
}

// A hold is where a transaction that writes much stops for others that write little.
type hold struct {
	t       *turnstile
	ctx     context.Context
	account license.AccountName
}

// beside reports whether there are others, lately.
func (h *hold) beside() bool {
	lately, _, _ := h.t.littles.beside(h.account)
	return lately
}

// wait waits while something little is under way, if anything is.
func (h *hold) wait() {
	if h.beside() && h.t.flush != nil {
		h.t.flush(h.ctx)
	}
	h.t.littles.hold(h.ctx, h.account, holdMost)
}

// portion is how many rows are written between two waits.
func (h *hold) portion() int {
	if h.beside() {
		return portionMost / 2
	}
	return portionMost
}

// enter waits for the turn.
func (t *turnstile) enter(ctx context.Context, account license.AccountName, weight int) error {
	t.mu.Lock()
	if !t.busy {
		t.busy = true
		t.mu.Unlock()
		return nil
	}
	c := &call{ctx: ctx, account: account, weight: weight, done: make(chan struct{})}
	t.queue.add(c)
	t.mu.Unlock()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	withdrawn := t.queue.remove(c)
	t.mu.Unlock()
	if !withdrawn {
		t.leave() // it has the turn, and hands it on
	}
	return ctx.Err()
}

// leave hands the turn on.
func (t *turnstile) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.queue.takeTurn()
	if next == nil {
		t.busy = false
		return
	}
	next.finish(nil)
}
