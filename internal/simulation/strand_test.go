package simulation

import (
	"slices"
	"testing"
	"time"
)

// TestStrands: strands take turns by the clock, and one that is killed runs its
// deferred calls and nothing else.
func TestStrands(t *testing.T) {
	w := newWorld(1, Options{Hours: 1, Tail: 10})
	n := &node{w: w}
	w.ctx, w.readAt, w.calm, w.dirty = t.Context(), w.now, true, false
	var said []string
	w.spawn(n, "slow", func() {
		said = append(said, "slow begins")
		w.pause(2 * time.Second)
		said = append(said, "slow ends")
	}, nil)
	w.spawn(n, "quick", func() {
		w.pause(time.Second)
		said = append(said, "quick ends")
	}, nil)
	w.spawn(n, "killed", func() {
		defer func() { said = append(said, "killed is over") }()
		w.pause(time.Hour)
		said = append(said, "killed goes on")
	}, func(killed bool) {
		if !killed {
			t.Error("it does not know that it was killed")
		}
	})
	killed := n.strands[2]
	w.after(1500*time.Millisecond, func() { w.kill(killed) })
	w.until(w.now.Add(2 * time.Hour))
	want := []string{"slow begins", "quick ends", "killed is over", "slow ends"}
	if !slices.Equal(said, want) || len(n.strands) != 0 || w.failure != nil {
		t.Errorf("%q, want %q; %d strands are left (%v)", said, want, len(n.strands), w.failure)
	}
	w.spawn(n, "wrong", func() { panic("a bug") }, nil)
	w.until(w.now.Add(time.Hour))
	if w.failure == nil {
		t.Error("a panic is no failure")
	}
}
