package provision

import (
	"slices"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// room decides how many tasks may be in memory: waiting, at the carrier, or
// with an outcome that is not settled.
//
// Two rules bound it below its capacity. An account may hold at most
// accountShare times what is free, so that one alone fills four fifths and a
// newcomer always finds some (the dynamic thresholds of Choudhury and Hahne).
// And no more is taken than the callers can begin with well before the leases
// end, at the pace of the last calls: what is taken and then dropped waits for
// its lease while callers stand idle.
type room struct {
	capacity int
	callers  int
	window   time.Duration // within which a task taken now should reach the carrier
	freed    chan struct{} // signalled when there is more room
	kept     chan struct{} // signalled when all promises are kept, once closed

	mu       sync.Mutex // guards what follows
	limit    int
	total    int
	promised int // reserved, and not given yet
	held     map[license.AccountName]int
	tasks    float64 // of a call, moving average
	took     float64 // seconds of a call, moving average
	closed   bool
}

// accountShare is how many times the free room one account may hold.
const accountShare = 4

// littleShare is how many tasks each account may hold whatever others do, while
// there is capacity.
const littleShare = 100

// worthClaiming is the room below which claiming is put off: small claims cost
// several times more for each task.
const worthClaiming = 100

func newRoom(capacity, callers int, window time.Duration) *room {
	return &room{
		capacity: capacity, callers: callers, window: window,
		freed: make(chan struct{}, 1),
		kept:  make(chan struct{}, 1),
		limit: capacity, // until the pace is known
		held:  map[license.AccountName]int{},
	}
}

// reserve takes room for up to n tasks of an account, or none where that would
// be fewer than least, and says how much it took.
func (r *room) reserve(account license.AccountName, n, least int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return 0
	}
	free := r.limit - r.total
	// What is taken is no longer free: after it, held <= accountShare*free.
	fair := min(free, (accountShare*free-r.held[account]+accountShare)/(accountShare+1))
	// The limit may have fallen below what another account holds.
	little := min(r.capacity-r.total, littleShare-r.held[account])
	n = min(n, max(fair, little, 0))
	if n <= 0 || n < least {
		return 0
	}
	r.total += n
	r.promised += n
	r.held[account] += n
	return n
}

// release gives room of an account back.
func (r *room) release(account license.AccountName, n int) {
	if n <= 0 {
		return
	}
	r.mu.Lock()
	r.free(account, n)
	r.mu.Unlock()
	signal(r.freed)
}

// free is release; r.mu is held.
func (r *room) free(account license.AccountName, n int) {
	r.total -= n
	if r.held[account] -= n; r.held[account] <= 0 {
		delete(r.held, account)
	}
}

// claimable is how many tasks each of so many accounts should claim, and the
// least worth it; zero where there is no room worth claiming for.
func (r *room) claimable(accounts int) (share, least int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	least = max(1, min(worthClaiming, r.limit/8))
	free := r.limit - r.total
	if r.closed || free < least {
		return 0, least
	}
	return min(batchSize, max(least, free/max(accounts, 1))), least
}

// measured takes note of a call of so many tasks, from the moment they left
// their line until their outcomes were taken.
func (r *room) measured(tasks int, took time.Duration) {
	const weight = 0.25
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.took == 0 {
		r.tasks, r.took = float64(tasks), took.Seconds()
	} else {
		r.tasks += weight * (float64(tasks) - r.tasks)
		r.took += weight * (took.Seconds() - r.took)
	}
	pace := float64(r.callers) * r.tasks / max(r.took, 1e-6)
	// At least a batch, or a slow beginning could not be outgrown.
	r.limit = min(r.capacity, max(batchSize, int(min(pace*r.window.Seconds(), 1e9))))
}

func (r *room) holds(account license.AccountName) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[account]
}

func (r *room) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// close ends reserving.
func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}

// lines are the tasks that wait for a caller, a line for each account.
type lines struct {
	mu     sync.Mutex // guards what follows
	filled sync.Cond
	of     map[license.AccountName]*line
	turn   []*line                     // those with tasks, next first
	at     map[license.AccountName]int // callers at work for an account
	left   []license.Task              // what there was and what has come, once closed
	closed bool
}

// line is the waiting tasks of one account. Those of one group share a request.
type line struct {
	account license.AccountName
	groups  [][]license.Task
}

func newLines() *lines {
	l := &lines{of: map[license.AccountName]*line{}, at: map[license.AccountName]int{}}
	l.filled.L = &l.mu
	return l
}

// add puts tasks of an account at the end of its line; they are the line's from
// then on. It reports false once the lines are closed, and leaves them over.
func (l *lines) add(account license.AccountName, tasks []license.Task) bool {
	if len(tasks) == 0 {
		return true
	}
	groups := byRequest(tasks)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.left = append(l.left, tasks...)
		return false
	}
	a := l.of[account]
	if a == nil {
		a = &line{account: account}
		l.of[account] = a
		l.turn = append(l.turn, a)
	}
	a.groups = append(a.groups, groups...)
	if len(tasks) > batchSize || len(groups) > 1 {
		l.filled.Broadcast()
	} else {
		l.filled.Signal()
	}
	return true
}

// next waits for tasks and takes a batch of the account whose turn it is; false
// once the lines are closed. An account for which full is true, told how many
// callers are at work for it, has no turn until look or done. Each batch is
// followed by one done.
func (l *lines) next(full func(account license.AccountName, callers int) bool) ([]license.Task, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := -1
	for !l.closed {
		i = slices.IndexFunc(l.turn, func(a *line) bool { return !full(a.account, l.at[a.account]) })
		if i >= 0 {
			break
		}
		l.filled.Wait()
	}
	if l.closed {
		return nil, false
	}
	a := l.turn[i]
	l.turn = slices.Delete(l.turn, i, i+1)
	l.at[a.account]++
	batch := a.groups[0]
	if len(batch) > batchSize {
		batch, a.groups[0] = batch[:batchSize:batchSize], batch[batchSize:]
	} else {
		a.groups[0] = nil // or the array would keep it alive
		a.groups = a.groups[1:]
	}
	if len(a.groups) > 0 {
		l.turn = append(l.turn, a)
	} else {
		delete(l.of, a.account)
	}
	return batch, true
}

// done says that a caller's work for an account is done.
func (l *lines) done(account license.AccountName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at[account]--; l.at[account] <= 0 {
		delete(l.at, account)
	}
	l.filled.Broadcast()
}

// look has those who wait look again which accounts are full.
func (l *lines) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.filled.Broadcast()
}

// close ends waiting and taking, and leaves over what there is.
func (l *lines) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, a := range l.turn {
		for _, g := range a.groups {
			l.left = append(l.left, g...)
		}
	}
	l.of, l.turn = nil, nil
	l.filled.Broadcast()
}
