package carrier

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

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
func testConformance(t *testing.T, start func(t *testing.T) Provisioner) {
	for _, f := range Check(t.Context(), start(t), CheckConfig{}) {
		t.Run(f.Check, func(t *testing.T) {
			for _, fault := range f.Faults {
				t.Error(fault)
			}
		})
	}
}

// verdicts asks c and returns its final verdicts by key, having checked that
// there is one for each task.
func verdicts(t *testing.T, c Provisioner, tasks []license.Task) map[string]license.Verdict {
	t.Helper()
	var f Finding
	got := newChecker(c, CheckConfig{}).verdicts(t.Context(), &f, tasks)
	for _, fault := range f.Faults {
		t.Error(fault)
	}
	return got
}

type provisionerFunc func(ctx context.Context, tasks []license.Task) ([]license.Outcome, error)

func (f provisionerFunc) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	return f(ctx, tasks)
}

// TestChecksAreNotBlind gives the checks carriers that break a promise each.
func TestChecksAreNotBlind(t *testing.T) {
	done := func(tasks []license.Task) []license.Outcome {
		out := make([]license.Outcome, len(tasks))
		for i := range tasks {
			out[i] = license.Outcome{Task: tasks[i], Verdict: license.Done}
		}
		return out
	}
	for name, tt := range map[string]struct {
		carrier provisionerFunc
		check   string // the check that must notice; empty: all are content
		want    string
	}{
		"good": {carrier: func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) { return done(tasks), nil }},
		"one is missing": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			return done(tasks)[1:], nil
		}, "one outcome for each task", "no outcome"},
		"one twice": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			return done(append(tasks, tasks[0])), nil
		}, "one outcome for each task", "two outcomes"},
		"wrong device": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := done(tasks)
			out[0].Task.Device.ICCID = "89148000000000000012"
			return out, nil
		}, "one outcome for each task", "not asked for"},
		"changes its mind": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := done(tasks)
			for i := range out {
				if out[i].Task.Attempt > 0 {
					out[i].Verdict, out[i].Comment = license.Refused, "already done"
				}
			}
			return out, nil
		}, "the same answer under the same key", "refused when asked again"},
		"refuses without a word": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := done(tasks)
			out[0].Verdict = license.Refused
			return out, nil
		}, "one outcome for each task", "without a word"},
		"large batches": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			if len(tasks) > 100 {
				return nil, fmt.Errorf("%d are too many", len(tasks))
			}
			return done(tasks), nil
		}, "a batch of the largest size", "500 are too many"},
		"changes the tasks": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := done(tasks)
			tasks[0].SKU = "other"
			return out, nil
		}, "the tasks stay as they were", "changed the tasks"},
		"says stuck": {func(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
			out := done(tasks)
			out[0].Verdict = license.Stuck
			return out, nil
		}, "one outcome for each task", "not a carrier's to say"},
		"half an answer to nobody": {func(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
			if ctx.Err() != nil {
				return nil, nil
			}
			return done(tasks), nil
		}, "a caller who hangs up", "no error"},
	} {
		t.Run(name, func(t *testing.T) {
			noticed := false
			for _, f := range Check(t.Context(), tt.carrier, CheckConfig{}) {
				all := strings.Join(f.Faults, "\n")
				if tt.check == "" && all != "" {
					t.Errorf("%s: %s", f.Check, all)
				}
				noticed = noticed || strings.HasSuffix(f.Check, tt.check) && strings.Contains(all, tt.want)
			}
			if !noticed {
				t.Errorf("no check noticed it")
			}
		})
	}
}
