package provision

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// idle is a Queue, a Carrier and a Sink that do no work, so that what is
// measured is the worker.
type idle struct{ settled chan int }

func (idle) DueAccounts(context.Context, license.Phase, time.Time) ([]license.Due, error) {
	return nil, nil
}

func (idle) ClaimTasks(context.Context, license.ClaimParams) ([]license.Task, error) { return nil, nil }

func (i idle) SettleTasks(_ context.Context, p license.SettleParams) (license.Settled, error) {
	i.settled <- len(p.Outcomes)
	return license.Settled{Counted: len(p.Outcomes)}, nil
}

func (idle) GiveTasksBack(context.Context, time.Time, []license.Task) (int, error) { return 0, nil }

func (idle) Provision(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
	return all(tasks, license.Done), nil
}

func (idle) Reserve(_ license.AccountName, n int) int                        { return n }
func (idle) Give(_ license.AccountName, _ int, callbacks []license.Callback) {}
func (idle) Wake()                                                           {}

// BenchmarkWorker takes tasks through a worker, from Give to the settlement, by
// the number of devices in a request; one iteration is one task.
func BenchmarkWorker(b *testing.B) {
	for _, n := range []int{1, 2, 100, 500} {
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			i := idle{settled: make(chan int, 1024)}
			w, err := New(Config{Queue: i, Carrier: i, Sink: i})
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- w.Run(ctx) }()
			tasks := newLedger().tasks(large, "r", n, time.Hour)
			given, settled := 0, 0
			b.ReportAllocs()
			for settled < b.N {
				if w.Reserve(large, n) == n {
					given += n
					w.Give(large, n, append([]license.Task(nil), tasks...))
				} else {
					settled += <-i.settled
				}
				for done := given >= b.N; done && settled < given; {
					settled += <-i.settled
				}
			}
			stop()
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}
