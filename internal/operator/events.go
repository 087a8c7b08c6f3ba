package operator

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// events sees what happens and tells those who want to know. It looks at the
// store, twice a second, and only while somebody wants events: so it sees what
// every node does, and does not burden the work of this one. What is found out is
// handed to all streams in this process, of which each takes its account's.
//
// It watches the requests that are new and those that had not ended when it began
// to look, each account's newest watchMost, by their counts.
type events struct {
	cfg    Config
	epoch  string        // begins the ids of this process's events
	wanted chan struct{} // holds at most one: somebody wants events

	mu      sync.Mutex // guards what follows
	streams map[*stream]struct{}
	recent  []client.Event // the last of them, for streams that go on
	seq     int64          // of the last
	idle    time.Time      // since when there is no stream
	ready   chan struct{}  // closed when what there was is known, so that the rest is news
	ended   bool

	// Owned by run.
	accounts  map[license.AccountName]*watched
	lastAlert int64 // the number of the last alert that was told
}

// watched is what is known of an account's requests.
type watched struct {
	requests map[license.RequestID]store.KeptRequest
	newest   time.Time // when the newest was accepted
}

// stream is one reader of events.
type stream struct {
	account license.AccountName // "": all
	events  chan client.Event
	gone    chan struct{} // closed when the reader is too slow, and at the end
}

const (
	// watchMost bounds the requests of an account that are watched.
	watchMost = 1000
	// keepRecent is how many events are kept for streams that go on.
	keepRecent = 1000
	// keepLooking is how long events are seen after the last stream has ended, so
	// that one that broke can go on.
	keepLooking = time.Minute
	// lateBy is how much later than others a request may appear that was accepted
	// before them: by a node whose clock is behind, or whose commit took long.
	lateBy = 30 * time.Second
	// streamRoom is how many events a stream may be behind.
	streamRoom = 256
)

func newEvents(cfg Config) *events {
	return &events{
		cfg: cfg, epoch: rand.Text()[:8], wanted: make(chan struct{}, 1),
		streams: map[*stream]struct{}{}, accounts: map[license.AccountName]*watched{}, ready: make(chan struct{}),
	}
}

// run looks while events are wanted, until ctx ends.
func (e *events) run(ctx context.Context) error {
	defer e.end()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.wanted:
		}
		for e.anybody() {
			began := time.Now()
			if err := e.look(ctx); err != nil && ctx.Err() == nil {
				e.cfg.Logger.WarnContext(ctx, "looking for events", "error", err)
			}
			// At most a tenth of the time, however many accounts there are.
			timer := time.NewTimer(max(e.cfg.Poll, 9*time.Since(began)))
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
		}
	}
}

// anybody reports whether events are wanted. When nobody has for a while, what
// was seen is forgotten.
func (e *events) anybody() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.streams) > 0 || time.Since(e.idle) < keepLooking {
		return true
	}
	e.recent, e.ready = nil, make(chan struct{})
	clear(e.accounts)
	return false
}

// end ends all streams.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	for s := range e.streams {
		e.drop(s)
	}
}

// drop ends a stream; the lock is held.
func (e *events) drop(s *stream) {
	if _, ok := e.streams[s]; ok {
		delete(e.streams, s)
		close(s.gone)
		e.idle = time.Now()
	}
}

// look looks once at all accounts.
func (e *events) look(ctx context.Context) error {
	accounts, err := e.cfg.Store.Accounts(ctx)
	if err != nil {
		return err
	}
	ready := e.readiness()
	news := isClosed(ready)
	for _, account := range accounts {
		if err := e.lookAt(ctx, account, news); err != nil {
			return err
		}
	}
	if err := e.lookForAlerts(ctx, news); err != nil {
		return err
	}
	if !news {
		close(ready)
	}
	return nil
}

// lookForAlerts sees which pools ran low.
func (e *events) lookForAlerts(ctx context.Context, news bool) (err error) {
	if !news {
		e.lastAlert, err = e.cfg.Store.NewestAlert(ctx)
		return err
	}
	alerts, err := e.cfg.Store.Alerts(ctx, e.lastAlert, watchMost)
	for _, a := range alerts {
		e.lastAlert = a.Number
		e.tell(client.Event{Type: client.EventLow, Alert: &client.Alert{
			Account: string(a.Account), SKU: string(a.SKU), At: a.At, Available: a.Available, Threshold: a.Threshold,
		}}, a.Account)
	}
	return err
}

