package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Expectation is what a test waits for: so many entries of the journal.
type Expectation struct {
	// Match selects the entries; without a kind, callbacks that were delivered.
	Match Query `json:"match"`
	// Count is how many there must be, exactly; absent is 1. With AtLeast, more
	// will do.
	Count   *int `json:"count,omitempty"`
	AtLeast bool `json:"atLeast,omitempty"`
	// Within is how long to wait, on the sandbox's clock. A clock that stands
	// still is moved on from one moment at which something falls due to the next,
	// no further than that; a running one is waited for.
	Within Duration `json:"within,omitempty"`
}

// Met is what came of an Expectation.
type Met struct {
	Met     bool    `json:"met"`
	Want    int     `json:"want"`
	Found   int     `json:"found"`
	Entries []Entry `json:"entries"`
	Now     string  `json:"now"`
	Reason  string  `json:"reason,omitempty"` // why it was not met
}

// patience is how long a running clock is waited for at most, in real time.
const patience = 10 * time.Minute

// Expect waits for what a test expects. That it did not come is no error.
func (b *Box) Expect(ctx context.Context, x Expectation) (Met, error) {
	if x.Within < 0 || x.Count != nil && *x.Count < 0 {
		return Met{}, errors.New("count and within cannot be negative")
	}
	if x.Match.Kind == "" {
		x.Match.Kind = OnCallback
		if x.Match.Delivered == nil {
			yes := true
			x.Match.Delivered = &yes
		}
	}
	want := 1
	if x.Count != nil {
		want = *x.Count
	}
	until := b.clock.Now().Add(time.Duration(x.Within))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		changed := b.journal.next()
		if err := b.Settle(ctx); err != nil && !errors.Is(err, ErrBusy) {
			return Met{}, err
		}
		entries, found := b.journal.find(x.Match)
		if entries == nil {
			entries = []Entry{}
		}
		m := Met{Want: want, Found: found, Entries: entries, Now: b.clock.Now().Format(time.RFC3339Nano)}
		// None is only sure when all the time has passed; so is "exactly".
		if found > want && !x.AtLeast {
			m.Reason = fmt.Sprintf("%d were expected and %d are there", want, found)
			return m, nil
		}
		if found >= want && want > 0 {
			m.Met = true
			return m, nil
		}
		over, err := b.wait(ctx, until, changed)
		if err != nil {
			return m, err
		}
		if over {
			m.Now = b.clock.Now().Format(time.RFC3339Nano)
			if m.Met = found >= want; !m.Met {
				m.Reason = fmt.Sprintf("%d of %d are there after %s", found, want, time.Duration(x.Within))
			}
			return m, nil
		}
	}
}

// wait waits for something to change, or moves a clock that stands still on. It
// reports true once the time is over and nothing more comes by then.
func (b *Box) wait(ctx context.Context, until time.Time, changed <-chan struct{}) (over bool, err error) {
	if b.clock.Rate() > 0 {
		select {
		case <-changed:
			return false, nil
		case <-b.clock.After(until.Sub(b.clock.Now())):
		case <-ctx.Done():
			return true, ctx.Err()
		}
		select {
		case <-changed:
			return false, nil
		default:
			return true, nil
		}
	}
	b.moving.Lock()
	defer b.moving.Unlock()
	next, err := b.steering().next(ctx)
	if err != nil {
		return true, err
	}
	if next.IsZero() || next.After(until) {
		select {
		case <-changed:
			return false, nil
		default:
		}
		b.clock.AdvanceTo(until)
		return true, nil
	}
	b.clock.AdvanceTo(next)
	return false, nil
}
