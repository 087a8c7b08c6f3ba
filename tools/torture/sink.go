package main

import (
	"encoding/json"
	"net/http"

	"github.com/simlatch/simlatch/m2m"
)

// told is what the listener was told of one device of one request.
type told struct {
	status  string // the last; empty where each message was refused
	id      string // the webhook-id, of all
	refused bool   // one was
	times   int
}

// sink is the listener. It refuses some messages once.
type sink struct {
	w    *world
	came map[string]map[string]*told // by request and ICCID; guarded by w.mu
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m m2m.CallbackMessage
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		return // the server was killed while it sent
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	of := s.came[m.RequestID]
	if of == nil {
		of = map[string]*told{}
		s.came[m.RequestID] = of
	}
	t := of[m.ICCID()]
	if t == nil {
		t = &told{id: r.Header.Get("webhook-id")}
		of[m.ICCID()] = t
	}
	if !t.refused && s.w.chance(4) {
		t.refused = true
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if t.status != "" && t.status != m.Status {
		s.w.wrong("request %s, SIM %s: told %s, then %s", m.RequestID, m.ICCID(), t.status, m.Status)
	}
	if id := r.Header.Get("webhook-id"); id == "" || id != t.id {
		s.w.wrong("request %s, SIM %s: webhook-id %q, then %q", m.RequestID, m.ICCID(), t.id, id)
	}
	t.status = m.Status
	t.times++
}

// ended is how the devices of a request ended, and whether all were told of.
func (s *sink) ended(request string, devices int) (map[string]string, bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	ended := map[string]string{}
	for iccid, t := range s.came[request] {
		if t.status != "" {
			ended[iccid] = t.status
		}
	}
	return ended, len(ended) >= devices
}
