package callback

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// An attempt that fails because this machine has no descriptor, port or buffer left says
// nothing of the listener. It is made again shortly, as long as the lease has room for
// one, and counts neither as an attempt nor against the listener.

const (
	// localPause is the first pause after such a failure; each is twice as long as the
	// one before, up to localMost.
	localPause = 100 * time.Millisecond
	localMost  = 2 * time.Second
	// localFor is how long after its request's acceptance a callback's local failures
	// are not counted: some last, such as an address of a family that this machine lacks.
	localFor = 24 * time.Hour
	// localTold is how often the log says it, at most.
	localTold = time.Minute
)

// locals are the errors of this machine.
var locals = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.EADDRNOTAVAIL}

// local reports whether an attempt's error is this machine's.
func local(err error) bool {
	if err == nil {
		return false
	}
	if slices.ContainsFunc(locals, func(of syscall.Errno) bool { return errors.Is(err, of) }) {
		return true
	}
	// The resolver tells its own errors by their text alone.
	var lookup *net.DNSError
	return errors.As(err, &lookup) && slices.ContainsFunc(locals, func(of syscall.Errno) bool { return strings.Contains(lookup.Err, of.Error()) })
}

// excused reports whether an attempt's error is this machine's and not to be counted,
// and takes note of it.
func (s *Sender) excused(err error, c *license.Callback) bool {
	if !local(err) || s.cfg.Clock.Now().After(c.Request.Time().Add(localFor)) {
		return false
	}
	s.metrics.local.Inc()
	now := time.Now()
	s.mu.Lock()
	tell := now.Sub(s.told) >= localTold
	if tell {
		s.told = now
	}
	s.mu.Unlock()
	if tell {
		s.cfg.Logger.Warn("callbacks cannot be sent for a lack on this machine; they are tried again shortly, and no attempt is counted", "error", err)
	}
	return true
}

// rest waits, unless ctx ends before.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// writeTime is what an attempt leaves of its lease, so that its end can be written down
// while the callback is ours.
const writeTime = time.Second

// margin is writeTime, or less where the lease has no room for it.
func (s *Sender) margin(timeout time.Duration) time.Duration {
	return min(writeTime, (s.lease(timeout)-timeout)/2)
}

// covers reports whether a callback's lease covers an attempt begun now, and the
// writing down of its end.
func (s *Sender) covers(c *license.Callback, timeout time.Duration, now time.Time) bool {
	return !now.Add(timeout + s.margin(timeout)).After(c.Until)
}
