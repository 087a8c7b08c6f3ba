package store

import (
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// TestQuietBesideNoisy has one account queue requests of 10,000 devices without a
// pause while the workers write what came of them, and another account queue a
// request of one device at every moment of that: it waits for one more large
// transaction at most.
func TestQuietBesideNoisy(t *testing.T) {
	s := openGroup(t)
	for moment := range 60 {
		g := &group{s: s, queue: newQueue()}
		quiet := asking("quiet", 1)
		fill := func() {
			for range 3 {
				g.queue.add(asking("noisy", 10_000))
			}
			for _, writer := range []license.AccountName{"noisy", "settles", "delivers"} {
				g.queue.add(asking(writer, 500))
				g.queue.add(asking(writer, 500))
			}
		}
		for range moment {
			fill()
			g.take()
		}
		g.queue.add(quiet)
		large := 0
		for done := false; !done; {
			fill()
			calls, _, _ := g.take()
			if calls[0].weight == 10_000 {
				large++
			}
			for _, c := range calls {
				done = done || c == quiet
			}
			if large > 1 {
				t.Fatalf("at moment %d the quiet account waits for a second large transaction", moment)
			}
		}
	}
}

// asking is a call of an account that writes so much.
func asking(account license.AccountName, weight int) *call {
	return &call{account: account, most: weight, weight: weight, done: make(chan struct{})}
}
