package operator

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// TestWatchingMany tells of each request once, however many there are, and
// forgets those that ended.
func TestWatchingMany(t *testing.T) {
	e := newEvents(Config{})
	s := e.subscribe("", "")
	w := &watched{requests: map[license.RequestID]store.KeptRequest{}}
	at := time.Date(2026, time.January, 5, 12, 0, 0, 0, time.UTC)
	var last []store.KeptRequest // as a list shows them
	told := 0
	for i := range 3 * watchMost {
		r := store.KeptRequest{Progress: license.Progress{ID: license.NewRequestID(at, rand.Reader), Account: "a-1", At: at, Total: 1}}
		at = at.Add(time.Millisecond)
		if last = append(last, r); len(last) > watchMost {
			last = last[1:]
		}
		if i%500 == 499 { // a look
			for _, r := range last {
				e.see(w, r, true)
			}
			for ; len(s.events) > 0; told++ {
				if event := <-s.events; event.Type != client.EventAccepted {
					t.Fatalf("told %+v", event)
				}
			}
		}
	}
	if told != 3*watchMost || len(w.requests) > 2*watchMost {
		t.Errorf("told of %d requests, watching %d", told, len(w.requests))
	}
	for _, r := range last {
		r.Done, r.Ended = 1, 1
		e.see(w, r, true)
	}
	late := store.KeptRequest{Progress: license.Progress{ID: "late", Account: "a-1", At: at.Add(time.Hour), Total: 1}}
	e.see(w, late, true)
	for _, r := range last {
		r.Done, r.Ended = 1, 1
		e.see(w, r, true)
	}
	if len(w.requests) > watchMost+1 {
		t.Errorf("%d are watched still", len(w.requests))
	}
	if _, known := w.requests[last[0].ID]; known {
		t.Error("one that has ended is watched still")
	}
}

// TestSlowStream is let go, and may go on from its last event.
func TestSlowStream(t *testing.T) {
	e := newEvents(Config{})
	s := e.subscribe("", "")
	for range keepRecent + streamRoom + 1 {
		e.tell(client.Event{Type: client.EventReset}, "a-1")
	}
	select {
	case <-s.gone:
	default:
		t.Error("a stream that nobody reads goes on")
	}
	if n := len(e.after(e.epoch + "-1256")); n != 1 {
		t.Errorf("%d events behind the last but one", n)
	}
	if list := e.after(e.epoch + "-1"); len(list) != 1 || list[0].Type != client.EventReset {
		t.Errorf("behind one that is forgotten: %+v", list)
	}
}
