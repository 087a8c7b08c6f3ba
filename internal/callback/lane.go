package callback

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const (
	// batch is how many callbacks travel to or from the outbox at once.
	batch = 500
	// heldMost is how many callbacks a lane holds when its listener is quick
	// enough for them: many batches, since what finds no room is written as due
	// and claimed again, which costs as much as a third of all else.
	heldMost = 60 * batch
	// heldTotal is how many all lanes hold, some 30 MiB of them. None takes more
	// than a quarter of what is left at once, so that a newcomer finds some.
	heldTotal = 200 * batch
	// heldFailing is the same for a listener that keeps failing, but quickly.
	heldFailing = 32
	// muchQueued is how many callbacks wait in a lane that lets others go first.
	muchQueued = 100
	// failuresMost is how many attempts in a row may fail before a listener
	// counts as failing.
	failuresMost = 10
)

// lane is the work for the listener of one account. All but target is guarded by
// Sender.mu.
type lane struct {
	account license.AccountName

	queue   []license.Callback // to send, from head on
	head    int
	workers int
	held    int  // set aside, queued, being sent, or ended and not written down
	backlog bool // the outbox holds more that is due

	failures int           // attempts that failed since the last 2xx
	pace     time.Duration // how long attempts take of late; 0: not known yet

	target  atomic.Pointer[target] // whom to send to, as last read
	loading chan struct{}          // holds one while target is read anew; unlike a mutex, can be waited for with a context
}

func (l *lane) failing() bool { return l.failures >= failuresMost }

func (l *lane) queued() int { return len(l.queue) - l.head }

// lane finds the lane of an account; s.mu is held.
func (s *Sender) lane(account license.AccountName) *lane {
	l := s.lanes[account]
	if l == nil {
		l = &lane{account: account, loading: make(chan struct{}, 1)}
		s.lanes[account] = l
	}
	return l
}

// most is how many workers the lane may have; s.mu is held.
func (s *Sender) most(l *lane) int {
	if l.failing() {
		return 1
	}
	return s.cfg.PerListener
}

// room is how many more callbacks the lane can take: what its workers can begin,
// at the listener's pace, in half the time that a lease leaves for it. s.mu is
// held.
func (s *Sender) room(l *lane) int {
	workers, most := s.most(l), heldMost
	switch {
	case l.failing():
		most = heldFailing
	case l.pace == 0:
		most = batch
	}
	timeout := s.timeout(l)
	fit := most
	if l.pace > 0 {
		begin := s.lease(timeout) - timeout - s.margin(timeout)
		fit = int(min(int64(most), int64(workers)*int64(begin)/(2*int64(l.pace))))
	}
	return max(0, min(max(fit, workers)-l.held, max(workers, (heldTotal-s.held)/4)))
}

// Held is how many callbacks the sender has in memory: reserved, waiting, being
// sent, or ended and not written down.
func (s *Sender) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// hold counts n callbacks more in the lane; s.mu is held.
func (s *Sender) hold(l *lane, n int) {
	l.held += n
	s.held += n
}

// timeout is the lane's time for one attempt, as far as it is known.
func (s *Sender) timeout(l *lane) time.Duration {
	if t := l.target.Load(); t != nil {
		return t.timeout
	}
	return s.cfg.Timeout
}

// lease is how long to claim callbacks for whose attempts may take timeout.
func (s *Sender) lease(timeout time.Duration) time.Duration {
	return max(s.cfg.Lease, 2*timeout)
}

// Reserve sets aside room for at most n callbacks of an account, to be born
// leased to this node, and returns for how many. Give must follow, also when
// nothing came of it.
func (s *Sender) Reserve(account license.AccountName, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staff == nil {
		return 0
	}
	l := s.lane(account)
	if s.lease(s.timeout(l)) > s.cfg.Lease {
		return 0 // born with an ordinary lease, they would be dropped unsent
	}
	k := max(0, min(n, s.room(l), batch))
	s.hold(l, k)
	s.promised += k
	return k
}

