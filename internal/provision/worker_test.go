package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

const (
	large = license.AccountName("0000000001-00001")
	small = license.AccountName("0000000002-00001")
)

func TestBornLeased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, newLedger(), &asked{}, func(c *Config) { c.Poll = time.Hour })
		if born := b.give(large, "r1", 1200); born != 1200 {
			t.Errorf("%d tasks were born leased, want all 1200", born)
		}
		synctest.Wait()
		if n := b.ledger.count(license.PhaseListener); n != 1200 {
			t.Errorf("%d tasks settled, want 1200", n)
		}
		if _, n, woken := b.sink.state(); n != 1200 || woken != 0 {
			t.Errorf("the sink was given %d callbacks and woken %d times, want 1200 and none", n, woken)
		}
		b.ledger.mu.Lock()
		defer b.ledger.mu.Unlock()
		if len(b.ledger.claims) != 0 {
			t.Errorf("claimed %v, want nothing", b.ledger.claims)
		}
		checkCalls(t, b.carrier)
		for _, n := range b.ledger.sizes {
			if n > batchSize {
				t.Errorf("settled %d at once, want at most %d", n, batchSize)
			}
		}
		b.empty(t)
	})
}

// checkCalls checks what every call of a carrier is promised.
func checkCalls(t *testing.T, c *asked) {
	t.Helper()
	for _, tasks := range c.asks() {
		if len(tasks) == 0 || len(tasks) > batchSize {
			t.Errorf("a call of %d tasks, want 1 to %d", len(tasks), batchSize)
		}
		for _, task := range tasks {
			f := tasks[0]
			if task.Request != f.Request || task.Account != f.Account || task.SKU != f.SKU || task.Action != f.Action {
				t.Errorf("a call mixes %v with %v", task.Key(), f.Key())
			}
		}
	}
}

func TestClaimsWhatNobodyHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		for i := range 5 {
			l.tasks(large, fmt.Sprintf("r%d", i), 300, 0)
			l.tasks(small, fmt.Sprintf("s%d", i), 3, 0)
		}
		b := start(t, l, &asked{}, nil)
		pass(2 * pace) // what was settled second may wait
		if n := l.count(license.PhaseListener); n != 1515 {
			t.Errorf("%d tasks settled at start, want 1515", n)
		}
		checkCalls(t, b.carrier)
		for key, n := range b.carrier.times() {
			if n != 1 {
				t.Errorf("the carrier was asked for %s %d times", key, n)
			}
		}
		l.tasks(small, "polled", 2, 0)
		pass(260 * time.Millisecond)
		l.tasks(small, "woken", 2, 0)
		b.Wake()
		synctest.Wait()
		if n := l.count(license.PhaseListener); n != 1519 {
			t.Errorf("%d tasks settled, want 1519", n)
		}
		b.empty(t)
	})
}

// What comes in while the store settles goes into one settlement, whosever it is.
func TestSettlesAccountsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(license.SettleParams) error {
			<-time.After(time.Second)
			return nil
		}
		b := start(t, l, &asked{}, nil)
		for i := range 30 {
			b.give(license.AccountName(fmt.Sprintf("account-%d", i)), fmt.Sprintf("r%d", i), 2)
			synctest.Wait()
		}
		pass(5 * time.Second)
		l.mu.Lock()
		defer l.mu.Unlock()
		if diff := cmp.Diff([]int{2, 58}, l.sizes); diff != "" || l.mixed != 1 {
			t.Errorf("%d mixed settlements, sizes (-want +got):\n%s", l.mixed, diff)
		}
	})
}

// While the store is slow with a large account, which has the most outcomes that may
// wait and would keep every caller busy, another's task is carried and settled at once.
func TestSmallDoesNotWaitForLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.refuse = func(p license.SettleParams) error {
			if slices.ContainsFunc(p.Outcomes, func(o license.Outcome) bool { return o.Task.Account == large }) {
				<-time.After(time.Second)
			}
			return nil
		}
		b := start(t, l, &asked{}, func(c *Config) { c.Capacity = 20_000 })
		b.give(large, "r0", 10_000)
		for i := range 20 {
			synctest.Wait()
			if n := b.pending.size(); n < b.pending.most-batchSize {
				t.Fatalf("%d outcomes wait, which is no more than the store can do", n)
			}
			before := l.count(license.PhaseListener)
			b.give(small, fmt.Sprintf("s%d", i), 1)
			pass(pace)
			if n := l.count(license.PhaseListener) - before; n != 1 {
				t.Fatalf("%d tasks settled, want the one that came last", n)
			}
		}
		pass(20 * time.Second)
		if n := l.count(license.PhaseListener); n != 10_020 {
			t.Errorf("%d tasks settled in the end, want 10020", n)
		}
		for key, n := range b.carrier.times() {
			if n != 1 {
				t.Errorf("the carrier was asked for %s %d times", key, n)
			}
		}
		b.empty(t)
	})
}

