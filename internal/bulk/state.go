package bulk

import (
	"errors"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// Status is how a row stands, as the result says it.
type Status string

// The statuses of rows.
const (
	StatusSuccess Status = "Success"
	StatusFailed  Status = "Failed"  // refused, by the server or the carrier: nothing has changed
	StatusUnknown Status = "Unknown" // nobody can tell; what to do is in the message
	StatusPending Status = "Pending" // accepted; how it ended is not known yet
	StatusUnsent  Status = "Unsent"
	StatusSkipped Status = "Skipped" // bad in the plan, and left out
)

// state is what a journal says: it is changed by apply only, so what a run knows
// is what the next one will.
type state struct {
	plan     *Plan
	begun    bool
	batch    int
	rows     []rowState
	requests []*request
	byID     map[string]*request
	listener *entry // of the listener that is in another's place; nil when none is

	iccid, imei map[string]int // rows by what a callback names them; OK ones only
	next        int            // no row before it is unsent
	count       Progress
}

// rowState is how far a row has come.
type rowState struct {
	request *request // the last that named it
	ended   Status   // empty while it has not
	code    string
	message string
	at      time.Time
	narrow  int // at most so many in its next request; 0 is as many as others
}

// request is one that was sent, or was about to be.
type request struct {
	number int
	rows   []int
	key    string
	pool   *m2m.Subscription
	sent   time.Time

	id       string // empty as long as nobody has said it
	accepted time.Time
	refused  bool
	lost     bool
	left     int // rows that have not ended

	doubtful      bool      // its answer will not come; not in the journal
	asked, failed time.Time // for its status, and when that was seen to be Failure; not in the journal
}

// open requests were sent and have no answer.
func (q *request) open() bool { return q.accepted.IsZero() && !q.refused && !q.lost }

// awaited requests were accepted and have rows that have not ended.
func (q *request) awaited() bool { return !q.accepted.IsZero() && q.left > 0 }

// Progress counts the rows of a plan by how far they have come.
type Progress struct {
	Total    int // to be done
	Accepted int // in requests that were accepted, or refused one by one
	Done     int
	Failed   int
	Unknown  int
}

// Ended are the rows whose end is known, or known to be unknowable.
func (p Progress) Ended() int { return p.Done + p.Failed + p.Unknown }

func newState(p *Plan) *state {
	s := &state{
		plan: p, rows: make([]rowState, len(p.Rows)), byID: map[string]*request{},
		iccid: make(map[string]int, len(p.Rows)), imei: map[string]int{},
	}
	for i := range p.Rows {
		r := &p.Rows[i]
		switch {
		case !r.OK():
			s.rows[i] = rowState{ended: StatusSkipped, code: r.Code, message: r.Message, at: p.Made}
			continue
		case r.ICCID != "":
			s.iccid[r.ICCID] = i
		default:
			s.imei[r.IMEI] = i
		}
		s.count.Total++
	}
	return s
}

// errOther says that a journal is not that of the plan.
var errOther = errors.New("this is the journal of another plan: the plan was made anew since it began; give the new plan another name")

// apply takes in one entry.
func (s *state) apply(e *entry) error {
	switch e.Kind {
	case entryBegin:
		if s.begun || e.Plan != s.plan.Digest {
			return errOther
		}
		s.begun, s.batch = true, e.Batch
	case entrySend:
		return s.send(e)
	case entryListener:
		s.listener = e
	case entryRestored:
		s.listener = nil
	case entryAccepted, entryRefused, entryLost, entryRepeat, entrySettled:
		if e.Request < 1 || e.Request > len(s.requests) {
			return fmt.Errorf("the journal is damaged: there is no request %d", e.Request)
		}
		s.answer(s.requests[e.Request-1], e)
	case entryOutcome:
		if e.Row == nil || *e.Row < 0 || *e.Row >= len(s.rows) {
			return errors.New("the journal is damaged: an outcome is of no row")
		}
		s.end(*e.Row, e)
	default:
		return fmt.Errorf("the journal has an entry of the kind %q: it was written by a newer simlatch", e.Kind)
	}
	return nil
}

func (s *state) send(e *entry) error {
	q := &request{number: e.Request, key: e.Key, pool: e.Pool, sent: e.At}
	if e.Request != len(s.requests)+1 {
		return fmt.Errorf("the journal is damaged: request %d follows %d", e.Request, len(s.requests))
	}
	for _, sp := range e.Rows {
		for i := sp[0]; i <= sp[1]; i++ {
			if i < 0 || i >= len(s.rows) || s.rows[i].ended != "" {
				return fmt.Errorf("the journal is damaged: request %d names row %d", e.Request, i)
			}
			s.rows[i].request = q
			q.rows = append(q.rows, i)
		}
	}
	q.left = len(q.rows)
	s.requests = append(s.requests, q)
	return nil
}

// answer takes in what became of a request as a whole.
func (s *state) answer(q *request, e *entry) {
	switch e.Kind {
	case entryAccepted:
		for _, i := range q.rows {
			if q.accepted.IsZero() && s.rows[i].ended == "" {
				s.count.Accepted++
			}
		}
		q.accepted, q.lost = e.At, false
		if e.ID != "" {
			q.id = e.ID
			s.byID[q.id] = q
		}
	case entryRefused:
		q.refused = true
		s.release(q, e.Narrow)
		if e.Batch > 0 {
			s.batch = e.Batch
		}
	case entryLost:
		q.lost = true
		for _, i := range q.rows {
			s.end(i, e)
		}
	case entryRepeat:
		for _, i := range q.rows {
			if r := &s.rows[i]; r.request == q && r.ended == StatusUnknown {
				s.count.Unknown--
				s.count.Accepted--
				*r = rowState{request: q}
			}
		}
		q.refused, q.lost = true, false
		s.release(q, 0)
	case entrySettled:
		for _, i := range q.rows {
			s.end(i, e)
		}
	}
}

// release has the rows of a request that have not ended be sent again.
func (s *state) release(q *request, narrow int) {
	for _, i := range q.rows {
		if r := &s.rows[i]; r.request == q && r.ended == "" {
			r.request, r.narrow = nil, narrow
			s.next = min(s.next, i)
		}
	}
}

// end takes in how a row ended. The first end counts: callbacks come twice. Only
// what was unknown may become known.
func (s *state) end(i int, e *entry) {
	r := &s.rows[i]
	switch {
	case r.ended == "" && r.request != nil:
		r.request.left--
		if r.request.accepted.IsZero() {
			s.count.Accepted++
		}
	case r.ended == StatusUnknown && e.Status != StatusUnknown:
		s.count.Unknown--
	default:
		return
	}
	r.ended, r.code, r.message, r.at = e.Status, e.Code, e.Message, e.At
	switch e.Status {
	case StatusSuccess:
		s.count.Done++
	case StatusUnknown:
		s.count.Unknown++
	default:
		s.count.Failed++
	}
}

// unsent finds rows for the next request: as many as may go together, in their
// order. Nil: all have been sent.
func (s *state) unsent() []int {
	var rows []int
	for i := s.next; i < len(s.rows); i++ {
		r := &s.rows[i]
		if r.ended != "" || r.request != nil {
			if len(rows) == 0 {
				s.next = i + 1
			}
			continue
		}
		most := s.batch
		if r.narrow > 0 {
			most = min(most, r.narrow)
		}
		if len(rows) >= most {
			break
		}
		rows = append(rows, i)
	}
	return rows
}

// rowOf finds the row that a callback is about; -1: none of ours.
func (s *state) rowOf(m *m2m.CallbackMessage) int {
	if i, ok := s.iccid[m.ICCID()]; ok {
		return i
	}
	if i, ok := s.imei[m.IMEI()]; ok {
		return i
	}
	return -1
}

// complete reports whether each row has ended.
func (s *state) complete() bool { return s.begun && s.count.Ended() == s.count.Total }
