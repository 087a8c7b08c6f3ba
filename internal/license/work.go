package license

import (
	"math/rand/v2"
	"time"
)

// Clock tells the time and waits, so that a sandbox can turn it. Whoever
// decides something by time has one; network timeouts stay real.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// SystemClock is the clock of the machine.
type SystemClock struct{}

// Now is the current time.
func (SystemClock) Now() time.Time { return time.Now() }

// After is time.After.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// AcceptParams is a request to accept, with what the store must know beside it.
type AcceptParams struct {
	Request     *Request
	Application string // the key of the calling application
	User        string
	Trace       string // W3C traceparent of the call; may be empty
	// IdempotencyKey, when not empty, makes a repeat with the same BodyHash
	// return the first answer, for 24 hours.
	IdempotencyKey string
	BodyHash       string
	// Room is how many tasks to write already leased to the caller, until
	// LeaseUntil; the rest is written unleased, for whoever claims it.
	Room       int
	LeaseUntil time.Time
}

// Accepted is an accepted request.
type Accepted struct {
	ID     RequestID
	Replay bool   // it had been accepted before
	Tasks  []Task // those born leased to the caller
	More   bool   // others are due, for whoever claims them
}

// Task is the work for one device of a request.
type Task struct {
	Request RequestID
	Account AccountName
	SKU     SKU
	Action  Action
	Device  Device
	At      time.Time // when the request was accepted
	Attempt int       // how often the carrier was asked before
	Place   int       // among the request's tasks in the order of their ICCIDs, from 1
	Of      int       // how many tasks the request has
	Trace   string    // W3C traceparent of the request; may be empty

	Lease int64     // the fencing number: an outcome counts only while it stands
	Until time.Time // when the lease ends
}

// Key is the carrier's idempotency key: the same on every attempt, and no other
// task has it.
func (t Task) Key() string { return string(t.Request) + "/" + string(t.Device.ICCID) }

// Verdict is what a carrier says of one task.
type Verdict int

// The verdicts. Silence is not refusal: an unknown outcome is Retry, and only
// Refused takes a reservation back.
const (
	Retry   Verdict = iota // unknown; asked again under the same key at Due
	Done                   // the license is real, or gone, on the SIM
	Refused                // the carrier's answer is no
	Later                  // accepted; the answer comes later, or is asked for at Due
	Stuck                  // unknown for too long; an operator must decide
)

func (v Verdict) String() string {
	switch v {
	case Retry:
		return "retry"
	case Done:
		return "done"
	case Refused:
		return "refused"
	case Later:
		return "later"
	case Stuck:
		return "stuck"
	}
	return "invalid"
}

// CodeAlreadyLicensed is, as an Outcome's Code, the carrier's word that the SIM
// has a license our records do not know of (behaviour.md 3).
const CodeAlreadyLicensed = "already-licensed"

// Outcome is a carrier's answer to one task.
type Outcome struct {
	Task    Task
	Verdict Verdict
	Code    string    // of a refusal: CodeAlreadyLicensed, a code of the carrier's own, or empty
	Comment string    // of a refusal: the carrier's own words
	Due     time.Time // of Retry and Later: when to ask again
}

// SettleParams is a batch of outcomes to settle.
type SettleParams struct {
	Now      time.Time
	Outcomes []Outcome
	// Room is, by account, how many callbacks to write already leased to the
	// caller, until LeaseUntil.
	Room       map[AccountName]int
	LeaseUntil time.Time
}

// Settled is what settling a batch of outcomes gave.
type Settled struct {
	Callbacks []Callback // those born leased to the caller
	More      bool       // others are due, for whoever claims them
	Counted   int        // outcomes that changed something: the others had lost their lease
}

// Due is how much work of one account is due in one phase.
type Due struct {
	Account AccountName
	Count   int
	Oldest  time.Time
}

// ClaimParams asks for a share of an account's due work.
type ClaimParams struct {
	Account AccountName
	Now     time.Time
	Until   time.Time // when the lease ends
	Limit   int
}

// Callback is the message that tells a listener how one device ended. It names
// no listener: that is read when the message is sent.
type Callback struct {
	Request RequestID
	Action  Action
	SKU     SKU
	Account AccountName
	Device  Device
	OK      bool
	Code    string // of a refusal, see Outcome
	Comment string
	Attempt int    // attempts that ended before this one
	Round   int    // how often sending began anew, by an operator's word
	Place   int    // as a Task's; 0: not known
	Trace   string // as a Task's

	Lease int64
	Until time.Time
}

// WebhookID names the message in its webhook-id header: the same in every
// attempt of every round.
func (c *Callback) WebhookID() string {
	return "msg_" + string(c.Request) + "_" + string(c.Device.ICCID)
}

// DeliveryVerdict is how an attempt to deliver a callback ended.
type DeliveryVerdict int

// The ends of an attempt.
const (
	Again     DeliveryVerdict = iota // not acknowledged; tried again at Due
	Delivered                        // acknowledged by a 2xx
	Exhausted                        // not acknowledged, and no attempt is left, or the listener said 410
	Unsent                           // no listener is registered: nothing was sent, no attempt counted
)

func (v DeliveryVerdict) String() string {
	switch v {
	case Again:
		return "again"
	case Delivered:
		return "delivered"
	case Exhausted:
		return "exhausted"
	case Unsent:
		return "unsent"
	}
	return "invalid"
}

// Delivery is the end of one attempt to deliver a callback.
type Delivery struct {
	Callback Callback
	Verdict  DeliveryVerdict
	Status   int           // the HTTP status; 0 when there was no answer
	Latency  time.Duration // from the start of the attempt to its end
	Answer   []byte        // the first bytes of the answer, or the error in words
	At       time.Time     // when the attempt ended
	Due      time.Time     // of Again
}

// Listener is a URL that an account registered for the callbacks of a service.
type Listener struct {
	Account  AccountName
	Service  string
	URL      string
	Username string // sent in the body of each callback when not empty
	Password string
	// SigningSecret signs callbacks by Standard Webhooks when not empty.
	SigningSecret string
	// What an operator set for this listener; zero means the service's setting.
	Attempts int
	Interval time.Duration
	Timeout  time.Duration
}

// CarrierService is the service whose listener gets the results of assign and
// unassign (thingspace-api.md 6.3).
const CarrierService = "CarrierService"

// Backoff is how long to wait before asking a carrier again: from one second,
// doubling to five minutes, less up to a quarter at random so that tasks that
// failed together do not return together. attempt counts from 0.
func Backoff(attempt int) time.Duration {
	const most = 5 * time.Minute
	d := most
	if attempt < 9 {
		d = min(most, time.Second<<max(attempt, 0))
	}
	return d - rand.N(d/4+1) //nolint:gosec // nobody gains by guessing it
}
