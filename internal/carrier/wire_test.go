package carrier

import (
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// FuzzAnswer gives answers of any kind: each task has one outcome, in its place,
// and none is done or refused that was not said to be, plainly and only that.
func FuzzAnswer(f *testing.F) {
	tasks := someTasks(3, license.Assign, time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC))
	key := tasks[1].Key()
	for _, body := range []string{
		`{"outcomes":[]}`, `{"outcomes":null}`, `{"outcomes":[null]}`, `[]`, `{"outcomes":[{"key":"` + key + `","outcome":"done"}]}`,
		`{"outcomes":[{"key":"` + key + `","outcome":"refused","code":"already-licensed","text":"\u0000"}]}`,
		`{"outcomes":[{"key":"` + key + `","outcome":"later","due":"2026-11-23T10:00:00Z"},{"key":"x"}]}`,
		`{"outcomes":[{"key":"` + key + `","outcome":"done"},{"key":"` + key + `","outcome":"retry","due":"soon"}]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		said, err := decodeOutcomes(body)
		if err != nil {
			return
		}
		words := map[string]map[string]bool{}
		for _, m := range said {
			if words[m.Key] == nil {
				words[m.Key] = map[string]bool{}
			}
			words[m.Key][m.Outcome] = true
		}
		out, odd := answer(tasks, said, tasks[0].At)
		if len(out) != len(tasks) {
			t.Fatalf("%d outcomes for %d tasks", len(out), len(tasks))
		}
		open := 0
		for i, o := range out {
			if o.Task != tasks[i] {
				t.Errorf("outcome %d is of %s", i, o.Task.Key())
			}
			plain := words[o.Task.Key()]
			if o.Verdict != license.Retry && (len(plain) != 1 || !plain[o.Verdict.String()]) {
				t.Errorf("%s is %v, and was said to be %v", o.Task.Key(), o.Verdict, plain)
			}
			if len(plain) == 0 {
				open++
			}
		}
		if odd.missing != open {
			t.Errorf("%d missing outcomes are counted, want %d", odd.missing, open)
		}
	})
}
