package license

import "time"

// UpstreamBatch is one request to an upstream, made for tasks of one request of
// ours. It is written down before it is sent.
type UpstreamBatch struct {
	Account AccountName
	Request RequestID
	Key     string // ours; the Idempotency-Key there
	SKU     SKU
	Action  Action
	Devices []Device  // by ICCID, as they were sent
	Sent    time.Time // a moment before it was
	Remote  string    // the upstream's requestId; empty while that is not known

	Waiting []ICCID // the devices of which no outcome is known
	Refused int     // how many the upstream is known to have refused
}

// UpstreamTask is what is known of a task that an upstream was, or is to be,
// asked for.
type UpstreamTask struct {
	ICCID ICCID
	// Key is the batch it was sent in. It is empty where that was refused as a
	// whole: then the task may be sent again, with Most devices at most.
	Key  string
	Most int

	Sent   time.Time // of the batch
	Remote string    // of the batch

	Verdict Verdict // Done or Refused; Later while it is not known
	Code    string  // of a refusal, as in Outcome
	Comment string
}

// UpstreamWord is what an upstream's callback says of a device.
type UpstreamWord struct {
	Account AccountName
	Remote  string // the upstream's requestId
	ICCID   ICCID
	OK      bool
	SKU     SKU    // of what succeeded
	Action  Action // of what succeeded
	Code    string // of a refusal, as in Outcome
	Comment string
}

// UpstreamHearing is what an upstream's word meant.
type UpstreamHearing int

// The meanings. Only HearingTaken changed something.
const (
	HearingUnknown     UpstreamHearing = iota // it is about nothing that was asked for
	HearingTaken                              // it is the outcome of a task
	HearingRepeated                           // it was said before
	HearingEarly                              // it may be about a batch whose requestId is not known yet
	HearingContradicts                        // something else was said before, or asked for
)

func (h UpstreamHearing) String() string {
	switch h {
	case HearingUnknown:
		return "unknown"
	case HearingTaken:
		return "taken"
	case HearingRepeated:
		return "repeated"
	case HearingEarly:
		return "early"
	case HearingContradicts:
		return "contradicts"
	}
	return "invalid"
}
