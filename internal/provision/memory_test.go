package provision

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/simlatch/simlatch/internal/license"
)

func TestRoom(t *testing.T) {
	r := newRoom(1000, 4, 5*time.Second)
	if n := r.reserve(large, 5000, 1); n != 800 {
		t.Errorf("the first account gets %d of 1000, want 800", n)
	}
	if n := r.reserve(large, 10, 1); n != 0 {
		t.Errorf("and %d more, want none", n)
	}
	if n := r.reserve(small, 150, 151); n != 0 {
		t.Errorf("a second gets %d where it wants 151 or none", n)
	}
	if n := r.reserve(small, 5000, 1); n != 160 {
		t.Errorf("a second gets %d, want four fifths of the rest", n)
	}
	r.release(large, 800)
	if n := r.reserve(small, 5000, 1); n != 640 {
		t.Errorf("and %d once the first has none, want to fill 800 in all", n)
	}
	r.release(small, 800)
	if r.size() != 0 || len(r.held) != 0 {
		t.Errorf("%d held by %v at the end, want none", r.size(), r.held)
	}
	if n := newRoom(1, 1, time.Second).reserve(large, 3, 1); n != 1 {
		t.Errorf("of a room of one %d can be had, want 1", n)
	}
	r.close()
	if n := r.reserve(large, 1, 1); n != 0 {
		t.Errorf("a closed room gives %d", n)
	}
}

// An account that holds next to nothing finds room also when the pace has fallen
// below what another holds.
func TestRoomForALittle(t *testing.T) {
	r := newRoom(10_000, 4, 5*time.Second)
	r.reserve(large, 8000, 1)
	for range 50 {
		r.measured(1, time.Second)
	}
	if n := r.reserve(large, 1, 1); n != 0 {
		t.Errorf("one that has more than there is room for gets %d more", n)
	}
	if n := r.reserve(small, 30, 1) + r.reserve(small, 500, 1); n != littleShare {
		t.Errorf("another gets %d, want %d", n, littleShare)
	}
}

// What is taken reaches the carrier well within its lease.
func TestRoomFollowsThePace(t *testing.T) {
	r := newRoom(10_000, 4, 5*time.Second)
	for range 50 {
		r.measured(batchSize, 10*time.Second)
	}
	if r.limit < batchSize || r.limit > 1100 {
		t.Errorf("at 200 tasks a second there is room for %d, want about 1000", r.limit)
	}
	for range 50 {
		r.measured(1, time.Second)
	}
	if r.limit != batchSize {
		t.Errorf("at 4 tasks a second there is room for %d, want one batch", r.limit)
	}
	for range 50 {
		r.measured(batchSize, time.Millisecond)
	}
	if r.limit != 10_000 {
		t.Errorf("at full speed there is room for %d, want 10000", r.limit)
	}
	r.measured(1, 0)
}

func TestDecide(t *testing.T) {
	w, err := New(Config{Queue: newLedger(), Carrier: &asked{}, Sink: &sink{}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	day, old := now.Add(24*time.Hour), now.Add(-24*time.Hour)
	for _, tt := range []struct {
		name      string
		at        time.Time
		in        license.Outcome
		want      license.Verdict
		low, high time.Time // bounds of Due
		comment   string
	}{
		{"done", now, license.Outcome{Verdict: license.Done, Due: day, Comment: "fine"}, license.Done, time.Time{}, time.Time{}, ""},
		{"done late", old, license.Outcome{Verdict: license.Done}, license.Done, time.Time{}, time.Time{}, ""},
		{"refused", now, license.Outcome{Verdict: license.Refused, Comment: "no"}, license.Refused, time.Time{}, time.Time{}, "no"},
		{"later", now, license.Outcome{Verdict: license.Later, Due: now.Add(time.Minute)}, license.Later, now.Add(time.Minute), now.Add(time.Minute), ""},
		{"later at once", now, license.Outcome{Verdict: license.Later}, license.Later, now.Add(100 * time.Millisecond), now.Add(100 * time.Millisecond), ""},
		{"later than ever", now, license.Outcome{Verdict: license.Later, Due: day.Add(time.Hour)}, license.Later, day, day, ""},
		{"later after a day", old, license.Outcome{Verdict: license.Later, Due: now.Add(time.Minute)}, license.Later, now.Add(time.Minute), now.Add(time.Minute), ""},
		{"retry", now, license.Outcome{}, license.Retry, now.Add(750 * time.Millisecond), now.Add(time.Second), ""},
		{"retry at the fourth attempt", now, license.Outcome{Task: license.Task{Attempt: 3}}, license.Retry, now.Add(6 * time.Second), now.Add(8 * time.Second), ""},
		{"retry when the carrier likes", now, license.Outcome{Due: now.Add(time.Hour)}, license.Retry, now.Add(time.Hour), now.Add(time.Hour), ""},
		{"retry just before the deadline", old.Add(time.Microsecond), license.Outcome{}, license.Retry, now.Add(750 * time.Millisecond), now.Add(time.Second), ""},
		{"retry at the deadline", old, license.Outcome{Comment: "no route"}, license.Stuck, time.Time{}, time.Time{}, "no route"},
	} {
		o := tt.in
		o.Task.At = tt.at
		w.decide(&o, now)
		if o.Verdict != tt.want || o.Due.Before(tt.low) || o.Due.After(tt.high) || o.Comment != tt.comment {
			t.Errorf("%s: decided %v, due %v, comment %q, want %v, due %v to %v, comment %q",
				tt.name, o.Verdict, o.Due, o.Comment, tt.want, tt.low, tt.high, tt.comment)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"":                  "",
		"REQUEST_FAILED: é": "REQUEST_FAILED: é",
		"a\x00b":            "ab",
		"a\xffb":            "a\uFFFDb",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := clean(strings.Repeat("é", 400)); len(got) > 520 || !utf8.ValidString(got) || !strings.HasSuffix(got, "é…") {
		t.Errorf("clean of a long text = %q", got)
	}
}

func TestAlarms(t *testing.T) {
	a := newAlarms(time.Second)
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	a.set(now, now.Add(time.Hour)) // polling is exact enough
	if at, ok := a.next(); ok {
		t.Errorf("next = %v, want none", at)
	}
	a.set(now, now.Add(3*tick))
	a.set(now, now.Add(tick/2))
	a.set(now, now.Add(tick))
	if at, _ := a.next(); !at.Equal(now.Add(tick)) {
		t.Errorf("next = %v, want %v", at, now.Add(tick))
	}
	a.forget(now.Add(tick))
	if at, _ := a.next(); !at.Equal(now.Add(3 * tick)) {
		t.Errorf("next = %v, want %v", at, now.Add(3*tick))
	}
}
