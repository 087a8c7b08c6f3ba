package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// Each fault happens once, to the tasks of the first call; asked again the
// carrier does its work.
func TestCarrierFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(ctx context.Context, tasks []license.Task) ([]license.Outcome, error)
		retry int // of 10 tasks
	}{
		{"error", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			return all(tasks, license.Refused), errors.New("out of order")
		}, 10},
		{"error that says refused", func(context.Context, []license.Task) ([]license.Outcome, error) {
			return nil, errors.New("refused")
		}, 10},
		{"panic", func(context.Context, []license.Task) ([]license.Outcome, error) { panic("broken") }, 10},
		{"hang", func(ctx context.Context, _ []license.Task) ([]license.Outcome, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, 10},
		{"nothing", func(context.Context, []license.Task) ([]license.Outcome, error) { return nil, nil }, 10},
		{"some missing", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			return all(tasks[3:], license.Done), nil
		}, 3},
		{"any order", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := all(tasks, license.Done)
			slices.Reverse(out)
			return out, nil
		}, 0},
		{"double", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			return append(all(tasks, license.Done), all(tasks[:4], license.Done)...), nil
		}, 0},
		{"contradicted", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := append(all(tasks, license.Done), all(tasks[:4], license.Refused)...)
			return append(out, all(tasks[:2], license.Done)...), nil
		}, 4},
		{"unasked", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			strange := slices.Clone(tasks)
			for i := range strange {
				if strange[i].Request = "another"; i > 5 {
					strange[i].Request, strange[i].Device.ICCID = tasks[i].Request, "89148000000099999999"
				}
			}
			return append(all(strange, license.Refused), all(tasks, license.Done)...), nil
		}, 0},
		{"only unasked", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			strange := slices.Clone(tasks)
			strange[7].Device.ICCID = "89148000000099999999"
			return all(strange, license.Done), nil
		}, 1},
		{"no verdict", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			return all(tasks, license.Verdict(17)), nil
		}, 10},
		{"stuck is not a carrier's to say", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			return all(tasks, license.Stuck), nil
		}, 10},
		{"another lease", func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := all(tasks, license.Done)
			for i := range out {
				out[i].Task.Lease, out[i].Task.Account = 99, "other"
			}
			return out, nil
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &asked{answer: func(ctx context.Context, call int, tasks []license.Task) ([]license.Outcome, error) {
					if call == 0 {
						return tt.fault(ctx, tasks)
					}
					return all(tasks, license.Done), nil
				}}
				b := start(t, newLedger(), c, nil)
				b.give(large, "r1", 10)
				pass(15 * time.Second)
				retries := 0
				for _, o := range b.ledger.outcomes() {
					switch o.Verdict {
					case license.Retry:
						retries++
					case license.Done:
					default:
						t.Errorf("%s is %v, want done or retry", o.Task.Key(), o.Verdict)
					}
				}
				if retries != tt.retry {
					t.Errorf("%d tasks were put off, want %d", retries, tt.retry)
				}
				if n := b.ledger.count(license.PhaseListener); n != 10 {
					t.Errorf("%d tasks done in the end, want 10", n)
				}
				if n := len(b.carrier.times()); n != 10 {
					t.Errorf("the carrier saw %d keys, want the same 10", n)
				}
				b.empty(t)
			})
		})
	}
}

// A carrier that never answers is asked for a day; then an operator decides.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &asked{answer: func(context.Context, int, []license.Task) ([]license.Outcome, error) {
			return nil, errors.New("no route")
		}}
		b := start(t, newLedger(), c, nil)
		begin := time.Now()
		b.give(large, "r1", 3)
		pass(24*time.Hour - time.Second)
		if n := b.ledger.count(license.PhaseCarrier); n != 3 {
			t.Errorf("%d tasks still wait after nearly a day, want 3", n)
		}
		pass(10 * time.Minute)
		if n := b.ledger.count(license.PhaseStuck); n != 3 {
			t.Errorf("%d tasks are stuck after a day, want 3", n)
		}
		if got := value(t, b.metrics.stuck); got != 3 {
			t.Errorf("%v counted as stuck, want 3", got)
		}
		calls := len(c.asks())
		pass(time.Hour)
		if len(c.asks()) != calls {
			t.Error("a stuck task is asked for again")
		}
		if calls < 200 || calls > 1200 {
			t.Errorf("the carrier was asked %d times in %v, want once in some five minutes for each task", calls, time.Since(begin))
		}
		for _, o := range b.ledger.outcomes() {
			if o.Verdict != license.Retry && o.Verdict != license.Stuck {
				t.Fatalf("an outcome is %v: silence is not refusal", o.Verdict)
			}
		}
		b.empty(t)
	})
}

