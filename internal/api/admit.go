package api

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// admission bounds what the calls in flight hold of this node, so that above its
// capacity it answers some calls at once instead of all of them too late, or none
// any more. A call takes its place while it is worked on, not while its client is
// slow; its body counts from the first byte that is kept to the end of the call.
// No application takes more than half, so that one alone keeps nobody out.
type admission struct {
	most held // of all applications together

	mu    sync.Mutex // guards what follows
	all   held
	byApp map[string]held // of those that hold something; "" is whoever has not said who it is
}

// held is what calls hold.
type held struct {
	calls int
	bytes int64 // of bodies
}

func (h held) plus(n held) held { return held{h.calls + n.calls, h.bytes + n.bytes} }

// within reports whether h, in which n is counted, may be: only what grows can be
// too much.
func (h held) within(n, most held) bool {
	return (n.calls == 0 || h.calls <= most.calls) && (n.bytes == 0 || h.bytes <= most.bytes)
}

// errShed is why a call was turned away.
var errShed = errors.New("more than this node takes at once")

// overloadWait is the Retry-After of a call that was turned away.
const overloadWait = time.Second

// newAdmission makes an admission. Whatever the limits are, one application may
// have one call with one body of the largest size.
func newAdmission(calls int, bytes int64) *admission {
	return &admission{most: held{max(calls, 2), max(bytes, 4*maxBody)}, byApp: map[string]held{}}
}

// enter takes n for a call of the application. The error is an answer.
func (a *admission) enter(app string, n held) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	all, own := a.all.plus(n), a.byApp[app].plus(n)
	half := held{a.most.calls / 2, a.most.bytes / 2}
	if app == "" {
		half.calls = a.most.calls // that of each call whose token is being looked up
	}
	switch {
	case !all.within(n, a.most):
		return fmt.Errorf("%w: %w", errShed, errUnavailable(overloadWait))
	case !own.within(n, half):
		return fmt.Errorf("%w of one application: %w", errShed, errTooManyCalls(overloadWait))
	}
	a.all, a.byApp[app] = all, own
	return nil
}

// leave gives n back.
func (a *admission) leave(app string, n held) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n = held{-n.calls, -n.bytes}
	a.all = a.all.plus(n)
	if own := a.byApp[app].plus(n); own != (held{}) {
		a.byApp[app] = own
	} else {
		delete(a.byApp, app)
	}
}

// now is how much is held.
func (a *admission) now() held {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all
}

// keep counts n more bytes of the call's body.
func (c *call) keep(n int) error {
	if c.kept == 0 {
		c.keeper = c.Application // it may be known better later
	}
	if err := c.api.admission.enter(c.keeper, held{bytes: int64(n)}); err != nil {
		return err
	}
	c.kept += int64(n)
	return nil
}

// letGo gives back what the call's body held.
func (c *call) letGo() {
	if c.kept > 0 {
		c.api.admission.leave(c.keeper, held{bytes: c.kept})
	}
	c.body, c.kept = nil, 0
}
