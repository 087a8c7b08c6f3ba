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

// TestLaterForEver has a carrier say "later" and nothing else.
func TestLaterForEver(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		after   time.Duration // since the acceptance
		attempt int
		due     time.Duration // since the acceptance; 0: none is given
		want    license.Verdict
		wantDue time.Duration // since the acceptance
	}{
		{"no time", time.Hour, 3, 0, license.Later, time.Hour + laterAgain},
		{"a time", time.Hour, 3, 5 * time.Hour, license.Later, 5 * time.Hour},
		{"a time beyond the day", time.Hour, 3, 48 * time.Hour, license.Later, 24 * time.Hour},
		{"just before the end", 24*time.Hour - 1, 3, 25 * time.Hour, license.Later, 24 * time.Hour},
		{"after a day", 24 * time.Hour, 3, 25 * time.Hour, license.Retry, 0}, // which is stuck by then: provision's TestDecide
		{"after a day, no time", 24 * time.Hour, 1, 0, license.Retry, 0},
		{"asked for the first time after a day", 30 * time.Hour, 0, 40 * time.Hour, license.Later, 40 * time.Hour},
		{"the same, no time", 30 * time.Hour, 0, 0, license.Later, 30*time.Hour + laterAgain},
	} {
		tasks := someTasks(1, license.Assign, at)
		tasks[0].Attempt = tt.attempt
		said := outcomeMessage{Key: tasks[0].Key(), Outcome: "later"}
		if tt.due != 0 {
			said.Due = at.Add(tt.due).Format(time.RFC3339)
		}
		out, _ := answer(tasks, []outcomeMessage{said}, at.Add(tt.after))
		o := out[0]
		wantDue := time.Time{}
		if tt.wantDue != 0 {
			wantDue = at.Add(tt.wantDue)
		}
		if o.Verdict != tt.want || !o.Due.Equal(wantDue) || o.Task.Key() != tasks[0].Key() || (o.Verdict == license.Retry) != (o.Comment != "") {
			t.Errorf("%s: %v, due %v, %q, want %v, due %v", tt.name, o.Verdict, o.Due, o.Comment, tt.want, wantDue)
		}
	}
}
