package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/simlatch/simlatch/m2m"
)

const (
	// maxCallback is more than any callback has; a listener is open to strangers.
	maxCallback = 64 << 10
	// shards of the table of expected devices, so that callbacks hardly wait for
	// each other.
	shards = 64
	// faultsKept is how many faults are kept in words; the others are counted.
	faultsKept = 10
)

// Sink is a callback listener that knows what must come: one callback for each
// expected device, of the request that named it. It must not be copied.
type Sink struct {
	// Refuse, when not nil, is asked about each message that names an expected
	// device before it is counted: true answers 503, and the message should
	// come again.
	Refuse func(iccid string, at time.Time) bool

	table [shards]shard
	open  atomic.Int64 // devices whose callback has not come

	mu     sync.Mutex // guards what follows
	faults []string
	wrong  int // faults in all
}

type shard struct {
	mu       sync.Mutex // guards expected
	expected map[string]*expectation
}

// expectation is one device that a callback must come for. Its batch guards it.
type expectation struct {
	batch *Batch
	came  bool
}

// Batch is one request: the devices it names and what came for them.
type Batch struct {
	sink *Sink
	sent time.Time
	done chan struct{}

	mu      sync.Mutex // guards what follows
	id      string     // of the request; empty while nobody has said it
	left    int
	failed  []string
	latency []time.Duration // from Expect to the callback
}

// Expect makes a batch of devices for which a callback each must come from now
// on. An expectation that a device had before ends.
func (s *Sink) Expect(iccids []string) *Batch {
	b := &Batch{sink: s, done: make(chan struct{}), left: len(iccids), latency: make([]time.Duration, 0, len(iccids))}
	list := make([]expectation, len(iccids))
	for i, iccid := range iccids {
		list[i].batch = b
		t := s.shard(iccid)
		t.mu.Lock()
		if t.expected == nil {
			t.expected = map[string]*expectation{}
		}
		t.expected[iccid] = &list[i]
		t.mu.Unlock()
	}
	s.open.Add(int64(len(iccids)))
	b.sent = time.Now()
	return b
}

// Open is the number of devices whose callback has not come.
func (s *Sink) Open() int { return int(s.open.Load()) }

// Check reports everything that was wrong so far: callbacks that are missing,
// came twice, or belong to no request.
func (s *Sink) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	if n := s.open.Load(); n != 0 {
		errs = append(errs, fmt.Errorf("%d callbacks are MISSING", n))
	}
	if s.wrong > 0 {
		errs = append(errs, fmt.Errorf("%d callbacks were WRONG:\n  %s", s.wrong, strings.Join(s.faults, "\n  ")))
	}
	return errors.Join(errs...)
}

func (s *Sink) shard(iccid string) *shard {
	h := uint32(2166136261) // FNV-1a
	for i := range len(iccid) {
		h = (h ^ uint32(iccid[i])) * 16777619
	}
	return &s.table[h%shards]
}

func (s *Sink) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong++; len(s.faults) < faultsKept {
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	}
}

// message is what a sink reads of a m2m.CallbackMessage.
type message struct {
	RequestID string         `json:"requestId"`
	DeviceIDs []m2m.DeviceID `json:"deviceIds"`
	Status    string         `json:"status"`
}

func (m *message) iccid() string {
	for _, id := range m.DeviceIDs {
		if strings.EqualFold(id.Kind, m2m.KindICCID) {
			return id.ID
		}
	}
	return ""
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// ServeHTTP takes in one callback.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	buf.Reset()
	if _, err := buf.ReadFrom(io.LimitReader(r.Body, maxCallback)); err != nil {
		return // the sender has gone
	}
	var m message
	if err := json.Unmarshal(buf.Bytes(), &m); err != nil {
		s.fault("a message that is no callback: %v", err)
		http.Error(w, "not a callback message", http.StatusBadRequest)
		return
	}
	iccid := m.iccid()
	t := s.shard(iccid)
	t.mu.Lock()
	e := t.expected[iccid]
	t.mu.Unlock()
	switch {
	case e == nil:
		s.fault("a callback for %q, which no request has named", iccid)
	case s.Refuse != nil && s.Refuse(iccid, at):
		http.Error(w, "not now", http.StatusServiceUnavailable)
	default:
		e.batch.arrived(e, &m, iccid, at)
	}
}

// arrived counts a callback.
func (b *Batch) arrived(e *expectation, m *message, iccid string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.id != "" && b.id != m.RequestID:
		b.sink.fault("a callback for %s of request %s; it should be of %s", iccid, m.RequestID, b.id)
	case e.came:
		b.sink.fault("a SECOND callback for %s of request %s", iccid, m.RequestID)
	default:
		b.id = m.RequestID
		e.came = true
		b.latency = append(b.latency, at.Sub(b.sent))
		if m.Status != m2m.CallbackSuccess {
			b.failed = append(b.failed, iccid)
		}
		b.sink.open.Add(-1)
		if b.left--; b.left == 0 {
			close(b.done)
		}
	}
}

// Answered tells the id with which the request was accepted.
func (b *Batch) Answered(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.id != "" && b.id != id {
		b.sink.fault("callbacks came for request %s; the answer said %s", b.id, id)
	}
	b.id = id
}

// Refused ends the batch of a request that was not accepted: no callback may
// come. It must not be called after Answered.
func (b *Batch) Refused() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.latency) > 0 {
		b.sink.fault("%d callbacks came for a request that was refused", len(b.latency))
	}
	b.id = "refused"
	b.sink.open.Add(-int64(b.left))
}

// Done is closed when each device has had its callback.
func (b *Batch) Done() <-chan struct{} { return b.done }

// Latencies are the times from Expect to each callback that has come.
func (b *Batch) Latencies() []time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.latency
}

// Failed are the devices whose callback says that they failed.
func (b *Batch) Failed() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}
