package server

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/m2m"
)

// heard is what a listener knows a message by.
type heard struct {
	WebhookID string
	Count     int
	Most      int
}

// moody is a listener that acknowledges nothing until it is well.
type moody struct {
	well     atomic.Bool
	messages chan heard
}

// answerBadly starts a listener and registers it.
func (c *caller) answerBadly() *moody {
	c.t.Helper()
	l := &moody{messages: make(chan heard, 100)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var m m2m.CallbackMessage
		if err := json.NewDecoder(q.Body).Decode(&m); err != nil {
			c.t.Errorf("a callback: %v", err)
		}
		if !l.well.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
		l.messages <- heard{q.Header.Get("webhook-id"), m.CallbackCount, m.MaxCallbackThreshold}
	}))
	c.t.Cleanup(s.Close)
	c.call(http.MethodPost, "/callbacks/"+testAccount, m2m.ListenerRequest{Name: "CarrierService", URL: s.URL}, http.StatusOK, nil)
	return l
}

// TestSendAgain has the running sender deliver what was given up, by an
// operator's word on the same database: as the same message, and from the first
// attempt on.
func TestSendAgain(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		cfg.CallbackAttempts, cfg.CallbackInterval = 2, 10*time.Millisecond
		r := startServer(t, cfg)
		c := r.login(t)

		listener := c.answerBadly()
		const iccid = "89148000000000000012"
		var accepted m2m.RequestAccepted
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", iccid), http.StatusOK, &accepted)

		var got []heard
		hear := func(n int) {
			t.Helper()
			deadline := time.After(patience)
			for range n {
				select {
				case m := <-listener.messages:
					got = append(got, m)
				case <-deadline:
					t.Fatalf("heard %+v, want %d more", got, n)
				}
			}
		}
		find := func(want store.CallbackState) (found store.KeptCallback) {
			t.Helper()
			eventually(t, "the callback is "+string(want), func() bool {
				var err error
				found, err = r.store.Callback(t.Context(), testAccount, license.RequestID(accepted.RequestID), iccid)
				return err == nil && found.State == want
			})
			return found
		}
		again := func(was store.CallbackState) {
			t.Helper()
			if n, err := r.store.SendAgain(t.Context(), testAccount, []store.KeptCallback{find(was)}, time.Now()); n != 1 || err != nil {
				t.Fatalf("SendAgain = %d, %v", n, err)
			}
		}
		hear(2)
		again(store.CallbackUndelivered)
		hear(2)
		listener.well.Store(true)
		again(store.CallbackUndelivered)
		hear(1)
		again(store.CallbackDelivered)
		hear(1)
		if last := find(store.CallbackDelivered); last.Round != 3 || last.Attempt != 1 {
			t.Errorf("at last %+v, want it acknowledged at once in round 3", last)
		}
		id := "msg_" + accepted.RequestID + "_" + iccid
		want := []heard{{id, 1, 2}, {id, 2, 2}, {id, 1, 2}, {id, 2, 2}, {id, 1, 2}, {id, 1, 2}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("what the listener heard (-want +got):\n%s", diff)
		}
		noDrift(t, r)
	})
}
