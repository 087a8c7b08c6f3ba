package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// crowd passes a turnstile for an account, so many at once, and returns how many were
// inside together at most. Each writes for a second.
func crowd(t *testing.T, ts *turnstile, account license.AccountName, calls, weight int) (most int32) {
	t.Helper()
	var group sync.WaitGroup
	var inside, peak atomic.Int32
	for range calls {
		group.Go(func() {
			err := ts.pass(t.Context(), account, weight, func(*hold) error {
				n := inside.Add(1)
				for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
				}
				time.Sleep(calm / 10)
				inside.Add(-1)
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	return peak.Load()
}

func ask(t *testing.T, ts *turnstile, account license.AccountName, takes time.Duration) {
	t.Helper()
	if err := ts.pass(t.Context(), account, 1, func(*hold) error {
		time.Sleep(takes)
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestTurnstile: what is much goes one at a time where another account lately asked
// for little, and all at once where none did; what is little never waits.
func TestTurnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurnstile(newLittles())
		if n := crowd(t, ts, "noisy", 5, 500); n != 5 {
			t.Errorf("nobody else is there: %d at once, want 5", n)
		}
		ask(t, ts, "noisy", 0)
		if n := crowd(t, ts, "noisy", 5, 500); n != 5 {
			t.Errorf("it asks for little itself: %d at once, want 5", n)
		}
		ask(t, ts, "quiet", 0)
		if n := crowd(t, ts, "noisy", 5, 500); n != 1 {
			t.Errorf("another asks for little: %d at once, want 1", n)
		}
		ask(t, ts, "quiet", 0)
		if n := crowd(t, ts, "other", 5, 1); n != 5 {
			t.Errorf("little calls: %d at once, want 5", n)
		}
		time.Sleep(2 * calm)
		if n := crowd(t, ts, "noisy", 5, 10_000); n != 5 {
			t.Errorf("after a while: %d at once, want 5", n)
		}
	})
}

// TestTurnstileHolds: what is much waits between its statements while something
// little is under way or expected, and no longer than it should. Where others lately
// asked for little, the log is written before.
func TestTurnstileHolds(t *testing.T) {
	for name, c := range map[string]struct {
		quiet func(*testing.T, *turnstile)
		want  time.Duration
	}{
		"nothing little":       {func(*testing.T, *turnstile) {}, 0},
		"little, soon done":    {func(t *testing.T, ts *turnstile) { ask(t, ts, "quiet", 5*time.Millisecond) }, 5 * time.Millisecond},
		"little, that lasts":   {func(t *testing.T, ts *turnstile) { ask(t, ts, "quiet", time.Minute) }, holdMost},
		"its own":              {func(t *testing.T, ts *turnstile) { ask(t, ts, "noisy", time.Minute) }, 0},
		"a settlement to come": {func(t *testing.T, ts *turnstile) { ask(t, ts, "quiet", 0); ts.littles.expect("quiet") }, promptly},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ts := newTurnstile(newLittles())
				var took time.Duration
				var group sync.WaitGroup
				flushed, portion := 0, 0
				ts.flush = func(context.Context) { flushed++ }
				err := ts.pass(t.Context(), "noisy", 500, func(h *hold) error {
					group.Go(func() { c.quiet(t, ts) })
					synctest.Wait()
					begun := time.Now()
					h.wait()
					took = time.Since(begun)
					portion = h.portion()
					return nil
				})
				if err != nil || took != c.want {
					t.Errorf("held for %v, %v; want %v", took, err, c.want)
				}
				if others := c.want > 0; flushed > 0 != others || flushed > 1 {
					t.Errorf("the log was written %d times; others ask for little: %t", flushed, others)
				}
				if want := portionMost; c.want > 0 && portion != want/2 || c.want == 0 && portion != want {
					t.Errorf("it writes %d rows between two waits", portion)
				}
				group.Wait()
			})
		})
	}
}

// TestTurnstileGivenUp: who gives up before its turn keeps nobody from theirs.
func TestTurnstileGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newTurnstile(newLittles())
		ask(t, ts, "quiet", 0)
		var group sync.WaitGroup
		group.Go(func() { crowd(t, ts, "noisy", 1, 500) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := ts.pass(ctx, "noisy", 500, func(*hold) error {
			t.Error("it ran all the same")
			return nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given up: %v", err)
		}
		group.Wait()
		if n := crowd(t, ts, "noisy", 3, 500); n != 1 {
			t.Errorf("afterwards: %d at once, want 1", n)
		}
		if ts.busy {
			t.Error("the turn is nobody's, and not free")
		}
	})
}

// TestLittleShare: little calls of SQLite's queue go before more, as much as that is,
// and then it has its turn.
func TestLittleShare(t *testing.T) {
	q := newQueue()
	q.add(asking("noisy", 500))
	for i := range 700 {
		q.add(asking(license.AccountName(rune('a'+i%20)), 1))
	}
	before := 0
	for {
		calls := q.takeLittles()
		if len(calls) == 0 {
			break
		}
		before += len(calls)
	}
	if c := q.takeLight(); before != 500 || c.account != "noisy" {
		t.Errorf("%d little calls went before 500 rows, and then %s", before, c.account)
	}
	if len(q.takeLittles()) != 0 {
		t.Error("with nothing else waiting, little calls are taken apart from the others")
	}
}
