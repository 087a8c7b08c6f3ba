package callback

import (
	"slices"
	"time"
)

// dues remembers when callbacks fall due that this node wrote itself, so that
// it wakes for them instead of finding them at the next poll. Times are kept in
// steps, rounded up, which bounds both the memory and the number of wakes.
type dues struct {
	steps []int64 // sorted, each once
}

const (
	dueStep = 20 * time.Millisecond
	// dueSteps covers the default interval of five minutes; what does not fit is
	// found by polling.
	dueSteps = 1 << 14
)

func (d *dues) add(at time.Time) {
	step := (at.UnixNano() + int64(dueStep) - 1) / int64(dueStep)
	// Intervals are alike, so times come nearly sorted: mostly an append.
	i, found := len(d.steps), false
	if i > 0 && step <= d.steps[i-1] {
		i, found = slices.BinarySearch(d.steps, step)
	}
	if !found && len(d.steps) < dueSteps {
		d.steps = slices.Insert(d.steps, i, step)
	}
}

// reach forgets the times up to now, whose callbacks are being looked for.
func (d *dues) reach(now time.Time) {
	i, _ := slices.BinarySearch(d.steps, now.UnixNano()/int64(dueStep)+1)
	d.steps = slices.Delete(d.steps, 0, i)
}

// next is how long after now the next callback falls due.
func (d *dues) next(now time.Time) (time.Duration, bool) {
	if len(d.steps) == 0 {
		return 0, false
	}
	return max(0, time.Duration(d.steps[0]*int64(dueStep)-now.UnixNano())), true
}
