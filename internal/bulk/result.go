package bulk

import (
	"bytes"
	"encoding/csv"
	"io"
	"slices"
	"time"
)

// Result is how one row ended.
type Result struct {
	ICCID     string
	IMEI      string
	RequestID string // empty when it was not accepted
	Status    Status
	Code      string
	Message   string
	Time      string // RFC 3339; empty while it has not ended
}

// Results lists how each row of the plan stands, in the order of the fleet.
func (r *Run) Results() []Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Result, len(r.state.rows))
	for i := range r.state.rows {
		out[i] = r.state.result(i)
	}
	return out
}

func (s *state) result(i int) Result {
	row, planned := &s.rows[i], &s.plan.Rows[i]
	out := Result{ICCID: planned.ICCID, IMEI: planned.IMEI, Status: row.ended, Code: row.code, Message: row.message}
	if !row.at.IsZero() {
		out.Time = row.at.UTC().Format(time.RFC3339)
	}
	q := row.request
	if q != nil {
		out.RequestID = q.id
	}
	switch {
	case row.ended != "":
	case q == nil:
		out.Status = StatusUnsent
	case q.open():
		out.Status, out.Message = StatusPending, "the answer to its request has not come; applying the plan again finds out"
	default:
		out.Status, out.Message = StatusPending, "accepted; applying the plan again finds out how it ended"
	}
	return out
}

// resultTitles are the columns of a result file.
var resultTitles = []string{"iccid", "imei", "request_id", "status", "code", "message", "time"}

// WriteResults writes results as CSV.
func WriteResults(w io.Writer, results []Result) error {
	c := csv.NewWriter(w)
	_ = c.Write(resultTitles) // Flush tells
	for _, r := range results {
		_ = c.Write([]string{r.ICCID, r.IMEI, r.RequestID, string(r.Status), r.Code, r.Message, r.Time})
	}
	c.Flush()
	return c.Error()
}

// WriteResultFile writes results to a file, in place of an earlier one.
func WriteResultFile(path string, results []Result) error {
	var b bytes.Buffer
	_ = WriteResults(&b, results) // into memory: never fails
	return writeFile(path, b.Bytes())
}

// Summary counts results.
type Summary struct {
	Rows     int
	ByStatus map[Status]int
	Failures []Count // by what they met, the most frequent first
}

// Summarize counts results by how they ended.
func Summarize(results []Result) Summary {
	s := Summary{Rows: len(results), ByStatus: map[Status]int{}}
	for _, r := range results {
		s.ByStatus[r.Status]++
		if r.Status != StatusFailed {
			continue
		}
		what := Verdict(r.Code, r.Message)
		if what == refused {
			what = r.Message
		}
		at := slices.IndexFunc(s.Failures, func(c Count) bool { return c.Code == r.Code && c.Verdict == what })
		if at < 0 {
			if len(s.Failures) == mostFailures {
				continue // messages may name the device: they would be as many as there are
			}
			at = len(s.Failures)
			s.Failures = append(s.Failures, Count{Code: r.Code, Verdict: what})
		}
		s.Failures[at].Rows++
	}
	slices.SortStableFunc(s.Failures, func(a, b Count) int { return b.Rows - a.Rows })
	return s
}

// mostFailures is how many different failures a summary tells apart.
const mostFailures = 20