func TestAccountsShare(t *testing.T) {
	for name, claimed := range map[string]bool{"claimed": true, "born leased": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &asked{answer: func(_ context.Context, _ int, tasks []license.Task) ([]license.Outcome, error) {
					<-time.After(time.Second)
					return all(tasks, license.Done), nil
				}}
				l := newLedger()
				if claimed {
					l.tasks(large, "r0", 5000, 0)
				}
				b := start(t, l, c, func(c *Config) { c.Callers, c.Capacity = 2, 1000 })
				if !claimed {
					b.give(large, "r0", 5000)
				}
				pass(time.Millisecond)
				if n := b.room.size(); n > 800 {
					t.Errorf("one account holds %d of 1000, want at most four fifths", n)
				}
				if n := b.Reserve(small, 100); n == 0 {
					t.Error("no room for a second account")
				} else {
					b.Give(small, n, nil)
				}
				l.tasks(small, "s0", 40, 0)
				b.Wake()
				pass(4 * time.Second)
				left := 0
				l.mu.Lock()
				for _, r := range l.rows {
					if r.task.Account == small && r.phase == license.PhaseCarrier {
						left++
					}
				}
				l.mu.Unlock()
				if left > 0 {
					t.Errorf("after 4 s the small account still waits for %d of 40", left)
				}
				pass(time.Minute)
				if n := l.count(license.PhaseListener); n != 5040 {
					t.Errorf("%d tasks settled, want 5040", n)
				}
				b.empty(t)
			})
		})
	}
}

func TestTurnsOfTwoLargeAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := newLedger(), &asked{}
		c.answer = func(_ context.Context, _ int, tasks []license.Task) ([]license.Outcome, error) {
			<-time.After(100 * time.Millisecond)
			return all(tasks, license.Done), nil
		}
		l.tasks(large, "r0", 4000, 0)
		l.tasks(small, "s0", 4000, 0)
		b := start(t, l, c, func(c *Config) { c.Callers, c.Capacity = 1, 2000 })
		pass(time.Second)
		n := map[license.AccountName]int{}
		for _, o := range l.outcomes() {
			n[o.Task.Account]++
		}
		if n[large] == 0 || n[small] == 0 || max(n[large], n[small]) > 2*min(n[large], n[small]) {
			t.Errorf("after a second %v are settled, want about the same of both", n)
		}
		pass(time.Minute)
		b.empty(t)
	})
}

func TestLeaseTooShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		b := start(t, newLedger(), &asked{}, func(c *Config) { c.Poll, c.Metrics = time.Hour, reg })
		n := b.Reserve(large, 3)
		tasks := b.ledger.tasks(large, "r1", 3, 9*time.Second) // the timeout is 10 s
		b.Give(large, n, tasks)
		synctest.Wait()
		if calls := b.carrier.asks(); len(calls) != 0 {
			t.Errorf("the carrier was asked %v, want nothing", calls)
		}
		b.empty(t)
		pass(9*time.Second + 2*tick)
		if n := b.ledger.count(license.PhaseListener); n != 3 {
			t.Errorf("%d settled once the lease had ended, want 3", n)
		}
		if got := value(t, b.metrics.dropped); got != 3 {
			t.Errorf("%v tasks counted as dropped, want 3", got)
		}
	})
}

func TestOutcomeAfterALostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := newLedger(), &asked{}
		c.answer = func(_ context.Context, _ int, tasks []license.Task) ([]license.Outcome, error) {
			l.takeOver()
			return all(tasks, license.Done), nil
		}
		b := start(t, l, c, nil)
		b.give(large, "r1", 5)
		synctest.Wait()
		if _, n, _ := b.sink.state(); n != 0 || l.lost != 5 || len(l.log) != 0 {
			t.Errorf("%d callbacks, %d outcomes lost, %d counted, want 0, 5, 0", n, l.lost, len(l.log))
		}
		if got := value(t, b.metrics.lost); got != 5 {
			t.Errorf("%v leases counted as lost, want 5", got)
		}
		b.empty(t)
	})
}

func TestSinkWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, newLedger(), &asked{}, nil)
		b.sink.capacity = 30
		b.give(large, "r1", 100)
		synctest.Wait()
		if _, n, woken := b.sink.state(); n != 30 || woken != 1 {
			t.Errorf("the sink was given %d callbacks and woken %d times, want 30 and once", n, woken)
		}
		b.empty(t)
	})
}

func TestPunctual(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &asked{}
		c.answer = func(_ context.Context, _ int, tasks []license.Task) ([]license.Outcome, error) {
			due := tasks[0].At.Add(1700 * time.Millisecond)
			if time.Now().Before(due) {
				out := all(tasks, license.Later)
				for i := range out {
					out[i].Due = due
				}
				return out, nil
			}
			return all(tasks, license.Done), nil
		}
		b := start(t, newLedger(), c, func(c *Config) { c.Poll = time.Hour })
		at := time.Now()
		b.give(large, "r1", 10)
		pass(5 * time.Second)
		if n := len(c.asks()); n != 2 {
			t.Fatalf("the carrier was asked %d times, want twice", n)
		}
		if late := c.at[1].Sub(at) - 1700*time.Millisecond; late < 0 || late > tick {
			t.Errorf("asked again %v late, want at most %v", late, tick)
		}
	})
}

func TestSlowLooksAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.lookTime = time.Second
		l.tasks(large, "r1", 5000, 0)
		b := start(t, l, &asked{}, func(c *Config) { c.Capacity = 500 })
		for range 60 {
			pass(time.Second)
			b.Wake()
		}
		l.mu.Lock()
		looks := len(l.looks)
		l.mu.Unlock()
		if n := looks; n < 4 || n > 7 {
			t.Errorf("%d looks of a second each within a minute, want about 6", n)
		}
		if n := l.count(license.PhaseListener); n != 5000 {
			t.Errorf("%d settled, want 5000: what one look found can be claimed without another", n)
		}
	})
}

func TestLooksThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fails := newLedger(), 0
		l.tasks(large, "r1", 5, 0)
		begin := time.Now()
		l.lookErr = func() error {
			if time.Since(begin) < time.Minute {
				fails++
				return errors.New("out of reach")
			}
			return nil
		}
		b := start(t, l, &asked{}, nil)
		pass(time.Minute + 5*time.Second)
		if fails > 25 {
			t.Errorf("%d looks within a minute of failures, want a few", fails)
		}
		if n := l.count(license.PhaseListener); n != 5 {
			t.Errorf("%d settled, want 5", n)
		}
		b.empty(t)
	})
}

func TestNew(t *testing.T) {
	ok := Config{Queue: newLedger(), Carrier: &asked{}, Sink: &sink{}}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"zero", func(*Config) {}, ""},
		{"no queue", func(c *Config) { c.Queue = nil }, "required"},
		{"no carrier", func(c *Config) { c.Carrier = nil }, "required"},
		{"no sink", func(c *Config) { c.Sink = nil }, "required"},
		{"callers", func(c *Config) { c.Callers = -1 }, "callers must not be negative"},
		{"grace", func(c *Config) { c.Grace = -1 }, "grace must not be negative"},
		{"lease", func(c *Config) { c.Lease = time.Second }, "the lease (1s) must be longer than the carrier's timeout (10s)"},
	} {
		c := ok
		tt.change(&c)
		_, err := New(c)
		if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want %q", tt.name, err, tt.want)
		}
	}
	ok.Metrics = prometheus.NewRegistry()
	if _, err := New(ok); err != nil {
		t.Errorf("New with metrics: %v", err)
	}
	if _, err := New(ok); err == nil {
		t.Error("New twice with one registry: no error")
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		c := &asked{answer: func(_ context.Context, _ int, tasks []license.Task) ([]license.Outcome, error) {
			out := all(tasks, license.Done)
			out[0].Verdict = license.Refused
			return out, nil
		}}
		b := start(t, newLedger(), c, func(c *Config) { c.Metrics = reg })
		b.give(large, "r1", 10)
		synctest.Wait()
		for v, want := range map[license.Verdict]float64{license.Done: 9, license.Refused: 1, license.Stuck: 0} {
			if got := value(t, b.metrics.tasks[v][license.Assign]); got != want {
				t.Errorf("%v %s counted, want %v", got, v, want)
			}
		}
		families, err := reg.Gather()
		if err != nil || len(families) != 11 {
			t.Errorf("gathered %d metrics, %v, want 11", len(families), err)
		}
	})
}
