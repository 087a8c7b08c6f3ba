package sandbox

import (
	"slices"
	"sync"
	"time"
)

// Clock is the time of a sandbox. It stands still, follows the machine's, or runs
// a number of times as fast, and it can be moved forward; it never goes back, but
// for Reset. It is a license.Clock.
type Clock struct {
	mu      sync.Mutex // guards what follows
	at      time.Time  // the sandbox's time at since
	since   time.Time  // the machine's time
	rate    float64
	waiters map[int64]chan time.Time // by the nanosecond they wait for
	dues    []int64                  // the keys of waiters, rising
	timer   *time.Timer              // for the first of them, while the clock runs
}

// MaxRate is the most times as fast as the machine's time that a Clock runs.
// Above it what takes real time, such as a listener that answers slowly, would
// outlast the leases on the work.
const MaxRate = 1000

// NewClock makes a clock that begins at a time and runs at a rate: 0 stands
// still, 1 is the pace of the machine's.
func NewClock(at time.Time, rate float64) *Clock {
	c := &Clock{waiters: map[int64]chan time.Time{}}
	c.Reset(at, rate)
	return c
}

// Now is the sandbox's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

// now is Now; c.mu is held. Times have whole microseconds, as stored ones do.
func (c *Clock) now() time.Time {
	if c.rate == 0 {
		return c.at
	}
	past := time.Duration(float64(time.Since(c.since)) * c.rate)
	return c.at.Add(past).Truncate(time.Microsecond)
}

// Rate is how many times as fast as the machine's time the clock runs.
func (c *Clock) Rate() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rate
}

// After returns a channel that is closed when d has passed on this clock. All who
// wait for the same moment share one.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := c.now().Add(max(d, 0)).UnixNano()
	ch := c.waiters[due]
	if ch == nil {
		ch = make(chan time.Time)
		c.waiters[due] = ch
		i, _ := slices.BinarySearch(c.dues, due)
		c.dues = slices.Insert(c.dues, i, due)
	}
	c.fire()
	return ch
}

// SetRate has the clock run at a rate from now on.
func (c *Clock) SetRate(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.since, c.rate = c.now(), time.Now(), rate
	c.fire()
}

// AdvanceTo moves the clock forward to a time, if it is not there yet.
func (c *Clock) AdvanceTo(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.now()) {
		c.at, c.since = t, time.Now()
	}
	c.fire()
}

// Reset sets the clock, back too, and lets all who wait go on: what they waited
// for is gone.
func (c *Clock) Reset(at time.Time, rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.since, c.rate = at.UTC().Truncate(time.Microsecond), time.Now(), rate
	for _, ch := range c.waiters {
		close(ch)
	}
	clear(c.waiters)
	c.dues = nil
	c.fire()
}

// fire lets those go on whose time has come, and sets the timer for the next;
// c.mu is held.
func (c *Clock) fire() {
	now := c.now()
	n := 0
	for n < len(c.dues) && c.dues[n] <= now.UnixNano() {
		close(c.waiters[c.dues[n]])
		delete(c.waiters, c.dues[n])
		n++
	}
	c.dues = slices.Delete(c.dues, 0, n)
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if len(c.dues) > 0 && c.rate > 0 {
		wait := time.Duration(float64(c.dues[0]-now.UnixNano()) / c.rate)
		c.timer = time.AfterFunc(wait+time.Microsecond, c.ring)
	}
}

func (c *Clock) ring() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fire()
}
