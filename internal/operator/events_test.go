package operator_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// watch reads events, of which next waits for one.
func (h *harness) watch(query, last string) (next func() client.Event, leave func()) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), "GET", h.url+"/operator/v1/events"+query, nil)
	h.must(err)
	req.Header.Set("Authorization", "Bearer "+h.tokens[auth.RoleViewer])
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // leave closes it
	h.must(err)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		h.t.Fatalf("events: %d %v", resp.StatusCode, resp.Header)
	}
	events := make(chan client.Event, 100)
	go func() {
		defer close(events)
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e client.Event
				_ = json.Unmarshal([]byte(data), &e)
				events <- e
			}
		}
	}()
	next = func() client.Event {
		h.t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(20 * time.Second):
			h.t.Fatal("no event came")
			return client.Event{}
		}
	}
	return next, func() { _ = resp.Body.Close() }
}

// TestEvents follows a request by its events, and goes on after a break.
func TestEvents(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		old := h.accept(license.Assign, h.sims[9])
		h.listen()
		next, leave := h.watch("?account=000012345600001", "")
		h.clock.pass(time.Minute)
		h.carry(license.Done)
		if e := next(); e.Type != client.EventSettled || e.Request.ID != string(old) || e.Request.Succeeded != 1 {
			t.Errorf("first: %+v %+v", e, e.Request)
		}
		h.deliver(http.StatusOK)
		ended := next()
		if ended.Type != client.EventEnded || ended.Request.Ended != 1 {
			t.Errorf("then: %+v", ended)
		}
		leave()
		id := h.accept(license.Assign, h.sims[:2]...)
		next, leave = h.watch("", ended.ID)
		if e := next(); e.Type != client.EventAccepted || e.Request.ID != string(id) || e.Request.Devices != 2 {
			t.Errorf("after a break: %+v", e)
		}
		leave()
		next, leave = h.watch("", "another-12")
		if e := next(); e.Type != client.EventReset || e.Request != nil {
			t.Errorf("after another node's: %+v", e)
		}
		h.call(auth.RoleOperator, "PATCH", account+"/pools/SIMSec-IoT", client.PoolChange{Threshold: 97}).want(http.StatusOK)
		h.accept(license.Assign, h.sims[2])
		for e := next(); ; e = next() {
			if e.Type == client.EventLow {
				if e.Alert.Available != 96 || e.Alert.Threshold != 97 {
					t.Errorf("low: %+v", e.Alert)
				}
				break
			}
		}
		leave()
		h.get("/events?account=nobody").want(http.StatusNotFound)
	})
}