// Give hands over callbacks of an account that are leased to this node, at most
// as many as were reserved, and frees the rest of the reservation.
func (s *Sender) Give(account license.AccountName, reserved int, callbacks []license.Callback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lane(account)
	s.hold(l, -reserved)
	s.take(l, callbacks)
	if s.promised -= reserved; s.staff == nil && s.promised <= 0 {
		notify(s.kept)
	}
}

// take puts callbacks into the lane's queue; s.mu is held.
func (s *Sender) take(l *lane, callbacks []license.Callback) {
	if s.staff == nil {
		s.drop(callbacks)
		return
	}
	s.hold(l, len(callbacks))
	if l.head > len(l.queue)/2 { // begin the queue anew, lest it grows at its end for ever
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queue = append(l.queue, callbacks...)
	s.hire(l)
}

// hire starts the workers the lane lacks; s.mu is held.
func (s *Sender) hire(l *lane) {
	for range min(s.most(l)-l.workers, l.queued()) {
		l.workers++
		s.staff(l)
	}
}

// drop lets callbacks go unsent: they fall due when their leases end, or at once
// when the sender is ending. s.mu is held.
func (s *Sender) drop(callbacks []license.Callback) {
	s.metrics.dropped.Add(float64(len(callbacks)))
	if s.staff == nil {
		s.unsent = append(s.unsent, callbacks...)
		return
	}
	for i := range callbacks {
		s.dues.add(callbacks[i].Until)
	}
}

// work sends callbacks of a lane until there are none or too many workers. Posts
// live on after ctx has ended, until posts does.
func (s *Sender) work(ctx, posts context.Context, l *lane) {
	var buf [4096]byte // what answers are read into
	for {
		c, much, ok := s.next(l)
		if !ok {
			return
		}
		if much {
			s.cfg.Yield(ctx, l.account)
		}
		d, ok := s.attempt(ctx, posts, l, c, buf[:])
		if !ok && ctx.Err() != nil {
			s.leave(l, c)
			continue
		}
		s.ended(l, d, ok)
	}
}

// next takes a callback from the lane's queue; the worker that gets none is
// dismissed.
func (s *Sender) next(l *lane) (c license.Callback, much, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.queued() == 0 || l.workers > s.most(l) {
		l.workers--
		return license.Callback{}, false, false
	}
	much = s.cfg.Yield != nil && l.queued() > muchQueued
	c = l.queue[l.head]
	l.queue[l.head] = license.Callback{} // its strings are not ours to keep
	l.head++
	return c, much, true
}

// ended takes note of how an attempt ended, or, when counted is false, that none
// was made.
func (s *Sender) ended(l *lane, d license.Delivery, counted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !counted {
		s.drop([]license.Callback{d.Callback})
		s.release(l)
		return
	}
	s.metrics.ended(&d)
	s.pend(d)
	if d.Verdict == license.Unsent {
		return
	}
	if l.pace == 0 {
		l.pace = d.Latency
	}
	l.pace += (d.Latency - l.pace) / 8
	s.judge(l, d.Verdict == license.Delivered)
}

// judge counts the listener's failures in a row; s.mu is held.
func (s *Sender) judge(l *lane, delivered bool) {
	was := l.failing()
	if delivered {
		l.failures = 0
	} else {
		l.failures++
	}
	switch now := l.failing(); {
	case now && !was:
		s.metrics.failing.Inc()
		s.cfg.Logger.Warn("a listener keeps failing; it gets one attempt at a time until it answers with a 2xx",
			"account", l.account)
	case was && !now:
		s.metrics.failing.Dec()
		s.cfg.Logger.Info("a listener that kept failing has answered with a 2xx", "account", l.account)
		if s.staff != nil {
			s.hire(l)
		}
		notify(s.wake)
	}
}

// release frees the lane's room for one callback, and wakes the claimer once
// half of what the lane can hold is free while the outbox has more for it. s.mu
// is held.
func (s *Sender) release(l *lane) {
	s.hold(l, -1)
	if l.backlog && s.room(l) >= l.held {
		l.backlog = false
		notify(s.wake)
	}
}

// notify leaves a token in c, which holds at most one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