func TestStoreFaultsLoseNothing(t *testing.T) {
	for name, fault := range map[string]error{
		"out of reach": &license.UnavailableError{Err: errors.New("no primary")},
		"strange":      errors.New("strange"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, begin := newLedger(), time.Now()
				l.refuse = func(license.SettleParams) error {
					if time.Since(begin) < 9*time.Second {
						return fault
					}
					return nil
				}
				b := start(t, l, &asked{}, func(c *Config) { c.Capacity = 20_000 })
				b.give(large, "r1", 2500)
				b.give(small, "s1", 700)
				pass(5 * time.Second)
				if n := b.pending.size(); n > b.pending.most+4*batchSize {
					t.Errorf("%d outcomes wait, want them bounded", n)
				}
				pass(10 * time.Second)
				if n := l.count(license.PhaseListener); n != 3200 {
					t.Errorf("%d settled once the store was back, want 3200", n)
				}
				for key, n := range b.carrier.times() {
					if n != 1 {
						t.Errorf("the carrier was asked for %s %d times: an outcome was lost", key, n)
					}
				}
				b.empty(t)
			})
		})
	}
}

// One request that can never be settled holds up no other.
func TestOneRequestCannotBeSettled(t *testing.T) {
	for _, n := range []int{3, 1500} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			l.refuse = func(p license.SettleParams) error {
				if slices.ContainsFunc(p.Outcomes, func(o license.Outcome) bool { return o.Task.Request == "bad" }) {
					return errors.New("constraint")
				}
				return nil
			}
			b := start(t, l, &asked{}, nil)
			b.give(large, "bad", n)
			for i := range 10 {
				b.give(small, fmt.Sprintf("s%d", i), 2)
			}
			pass(2 * time.Minute)
			if got := l.count(license.PhaseListener); got != 20 {
				t.Errorf("beside %d bad ones %d tasks settled, want 20", n, got)
			}
			if got := l.count(license.PhaseCarrier); got != n {
				t.Errorf("%d bad tasks are left, want %d", got, n)
			}
		})
	}
}

// While the store settles nothing, no more is taken in than there is room for.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.tasks(large, "r1", 5000, 0)
		l.refuse = func(license.SettleParams) error { return &license.UnavailableError{Err: errors.New("full")} }
		b := start(t, l, &asked{}, func(c *Config) { c.Capacity = 1000 })
		for i := range 50 {
			b.give(small, fmt.Sprintf("s%d", i), 100)
			pass(100 * time.Millisecond)
		}
		if n := b.room.size(); n > 1000 {
			t.Errorf("%d tasks are in memory, want at most 1000", n)
		}
	})
}