// readiness is closed when what there was is known.
func (e *events) readiness() chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ready
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// lookAt sees how an account's requests stand. What there is when it looks for
// the first time is no news.
func (e *events) lookAt(ctx context.Context, account license.AccountName, news bool) error {
	w := e.accounts[account]
	if w == nil {
		w = &watched{requests: map[license.RequestID]store.KeptRequest{}}
		e.accounts[account] = w
	}
	f := store.RequestFilter{Account: account, Limit: watchMost}
	if !w.newest.IsZero() {
		f.Since = w.newest.Add(-lateBy)
	}
	list, _, more, err := e.cfg.Store.Requests(ctx, f)
	if err != nil {
		return err
	}
	if more && news { // more came than one look shows, unless its last was seen before
		if _, known := w.requests[list[len(list)-1].ID]; !known {
			e.tell(client.Event{Type: client.EventReset}, account)
		}
	}
	var others []license.RequestID // those that the list does not have
	listed := make(map[license.RequestID]bool, len(list))
	for i := range list { // the oldest first
		r := list[len(list)-1-i]
		listed[r.ID] = true
		e.see(w, r, news)
	}
	for id := range w.requests {
		if !listed[id] {
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		return nil
	}
	if list, err = e.cfg.Store.RequestsByID(ctx, account, others); err != nil {
		return err
	}
	for _, r := range list {
		e.see(w, r, news)
	}
	return nil
}

// see compares a request with what was known of it.
func (e *events) see(w *watched, r store.KeptRequest, news bool) {
	before, known := w.requests[r.ID]
	if r.At.After(w.newest) {
		w.newest = r.At
	}
	if news {
		if !known {
			e.tellOf(client.EventAccepted, r)
		}
		if r.Done+r.Failed != before.Done+before.Failed {
			e.tellOf(client.EventSettled, r)
		}
		if r.Ended != before.Ended {
			e.tellOf(client.EventEnded, r)
		}
	}
	// One that has ended is remembered as long as a list may show it again.
	ended := r.Ended == r.Total && r.Done+r.Failed == r.Total
	if ended && r.At.Before(w.newest.Add(-2*lateBy)) {
		delete(w.requests, r.ID)
		return
	}
	if w.requests[r.ID] = r; len(w.requests) > 2*watchMost {
		delete(w.requests, w.oldest())
	}
}

// oldest is the request that was accepted first.
func (w *watched) oldest() (id license.RequestID) {
	var at time.Time
	for _, r := range w.requests {
		if id == "" || r.At.Before(at) {
			id, at = r.ID, r.At
		}
	}
	return id
}

// tellOf tells of a request, as it now stands.
func (e *events) tellOf(what string, r store.KeptRequest) {
	request := requestOf(r)
	e.tell(client.Event{Type: what, Request: &request}, r.Account)
}

// tell hands an event of an account to those who want it.
func (e *events) tell(event client.Event, account license.AccountName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	event.ID = e.epoch + "-" + strconv.FormatInt(e.seq, 10)
	if e.recent = append(e.recent, event); len(e.recent) > keepRecent {
		e.recent = e.recent[1:]
	}
	for s := range e.streams {
		if s.account != "" && s.account != account {
			continue
		}
		select {
		case s.events <- event:
		default: // too slow: it may go on from its last event
			e.drop(s)
		}
	}
}

// wants reports whether a stream that goes on wants an event.
func (s *stream) wants(event client.Event) bool {
	switch {
	case event.Request != nil:
		return s.account == "" || string(s.account) == event.Request.Account
	case event.Alert != nil:
		return s.account == "" || string(s.account) == event.Alert.Account
	}
	return true
}

// subscribe begins a stream, behind the event that its reader had last. Where
// what came after that is not known, the first event says so.
func (e *events) subscribe(account license.AccountName, last string) *stream {
	s := &stream{account: account, events: make(chan client.Event, keepRecent+streamRoom), gone: make(chan struct{})}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ended {
		close(s.gone)
		return s
	}
	for _, event := range e.after(last) {
		if s.wants(event) {
			s.events <- event // there is room
		}
	}
	e.streams[s] = struct{}{}
	select {
	case e.wanted <- struct{}{}:
	default:
	}
	return s
}

// after are the events behind one; the lock is held.
func (e *events) after(last string) []client.Event {
	if last == "" {
		return nil
	}
	epoch, number, _ := strings.Cut(last, "-")
	seq, err := strconv.ParseInt(number, 10, 64)
	oldest := e.seq - int64(len(e.recent)) // behind which recent has all
	if err != nil || epoch != e.epoch || seq < oldest || seq > e.seq {
		return []client.Event{{ID: e.epoch + "-" + strconv.FormatInt(e.seq, 10), Type: client.EventReset}}
	}
	return e.recent[seq-oldest:]
}

// unsubscribe ends a stream.
func (e *events) unsubscribe(s *stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(s)
}
