package exchange

import (
	"fmt"
	"strings"
	"time"
)

// Result is what running one exchange gave.
type Result struct {
	Exchange string        `json:"exchange"`
	Title    string        `json:"title"`
	Sources  []string      `json:"sources"`
	Skipped  string        `json:"skipped,omitempty"` // why it was not run
	Error    string        `json:"error,omitempty"`   // why it could not be run to its end
	Steps    []StepResult  `json:"steps,omitempty"`
	Took     time.Duration `json:"took"`
}

// StepResult is what one step sent, expected and got.
type StepResult struct {
	Name    string `json:"name"`
	Request string `json:"request"`
	Want    string `json:"want"`
	Got     string `json:"got"`
	// Callbacks are the messages that came and were expected.
	Callbacks []string `json:"callbacks,omitempty"`
	Diffs     []Diff   `json:"diffs,omitempty"`
}

// OK reports whether everything was as expected. A skipped exchange is not OK
// and has not failed.
func (r Result) OK() bool { return r.Skipped == "" && !r.Failed() }

// Failed reports whether something was not as expected.
func (r Result) Failed() bool {
	if r.Error != "" {
		return true
	}
	for _, s := range r.Steps {
		if len(s.Diffs) > 0 {
			return true
		}
	}
	return false
}

// String is a report for people: of a failed exchange, its failed steps.
func (r Result) String() string {
	var b strings.Builder
	switch {
	case r.Skipped != "":
		fmt.Fprintf(&b, "skip %s: %s\n", r.Exchange, r.Skipped)
	case !r.Failed():
		fmt.Fprintf(&b, "ok   %s\n", r.Exchange)
	default:
		fmt.Fprintf(&b, "FAIL %s: %s (%s)\n", r.Exchange, r.Title, strings.Join(r.Sources, "; "))
	}
	for i, s := range r.Steps {
		if len(s.Diffs) == 0 {
			continue
		}
		fmt.Fprintf(&b, "  step %d: %s\n", i+1, s.Name)
		for _, d := range s.Diffs {
			fmt.Fprintf(&b, "    %s\n", d)
		}
		fmt.Fprintf(&b, "    sent: %s\n    got:  %s\n", indent(s.Request), indent(s.Got))
	}
	if r.Error != "" {
		fmt.Fprintf(&b, "  %s\n", r.Error)
	}
	return b.String()
}

func indent(s string) string {
	return strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n          ")
}
