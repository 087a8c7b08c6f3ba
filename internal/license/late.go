package license

import "time"

// LateOutcome is a carrier's answer to one task that came by itself, and not as
// the answer to a call: whoever brings it holds no lease.
type LateOutcome struct {
	Request RequestID
	ICCID   ICCID
	Verdict Verdict // Done or Refused: nothing else ends a task
	Code    string  // of a refusal, see Outcome
	Comment string
}

// LateParams are late outcomes of one account to settle.
type LateParams struct {
	Account  AccountName
	Now      time.Time
	Outcomes []LateOutcome
}

// LateResult is what became of a late outcome.
type LateResult int

// The results. Only LateSettled moves a license.
const (
	LateUnknown     LateResult = iota // there is no such task: it was never given, not by us
	LateSettled                       // it was waited for, and is what stands now
	LateRepeated                      // it is what stands already
	LateContradicts                   // the opposite stands, or is said beside it: an operator should look
	LateEnded                         // what stands is kept no longer: the request ended long ago
)

func (r LateResult) String() string {
	switch r {
	case LateUnknown:
		return "unknown"
	case LateSettled:
		return "settled"
	case LateRepeated:
		return "repeated"
	case LateContradicts:
		return "contradicts"
	case LateEnded:
		return "ended"
	}
	return "invalid"
}

// LateResults is every result there is, in their order.
var LateResults = []LateResult{LateUnknown, LateSettled, LateRepeated, LateContradicts, LateEnded}

// LateSettlement is what settling late outcomes gave: a result for each, in
// their order.
type LateSettlement struct {
	Results []LateResult
	More    bool // callbacks are due, for whoever claims them
}

// StrangeOutcome is a late outcome that changed nothing and repeated nothing, as
// it is kept for an operator to look into.
type StrangeOutcome struct {
	LateOutcome

	Account     AccountName
	Result      LateResult
	Times       int // it was said so often
	First, Last time.Time
}
