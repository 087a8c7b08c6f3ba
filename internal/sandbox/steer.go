package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Machine is the service that a sandbox surrounds, as far as its clock is steered.
type Machine interface {
	// Idle reports whether nothing is being done and nothing is due.
	Idle(ctx context.Context) (bool, error)
	// NextDue is when the next work falls due; zero when there is none.
	NextDue(ctx context.Context) (time.Time, error)
	// Wake has the machine look for due work at once.
	Wake()
}

// settleTime is how long, in real time, work may take to end before a clock that
// is being moved gives up: longer than a listener may take to answer.
const settleTime = 30 * time.Second

// ErrBusy says that the work in flight did not end, so that the clock was not
// moved any further.
var ErrBusy = errors.New("work in flight has not ended, perhaps because a listener does not answer; the clock was not moved any further")

// steering moves a clock so that nothing is skipped: it stops at each moment at
// which something falls due, and goes on when that is done.
type steering struct {
	clock   *Clock
	machine Machine
	late    *postponed // what the sandbox itself does later
}

// settle waits until nothing is being done and nothing is due.
func (s steering) settle(ctx context.Context) error {
	const most = 5 * time.Millisecond
	limit := time.NewTimer(settleTime)
	defer limit.Stop()
	pause, clean := 100*time.Microsecond, 0
	s.machine.Wake()
	for {
		s.late.send(ctx, s.clock.Now())
		idle, err := s.machine.Idle(ctx)
		if err != nil {
			return err
		}
		// Twice, since what is handed on from one part to the other while both
		// are looked at may be missed once.
		if clean++; !idle {
			clean = 0
		}
		if clean == 2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-limit.C:
			return ErrBusy
		case <-time.After(pause):
		}
		pause = min(2*pause, most)
	}
}

// next is when something falls due next, zero when nothing is.
func (s steering) next(ctx context.Context) (time.Time, error) {
	next, err := s.machine.NextDue(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("looking for what falls due next: %w", err)
	}
	if late := s.late.next(); !late.IsZero() && (next.IsZero() || late.Before(next)) {
		next = late
	}
	return next, nil
}

// to moves the clock to a time. It returns how many moments it stopped at.
func (s steering) to(ctx context.Context, target time.Time) (stops int, err error) {
	for {
		if err := s.settle(ctx); err != nil {
			return stops, err
		}
		next, err := s.next(ctx)
		if err != nil {
			return stops, err
		}
		if next.IsZero() || next.After(target) {
			s.clock.AdvanceTo(target)
			return stops, s.settle(ctx)
		}
		s.clock.AdvanceTo(next)
		stops++
	}
}

// step moves the clock to the next moment at which something falls due, and
// reports whether there was one.
func (s steering) step(ctx context.Context) (bool, error) {
	if err := s.settle(ctx); err != nil {
		return false, err
	}
	next, err := s.next(ctx)
	if err != nil || next.IsZero() {
		return false, err
	}
	s.clock.AdvanceTo(next)
	return true, s.settle(ctx)
}
