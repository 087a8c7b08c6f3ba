package sandbox

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Duration is a time.Duration that JSON writes like "1m30s".
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("a duration is written like \"90s\", \"5m\" or \"1h30m\", not %q", text)
	}
	*d = Duration(v)
	return nil
}

// Where a fault strikes.
const (
	OnCarrier  = "carrier"  // what the carrier answers about a device
	OnCallback = "callback" // what becomes of a callback on its way
	OnAPI      = "api"      // what a call to the API meets
)

// What a fault does. The words stand in faults, in the journal and in the docs.
const (
	Refuse     = "refuse"     // carrier: no, with Code and Text
	Late       = "late"       // carrier: the answer comes Delay after the request; callback: it is delivered Delay later
	Twice      = "twice"      // carrier: the same answer two times
	Never      = "never"      // carrier: no answer; the task is stuck after a day
	Contradict = "contradict" // carrier: yes and no at once, which counts as no answer

	Lose          = "lose"           // callback: it does not arrive, and is tried again by the schedule
	LoseAnswer    = "lose-answer"    // callback: it arrives, its answer does not, and it is tried again
	Swallow       = "swallow"        // callback: it never arrives, and counts as acknowledged
	Duplicate     = "duplicate"      // callback: it arrives two times, with the same count
	SlowDuplicate = "slow-duplicate" // callback: a second one, with the next count, comes while the first is open
	Reorder       = "reorder"        // callback: Of of them are collected and delivered last first

	Answer        = "answer"         // api: Status instead of the answer; with After, once the work is done
	Hang          = "hang"           // api: no answer For so long, in real time
	Break         = "break"          // api: the connection breaks; with After, once the work is done
	ExpireToken   = "expire-token"   // api: the bearer token has expired
	ExpireSession = "expire-session" // api: the session has expired
)

var effects = map[string][]string{
	OnCarrier:  {Refuse, Late, Twice, Never, Contradict},
	OnCallback: {Lose, LoseAnswer, Swallow, Duplicate, SlowDuplicate, Late, Reorder},
	OnAPI:      {Answer, Hang, Break, ExpireToken, ExpireSession},
}

// Effect is what a fault does, with what that needs.
type Effect struct {
	Do         string   `json:"do"`
	Code       string   `json:"code,omitempty"`       // of refuse: the carrier's own, kept for operators; "already-licensed" is the documented case
	Text       string   `json:"text,omitempty"`       // of refuse: the carrier's words
	Delay      Duration `json:"delay,omitempty"`      // of late, on the sandbox's clock
	Status     int      `json:"status,omitempty"`     // of answer: 429, 500 or 503
	RetryAfter Duration `json:"retryAfter,omitempty"` // of answer: the header, in whole seconds
	After      bool     `json:"after,omitempty"`      // of answer and break: after the work, whose answer is lost
	For        Duration `json:"for,omitempty"`        // of hang, in real time; 0: until the client gives up
	Of         int      `json:"of,omitempty"`         // of reorder: how many
}

// Match says what a fault strikes. What is empty matches everything.
type Match struct {
	Account   string `json:"account,omitempty"`
	SKU       string `json:"sku,omitempty"`
	Action    string `json:"action,omitempty"`    // "assign" or "unassign"
	ICCID     string `json:"iccid,omitempty"`     // a pattern: * is any digits, ? is one
	Operation string `json:"operation,omitempty"` // of api: a pattern for "METHOD /path", such as "POST */assign"
	// Attempt is the number of the asking of the carrier, or of the attempt of the
	// callback, from 1; 0 matches each.
	Attempt int `json:"attempt,omitempty"`
	// Nth is which of what matches otherwise is struck, from 1; 0 is each. Every
	// strikes each so many, and may not stand beside Nth.
	Nth   int `json:"nth,omitempty"`
	Every int `json:"every,omitempty"`
	// Probability, above 0 and below 1, strikes that share. The dice come from the
	// sandbox's seed, and are thrown for a device and attempt, so that order does
	// not matter.
	Probability float64 `json:"probability,omitempty"`
}

// Fault is a rule: what matches meets the effect.
type Fault struct {
	ID    string `json:"id,omitempty"` // given by the sandbox when empty
	On    string `json:"on"`
	Match Match  `json:"match"`
	Then  Effect `json:"then"`
	Times int    `json:"times,omitempty"` // how often it strikes at most; 0: without end

	Seen   int `json:"seen"`   // what matched so far, before nth, every and probability
	Struck int `json:"struck"` // how often it struck
}

// check says what is wrong with a fault.
func (f *Fault) check() error {
	known, ok := effects[f.On]
	if !ok {
		return fmt.Errorf("on: %q is none of carrier, callback and api", f.On)
	}
	if !slices.Contains(known, f.Then.Do) {
		return fmt.Errorf("then.do: %q is none of what can be done on %s: %s", f.Then.Do, f.On, strings.Join(known, ", "))
	}
	m := f.Match
	switch {
	case m.Attempt < 0 || m.Nth < 0 || m.Every < 0 || f.Times < 0:
		return fmt.Errorf("attempt, nth, every and times cannot be negative")
	case m.Nth > 0 && m.Every > 0:
		return fmt.Errorf("match: nth and every cannot stand together")
	case !(m.Probability >= 0 && m.Probability <= 1):
		return fmt.Errorf("match.probability: %v is not from 0 to 1", m.Probability)
	case m.Action != "" && m.Action != "assign" && m.Action != "unassign":
		return fmt.Errorf("match.action: %q is neither assign nor unassign", m.Action)
	case f.On != OnAPI && m.Operation != "":
		return fmt.Errorf("match.operation: it is of faults on api")
	case f.On == OnAPI && (m.ICCID != "" || m.SKU != "" || m.Action != "" || m.Account != "" || m.Attempt != 0):
		return fmt.Errorf("match: a fault on api matches by operation, nth, every and probability; a call may name many devices")
	}
	return f.Then.check()
}

func (e *Effect) check() error {
	switch {
	case e.Delay < 0 || e.For < 0 || e.RetryAfter < 0:
		return fmt.Errorf("then: a time cannot be negative")
	case e.Do == Late && e.Delay == 0:
		return fmt.Errorf("then.delay: how late? give a delay such as \"90s\"")
	case e.Do == Reorder && e.Of < 2:
		return fmt.Errorf("then.of: how many are to change places? give at least 2")
	case e.Do == Answer && e.Status != 429 && e.Status != 500 && e.Status != 503:
		return fmt.Errorf("then.status: %d is none of 429, 500 and 503", e.Status)
	}
	return nil
}

// decode reads one JSON value strictly: a member that nobody reads is a mistake.
func decode(data []byte, into any) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the body is not the JSON that is wanted: %w", err)
	}
	if d.More() {
		return fmt.Errorf("the body has more than one JSON value")
	}
	return nil
}
