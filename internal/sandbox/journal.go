package sandbox

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Entry is one exchange: a call to the API and its answer, an attempt to deliver
// a callback and its answer, or what the carrier said of one device. Secrets in it
// are masked.
type Entry struct {
	Seq       uint64    `json:"seq"`  // from 1, rising
	Time      time.Time `json:"time"` // of the sandbox's clock, when it ended
	Kind      string    `json:"kind"` // api, callback or carrier
	RequestID string    `json:"requestId,omitempty"`
	// CallID is the X-Request-ID of a call to the API.
	CallID  string `json:"callId,omitempty"`
	Account string `json:"account,omitempty"`
	SKU     string `json:"sku,omitempty"`
	Action  string `json:"action,omitempty"`
	ICCID   string `json:"iccid,omitempty"`
	Attempt int    `json:"attempt,omitempty"` // of a callback or an asking of the carrier, from 1

	Method string `json:"method,omitempty"`
	URL    string `json:"url,omitempty"`
	Sent   string `json:"sent,omitempty"`   // the request's body
	Status int    `json:"status,omitempty"` // of HTTP; 0: there was no answer
	Answer string `json:"answer,omitempty"` // the answer's body
	// Outcome is what came of it: of the carrier done, refused, later or "no
	// answer"; of a callback Success or Failed as its message says.
	Outcome   string `json:"outcome,omitempty"`
	Comment   string `json:"comment,omitempty"`   // the carrier's words, or why there was no answer
	Delivered bool   `json:"delivered,omitempty"` // of a callback: the listener got it
	Fault     string `json:"fault,omitempty"`     // the id of the fault that it met
}

// bodyMost is how much of a body the journal keeps.
const bodyMost = 64 << 10

// journalMost is how many entries a journal keeps; the oldest go first.
const journalMost = 100_000

// Journal keeps the last exchanges.
type Journal struct {
	mu      sync.Mutex // guards what follows
	entries []Entry
	head    int // the oldest, once there are journalMost
	seq     uint64
	changed chan struct{} // closed at the next entry
}

func newJournal() *Journal { return &Journal{changed: make(chan struct{})} }

func (j *Journal) add(e Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.seq++
	e.Seq = j.seq
	if len(j.entries) < journalMost {
		j.entries = append(j.entries, e)
	} else {
		j.entries[j.head] = e
		j.head = (j.head + 1) % journalMost
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// next is closed when there is another entry.
func (j *Journal) next() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// clear forgets everything, and begins to count anew.
func (j *Journal) clear() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries, j.head, j.seq = nil, 0, 0
}

// Query selects entries. What is empty selects all.
type Query struct {
	Kind      string `json:"kind,omitempty"`
	RequestID string `json:"requestId,omitempty"`
	CallID    string `json:"callId,omitempty"`
	Account   string `json:"account,omitempty"`
	SKU       string `json:"sku,omitempty"`
	Action    string `json:"action,omitempty"`
	ICCID     string `json:"iccid,omitempty"` // a pattern, as in Match
	URL       string `json:"url,omitempty"`   // a pattern
	Outcome   string `json:"outcome,omitempty"`
	Fault     string `json:"fault,omitempty"`
	Status    int    `json:"status,omitempty"`
	Attempt   int    `json:"attempt,omitempty"`
	Delivered *bool  `json:"delivered,omitempty"`
	Since     uint64 `json:"since,omitempty"` // only entries with a higher seq
	// Limit bounds how many are returned, the last ones; 0: 1000.
	Limit int `json:"limit,omitempty"`
}

func (q *Query) fits(e *Entry) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return e.Seq > q.Since && same(q.Kind, e.Kind) && same(q.RequestID, e.RequestID) && same(q.CallID, e.CallID) &&
		same(q.Account, e.Account) && same(q.SKU, e.SKU) && same(q.Action, e.Action) &&
		same(q.Outcome, e.Outcome) && same(q.Fault, e.Fault) &&
		(q.ICCID == "" || like(q.ICCID, e.ICCID)) && (q.URL == "" || like(q.URL, e.URL)) &&
		(q.Status == 0 || q.Status == e.Status) && (q.Attempt == 0 || q.Attempt == e.Attempt) &&
		(q.Delivered == nil || *q.Delivered == e.Delivered)
}

// queryOf reads a Query from the query of a URL; it refuses names it does not know.
func queryOf(v url.Values) (q Query, err error) {
	texts := map[string]*string{
		"kind": &q.Kind, "requestId": &q.RequestID, "callId": &q.CallID, "account": &q.Account, "sku": &q.SKU,
		"action": &q.Action, "iccid": &q.ICCID, "url": &q.URL, "outcome": &q.Outcome, "fault": &q.Fault,
	}
	numbers := map[string]*int{"status": &q.Status, "attempt": &q.Attempt, "limit": &q.Limit}
	for name := range v {
		value := v.Get(name)
		switch {
		case texts[name] != nil:
			*texts[name] = value
		case numbers[name] != nil:
			*numbers[name], err = strconv.Atoi(value)
		case name == "since":
			q.Since, err = strconv.ParseUint(value, 10, 64)
		case name == "delivered":
			var b bool
			b, err = strconv.ParseBool(value)
			q.Delivered = &b
		default:
			return q, fmt.Errorf("the journal cannot be searched by %q", name)
		}
		if err != nil {
			return q, fmt.Errorf("%s: %q cannot be used: %w", name, value, err)
		}
	}
	return q, nil
}

// find returns the entries that a query selects, the oldest first, and how many
// there are in all.
func (j *Journal) find(q Query) (list []Entry, all int) {
	most := q.Limit
	if most <= 0 {
		most = 1000
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.entries {
		e := &j.entries[(j.head+i)%len(j.entries)]
		if q.fits(e) {
			all++
			list = append(list, *e)
		}
	}
	return list[max(0, len(list)-most):], all
}

// history writes the whole journal, one entry a line, in an order that follows
// from the entries alone: by time, and of one time the calls first, as they came,
// then the carrier's answers and the callbacks. Things that happen at once come in
// whatever order in the journal itself; here they are the same each time.
func (j *Journal) history(w io.Writer) error {
	j.mu.Lock()
	list := append(append([]Entry(nil), j.entries[j.head:]...), j.entries[:j.head]...)
	j.mu.Unlock()
	rank := map[string]int{OnAPI: 0, OnCarrier: 1, OnCallback: 2}
	slices.SortStableFunc(list, func(a, b Entry) int {
		if c := cmp.Or(a.Time.Compare(b.Time), cmp.Compare(rank[a.Kind], rank[b.Kind])); c != 0 || a.Kind == OnAPI {
			return c
		}
		return cmp.Or(cmp.Compare(a.RequestID, b.RequestID), cmp.Compare(a.ICCID, b.ICCID),
			cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Fault, b.Fault))
	})
	b := bufio.NewWriter(w)
	lines := json.NewEncoder(b)
	lines.SetEscapeHTML(false)
	for i := range list {
		list[i].Seq = uint64(i) + 1
		if err := lines.Encode(&list[i]); err != nil {
			return err
		}
	}
	return b.Flush()
}
