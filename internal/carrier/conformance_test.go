package carrier

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
)

// provisioner is provision.Carrier, which this package does not import.
type provisioner interface {
	Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error)
}

// someTasks are n tasks of one request accepted at the given time.
func someTasks(n int, action license.Action, at time.Time) []license.Task {
	tasks := make([]license.Task, n)
	for i := range tasks {
		tasks[i] = license.Task{
			Request: license.RequestID("0190a6f0-0000-7000-8000-" + fmt.Sprintf("%012d", at.Unix()%1e6)),
			Account: "0000123456-00001", SKU: license.SKUFlexible, Action: action,
			Device: license.Device{ICCID: license.ICCID(fmt.Sprintf("8914800000000%07d", i)), IMEI: "490154203237518"},
			At:     at, Lease: int64(i + 1), Until: at.Add(20 * time.Second),
		}
	}
	return tasks
}

// testConformance checks what every carrier must do (provision.Carrier), given
// one that answers each task with Done or Refused at once. Each carrier of this
// package calls it from its own test.
func testConformance(t *testing.T, start func(t *testing.T) provisioner) {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	for _, action := range []license.Action{license.Assign, license.Unassign} {
		t.Run(string(action), func(t *testing.T) {
			t.Run("one outcome per task", func(t *testing.T) {
				for _, n := range []int{1, 2, 500} {
					verdicts(t, start(t), someTasks(n, action, at))
				}
			})
			t.Run("same answer under the same key", func(t *testing.T) { testSameKey(t, start(t), someTasks(60, action, at)) })
			t.Run("many callers", func(t *testing.T) { testManyCallers(t, start(t), someTasks(50, action, at)) })
			t.Run("tasks unchanged", func(t *testing.T) {
				tasks := someTasks(20, action, at)
				before := slices.Clone(tasks)
				verdicts(t, start(t), tasks)
				if diff := cmp.Diff(before, tasks); diff != "" {
					t.Errorf("Provision changed the tasks (-before +after):\n%s", diff)
				}
			})
			t.Run("ended context", func(t *testing.T) { testEndedContext(t, start(t), someTasks(5, action, at)) })
		})
	}
}

// verdicts asks c and returns its final verdicts by key, having checked that
// there is one for each task.
func verdicts(t *testing.T, c provisioner, tasks []license.Task) map[string]license.Verdict {
	t.Helper()
	out, err := c.Provision(t.Context(), tasks)
	if err != nil {
		t.Fatalf("Provision of %d tasks: %v", len(tasks), err)
	}
	got := map[string]license.Verdict{}
	for _, o := range out {
		if _, twice := got[o.Task.Key()]; twice {
			t.Errorf("two outcomes for %s", o.Task.Key())
		}
		if o.Verdict != license.Done && o.Verdict != license.Refused {
			t.Errorf("outcome for %s is %v, want done or refused", o.Task.Key(), o.Verdict)
		}
		if o.Verdict == license.Refused && o.Comment == "" {
			t.Errorf("%s is refused without a word", o.Task.Key())
		}
		got[o.Task.Key()] = o.Verdict
	}
	for _, task := range tasks {
		if _, ok := got[task.Key()]; !ok {
			t.Errorf("no outcome for %s", task.Key())
		}
	}
	if len(got) != len(tasks) {
		t.Errorf("%d outcomes for %d tasks", len(got), len(tasks))
	}
	return got
}

// testSameKey asks again as a worker does after a timeout: another attempt and
// lease, another order, other tasks of the request beside it.
func testSameKey(t *testing.T, c provisioner, tasks []license.Task) {
	first := verdicts(t, c, tasks)
	again := slices.Clone(tasks)
	slices.Reverse(again)
	for i := range again {
		again[i].Attempt++
		again[i].Lease += 7
		again[i].Until = again[i].Until.Add(time.Minute)
	}
	second := verdicts(t, c, again[:40])
	for key, v := range verdicts(t, c, again[40:]) {
		second[key] = v
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("other verdicts when asked again (-first +second):\n%s", diff)
	}
}

func testManyCallers(t *testing.T, c provisioner, tasks []license.Task) {
	answers := make([]map[string]license.Verdict, 4)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = verdicts(t, c, slices.Clone(tasks)) })
	}
	wg.Wait()
	for _, a := range answers[1:] {
		if diff := cmp.Diff(answers[0], a); diff != "" {
			t.Errorf("two callers got different verdicts (-one +other):\n%s", diff)
		}
	}
}

// testEndedContext wants an error, or an answer that is whole all the same.
func testEndedContext(t *testing.T, c provisioner, tasks []license.Task) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if out, err := c.Provision(ctx, tasks); err == nil && len(out) != len(tasks) {
		t.Errorf("Provision with an ended context gave %d outcomes for %d tasks and no error", len(out), len(tasks))
	}
	verdicts(t, c, tasks) // and it does no harm
}