func TestShutdown(t *testing.T) {
	answer := func(took time.Duration) func(context.Context, int, []license.Task) ([]license.Outcome, error) {
		return func(ctx context.Context, _ int, tasks []license.Task) ([]license.Outcome, error) {
			select {
			case <-time.After(took):
				return all(tasks, license.Done), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
	t.Run("calls in flight end and are settled", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, newLedger(), &asked{answer: answer(3 * time.Second)}, func(c *Config) { c.Callers = 2 })
			b.give(large, "r1", 2000)
			pass(time.Second)
			begin := time.Now()
			if err := b.end(t); err != nil {
				t.Errorf("Run = %v", err)
			}
			if n := b.ledger.count(license.PhaseListener); n != 1000 {
				t.Errorf("%d settled, want the 1000 at the carrier", n)
			}
			if n := len(b.carrier.asks()); n != 2 {
				t.Errorf("%d calls, want no new one", n)
			}
			if due := b.ledger.dueSince(begin); due != 1000 {
				t.Errorf("%d tasks are due since Run was told to end, want those that were not begun", due)
			}
			if n := b.Reserve(large, 5); n != 0 {
				t.Errorf("Reserve after the end = %d, want 0", n)
			}
			b.Give(large, 0, nil)
		})
	})
	t.Run("calls beyond the grace period are unknown", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, newLedger(), &asked{answer: answer(8 * time.Second)}, func(c *Config) { c.Grace = 2 * time.Second })
			b.give(large, "r1", 20)
			pass(time.Second)
			begin := time.Now()
			if err := b.end(t); err != nil {
				t.Errorf("Run = %v", err)
			}
			if took := time.Since(begin); took != 2*time.Second {
				t.Errorf("Run took %v to end, want the grace period", took)
			}
			for _, o := range b.ledger.outcomes() {
				if o.Verdict != license.Retry {
					t.Errorf("%s is %v, want retry", o.Task.Key(), o.Verdict)
				}
			}
			if n := len(b.ledger.outcomes()); n != 20 {
				t.Errorf("%d outcomes settled, want 20", n)
			}
		})
	})
	t.Run("a store that is gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			l.refuse = func(license.SettleParams) error { return &license.UnavailableError{Err: errors.New("gone")} }
			b := start(t, l, &asked{}, func(c *Config) { c.Callers, c.Capacity = 1, 4000 })
			b.give(large, "r1", 2500)
			pass(time.Second)
			begin := time.Now()
			if err := b.end(t); err == nil {
				t.Error("Run = nil though outcomes were left, want an error")
			}
			if took := time.Since(begin); took > 11*time.Second {
				t.Errorf("Run took %v to end, want the grace period", took)
			}
			if reserved, _, _ := b.sink.state(); reserved != 0 {
				t.Errorf("the sink still has %d reserved", reserved)
			}
		})
	})
	for name, refusal := range map[string]error{
		"tasks that come late are given back":        nil,
		"tasks that cannot be given back are left":   &license.UnavailableError{Err: errors.New("gone")},
		"tasks that cannot be given back, strangely": errors.New("strange"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger()
				l.refuseBack = func() error { return refusal }
				b := start(t, l, &asked{}, nil)
				room := b.Reserve(large, 50)
				begin := time.Now()
				b.stop()
				pass(time.Second)
				b.Give(large, room, l.tasks(large, "r1", 40, 20*time.Second))
				if err := b.end(t); err != nil || time.Since(begin) != time.Second {
					t.Errorf("Run = %v after %v, want nil when the tasks have come", err, time.Since(begin))
				}
				want := 40
				if refusal != nil {
					want = 0
				}
				if due := l.dueSince(begin); due != want {
					t.Errorf("%d tasks are due, want %d", due, want)
				}
				b.empty(t)
			})
		})
	}
	t.Run("at rest", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, newLedger(), &asked{}, nil)
			begin := time.Now()
			if err := b.end(t); err != nil || time.Since(begin) != 0 {
				t.Errorf("Run = %v after %v, want nil at once", err, time.Since(begin))
			}
		})
	})
}

// logged keeps a log.
type logged struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A carrier that cannot be asked is told of once, and once that it can be again;
// one that says when it wants to be asked is asked no sooner.
func TestTroubleIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		begin := time.Now()
		c := &asked{answer: func(_ context.Context, call int, tasks []license.Task) ([]license.Outcome, error) {
			switch {
			case call < 5:
				return nil, errors.New("no route")
			case call == 5:
				return nil, &license.UnavailableError{Err: errors.New("too many calls"), After: 20 * time.Minute}
			}
			return all(tasks, license.Done), nil
		}}
		b := start(t, newLedger(), c, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(log, nil)) })
		b.give(large, "r1", 1)
		pass(10 * time.Minute)
		if n := b.trouble.failures(); n != 6 {
			t.Errorf("%d calls in a row failed, want 6", n)
		}
		if strings.Contains(log.String(), "answers again") {
			t.Errorf("the carrier is said to answer:\n%s", log.String())
		}
		pass(20 * time.Minute)
		asks := len(c.asks())
		c.mu.Lock()
		last := c.at[asks-1].Sub(begin)
		c.mu.Unlock()
		if asks != 7 || last < 20*time.Minute {
			t.Errorf("asked %d times, the last after %v; want 7, and not for 20 minutes after the sixth", asks, last)
		}
		if n := b.trouble.failures(); n != 0 {
			t.Errorf("%d failures are left of a carrier that answers", n)
		}
		for _, want := range []string{"calling the carrier; its tasks are kept", "the carrier answers again"} {
			if n := strings.Count(log.String(), want); n != 1 {
				t.Errorf("%q is told %d times, want once:\n%s", want, n, log.String())
			}
		}
		b.empty(t)
	})
}
