package load_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// deliver gives a callback to the sink and returns the status of its answer.
func deliver(t *testing.T, s *load.Sink, request, iccid, status string) int {
	t.Helper()
	body, err := json.Marshal(m2m.CallbackMessage{
		RequestID: request, Status: status, DeviceIDs: []m2m.DeviceID{{ID: iccid, Kind: m2m.KindICCID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body)))
	return w.Code
}

func TestSink(t *testing.T) {
	fleet := load.Fleet{Mark: 1}
	a, b := fleet.ICCID(0), fleet.ICCID(1)
	for _, c := range []struct {
		name string
		do   func(s *load.Sink, batch *load.Batch)
		want string // in the error of Check; empty for none
	}{
		{"each once", func(s *load.Sink, batch *load.Batch) {
			deliver(t, s, "r", a, m2m.CallbackSuccess) // before the answer
			batch.Answered("r")
			deliver(t, s, "r", b, m2m.CallbackFailed)
			<-batch.Done()
			if failed := batch.Failed(); len(failed) != 1 || failed[0] != b || len(batch.Latencies()) != 2 {
				t.Errorf("Failed() = %v, Latencies() = %v, want %s and two", failed, batch.Latencies(), b)
			}
		}, ""},
		{"one missing", func(s *load.Sink, batch *load.Batch) {
			batch.Answered("r")
			deliver(t, s, "r", a, m2m.CallbackSuccess)
		}, "1 callbacks are MISSING"},
		{"one twice", func(s *load.Sink, batch *load.Batch) {
			batch.Answered("r")
			for _, iccid := range []string{a, b, a} {
				deliver(t, s, "r", iccid, m2m.CallbackSuccess)
			}
		}, "a SECOND callback for " + a},
		{"of another request", func(s *load.Sink, batch *load.Batch) {
			deliver(t, s, "other", a, m2m.CallbackSuccess)
			batch.Answered("r")
		}, "callbacks came for request other; the answer said r"},
		{"of nobody's", func(s *load.Sink, _ *load.Batch) {
			deliver(t, s, "r", fleet.ICCID(2), m2m.CallbackSuccess)
		}, "which no request has named"},
		{"refused, but called back", func(s *load.Sink, batch *load.Batch) {
			deliver(t, s, "r", a, m2m.CallbackSuccess)
			batch.Refused()
		}, "1 callbacks came for a request that was refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &load.Sink{}
			c.do(s, s.Expect([]string{a, b}))
			err := s.Check()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Check() = %v, want %q", err, c.want)
			}
		})
	}
}

func TestSinkRefuses(t *testing.T) {
	fleet := load.Fleet{}
	first := true
	s := &load.Sink{Refuse: func(string, time.Time) bool { was := first; first = false; return was }}
	s.Expect([]string{fleet.ICCID(0)})
	for _, want := range []int{http.StatusServiceUnavailable, http.StatusOK} {
		if got := deliver(t, s, "r", fleet.ICCID(0), m2m.CallbackSuccess); got != want {
			t.Errorf("a callback was answered %d, want %d", got, want)
		}
	}
	if err := s.Check(); err != nil {
		t.Errorf("Check() = %v", err)
	}
}

func TestPercentiles(t *testing.T) {
	var list []time.Duration
	for i := range 1000 {
		list = append(list, time.Duration(1000-i)*time.Millisecond)
	}
	got := load.PercentilesOf(list)
	if want := (load.Percentiles{Count: 1000, P50: 500, P90: 900, P99: 990, P999: 999, Max: 1000}); got != want {
		t.Errorf("PercentilesOf(1 to 1000 ms) = %+v, want %+v", got, want)
	}
	if got := load.PercentilesOf(nil); got != (load.Percentiles{}) {
		t.Errorf("PercentilesOf(nil) = %+v, want zero", got)
	}
}

func TestFleet(t *testing.T) {
	seen := map[string]bool{}
	for _, mark := range []int{0, 7, 99} {
		for i := range 100 {
			f := load.Fleet{Mark: mark}
			if iccid, imei := f.ICCID(i), f.IMEI(i); len(iccid) != 20 || len(imei) != 15 || seen[iccid] {
				t.Fatalf("SIM %d of fleet %d has ICCID %s (seen: %v) and IMEI %s", i, mark, iccid, seen[iccid], imei)
			}
			seen[f.ICCID(i)] = true
		}
	}
}
