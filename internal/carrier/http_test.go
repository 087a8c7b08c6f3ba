package carrier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

const (
	testToken  = "a-token-of-some-length"
	testSecret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
)

// newHTTP makes an HTTP that calls a handler.
func newHTTP(t *testing.T, handler http.HandlerFunc, change func(*HTTPConfig)) *HTTP {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	cfg := HTTPConfig{URL: srv.URL + "/licenses?tenant=1", Token: testToken, Secret: testSecret}
	if change != nil {
		change(&cfg)
	}
	h, err := NewHTTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.transport.CloseIdleConnections)
	return h
}

// system is a provisioning system as it should be, which does all and refuses
// SIMs whose ICCID ends in 7.
func system(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var call callMessage
	switch {
	case err != nil:
		return
	case r.Header.Get("Authorization") != "Bearer "+testToken || m2m.CheckSignature(testSecret, r.Header, body) != nil:
		w.WriteHeader(http.StatusUnauthorized)
		return
	case json.Unmarshal(body, &call) != nil:
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	said := []outcomeMessage{}
	for _, task := range call.Tasks {
		m := outcomeMessage{Key: task.Key, Outcome: "done"}
		if strings.HasSuffix(task.Device.ICCID, "7") {
			m.Outcome, m.Code, m.Text = "refused", license.CodeAlreadyLicensed, "It has one."
		}
		said = append(said, m)
	}
	slices.Reverse(said)
	answerJSON(w, outcomesMessage{&said})
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(w).Encode(v)
}

func TestHTTPConformance(t *testing.T) {
	testConformance(t, func(t *testing.T) Provisioner { return newHTTP(t, system, nil) })
}

// TestHTTPCall looks at what is posted.
func TestHTTPCall(t *testing.T) {
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	tasks := someTasks(2, license.Unassign, at)
	tasks[1].Attempt, tasks[1].Device.IMEI, tasks[1].Device.MDN = 3, "", "5551230001"
	var got string
	h := newHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = fmt.Sprintf("%s %s %s %s\n%s", r.Method, r.URL, r.Header.Get("Content-Type"), r.Header.Get("Authorization"), body)
		if err := m2m.CheckSignature(testSecret, r.Header, body); err != nil {
			t.Errorf("the call's signature: %v", err)
		}
		said := []outcomeMessage{{Key: tasks[1].Key(), Outcome: "retry", Due: "2026-11-23T10:00:00+01:00"}, {Key: tasks[0].Key(), Outcome: "later"}}
		answerJSON(w, outcomesMessage{&said})
	}, func(cfg *HTTPConfig) { cfg.Clock = still{time.Now()} })
	out, err := h.Provision(t.Context(), tasks)
	if err != nil {
		t.Fatal(err)
	}
	want := `POST /licenses?tenant=1 application/json Bearer ` + testToken + `
{"tasks":[{"key":"0190a6f0-0000-7000-8000-000000424400/89148000000000000000","requestId":"0190a6f0-0000-7000-8000-000000424400",` +
		`"action":"unassign","sku":"SIMSec-IoT","account":"0000123456-00001","device":{"iccid":"89148000000000000000","imei":"490154203237518"},` +
		`"attempt":1,"acceptedAt":"2026-11-23T09:00:00Z"},` +
		`{"key":"0190a6f0-0000-7000-8000-000000424400/89148000000000000001","requestId":"0190a6f0-0000-7000-8000-000000424400",` +
		`"action":"unassign","sku":"SIMSec-IoT","account":"0000123456-00001","device":{"iccid":"89148000000000000001","mdn":"5551230001"},` +
		`"attempt":4,"acceptedAt":"2026-11-23T09:00:00Z"}]}`
	if got != want {
		t.Errorf("the call is\n%s\nwant\n%s", got, want)
	}
	if o := out[1]; o.Verdict != license.Retry || !o.Due.Equal(at) {
		t.Errorf("the second outcome is %v at %v, want retry at %v", o.Verdict, o.Due, at)
	}
	if o := out[0]; o.Verdict != license.Later || !o.Due.Equal(h.cfg.Clock.Now().Add(laterAgain)) {
		t.Errorf("the first outcome is %v at %v, want later, asked for in %v", o.Verdict, o.Due, laterAgain)
	}
}

// still is a clock that stands.
type still struct{ at time.Time }

func (c still) Now() time.Time                     { return c.at }
func (still) After(time.Duration) <-chan time.Time { return nil }

// text answers with a body.
func text(status int, media, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", media)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// TestHostileCarrier: whatever a carrier does but say a plain yes or no, nothing
// is known, and how its calls end is counted.
func TestHostileCarrier(t *testing.T) {
	tasks := someTasks(3, license.Assign, time.Now())
	key := func(i int) string { return tasks[i].Key() }
	const media = "application/json"
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		kind    string // of the failed call; empty: it was answered
		want    string // in the error, or in the comment of the first outcome
		known   int    // tasks that have an outcome all the same
	}{
		"no JSON":             {text(200, media, "<html>"), callGarbage, "cannot be read", 0},
		"half of it":          {text(200, media, `{"outcomes":[{"key":"`+key(0)+`","outcome":"done"}`), callGarbage, "cannot be read", 0},
		"more behind it":      {text(200, media, `{"outcomes":[]}{"outcomes":[]}`), callGarbage, "cannot be read", 0},
		"no outcomes":         {text(200, media, `{"results":[]}`), callGarbage, `no member "outcomes"`, 0},
		"null":                {text(200, media, `null`), callGarbage, `no member "outcomes"`, 0},
		"empty":               {text(200, media, ``), callGarbage, "cannot be read", 0},
		"other types":         {text(200, media, `{"outcomes":[{"key":7}]}`), callGarbage, "cannot be read", 0},
		"a member twice":      {text(200, media, `{"outcomes":[{"key":"`+key(0)+`","outcome":"done","outcome":"refused"}]}`), callGarbage, "duplicate", 0},
		"no UTF-8":            {text(200, media, `{"outcomes":[{"key":"`+key(0)+`","outcome":"refused","text":"`+"\xff"+`"}]}`), callGarbage, "UTF-8", 0},
		"deep":                {text(200, media, `{"outcomes":`+strings.Repeat("[", 500_000)), callGarbage, "cannot be read", 0},
		"10 MB":               {text(200, media, `{"outcomes":[`+strings.Repeat(" ", 10<<20)+`]}`), callTooLarge, "larger than 2097152", 0},
		"HTML":                {text(200, "text/html", `{"outcomes":[]}`), callGarbage, `"text/html"`, 0},
		"no type":             {text(200, "", `{"outcomes":[]}`), callGarbage, "Content-Type", 0},
		"202":                 {text(202, media, `{"outcomes":[{"key":"`+key(0)+`","outcome":"done"}]}`), callStatus, "202 Accepted", 0},
		"204":                 {text(204, media, ``), callStatus, "204", 0},
		"401":                 {text(401, media, `who is "`+testToken+`"?`), callUnauthorized, `who is \"********\"?`, 0},
		"403":                 {text(403, media, ``), callUnauthorized, "403 Forbidden", 0},
		"500":                 {text(500, media, strings.Repeat("x", 1000)), callStatus, strings.Repeat("x", 200) + `"`, 0},
		"503 without a time":  {text(503, media, ``), callUnavailable, "503", 0},
		"101":                 {switches, callStatus, "switches protocols", 0},
		"hangs up":            {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, callNetwork, "EOF", 0},
		"resets":              {reset, callNetwork, "", 0},
		"announces too much":  {short, callNetwork, "reading the answer", 0},
		"drips":               {drip, callTimeout, "", 0},
		"hangs":               {func(_ http.ResponseWriter, r *http.Request) { hang(r) }, callTimeout, "deadline", 0},
		"none":                {text(200, media, `{"outcomes":[]}`), "", "gave no outcome", 0},
		"wrong device":        {text(200, media, `{"outcomes":[{"key":"`+string(tasks[0].Request)+`/89148000000099999999","outcome":"done"}]}`), "", "gave no outcome", 0},
		"other request":       {text(200, media, `{"outcomes":[{"key":"0190a6f0-0000-7000-8000-000000000000/`+string(tasks[0].Device.ICCID)+`","outcome":"done"}]}`), "", "gave no outcome", 0},
		"contradicts itself":  {text(200, media, `{"outcomes":[{"key":"`+key(0)+`","outcome":"done"},{"key":"`+key(0)+`","outcome":"refused"},{"key":"`+key(0)+`","outcome":"done"}]}`), "", "contradict", 0},
		"another word":        {text(200, media, `{"outcomes":[{"key":"`+key(0)+`","outcome":"DONE"}]}`), "", `there is not: "DONE"`, 0},
		"no word":             {text(200, media, `{"outcomes":[{"key":"`+key(0)+`"}]}`), "", "there is not", 0},
		"says the same twice": {text(200, media, `{"outcomes":[{"key":"`+key(0)+`","outcome":"done"},{"key":"`+key(0)+`","outcome":"done"}]}`), "", "", 1},
		"some":                {text(200, media, `{"outcomes":[{"key":"`+key(2)+`","outcome":"refused","text":"no","new":[1]}]}`), "", "gave no outcome", 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHTTP(t, tt.handler, nil)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if tt.kind == callTimeout {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			out, err := h.Provision(ctx, tasks)
			wantFailed, wantAnswered := 1.0, 0.0
			if tt.kind == "" {
				wantFailed, wantAnswered = 0, 1
			} else if got := counted(t, h.metrics.calls[tt.kind]); got != wantFailed {
				t.Errorf("%v calls counted as %s, want one (%v)", got, tt.kind, err)
			}
			if got := counted(t, h.metrics.calls[callAnswered]); got != wantAnswered {
				t.Errorf("%v calls counted as answered, want %v", got, wantAnswered)
			}
			if (err != nil) != (tt.kind != "") {
				t.Fatalf("Provision: %v", err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), testToken) || len(err.Error()) > 600 {
					t.Errorf("the error is %q, want one with %q, and no secret", err, tt.want)
				}
				return
			}
			known := 0
			for i, o := range out {
				if o.Task != tasks[i] {
					t.Errorf("outcome %d is of %s", i, o.Task.Key())
				}
				if o.Verdict == license.Done || o.Verdict == license.Refused {
					known++
				}
			}
			if known != tt.known || !strings.Contains(out[0].Comment, tt.want) {
				t.Errorf("%d outcomes are known, the first says %q; want %d and %q", known, out[0].Comment, tt.known, tt.want)
			}
		})
	}
}

// counted is what a counter says.
func counted(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func hang(r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // so that the server notices who hangs up
	<-r.Context().Done()
}

func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

func short(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "1000")
	text(200, "application/json", `{"outcomes":[`)(w, r)
}

func drip(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	for r.Context().Err() == nil {
		_, _ = io.WriteString(w, " ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Millisecond):
		}
	}
}

// TestHTTPIsNotRedirected: a redirect, which would carry the token elsewhere, is
// not followed.
func TestHTTPIsNotRedirected(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		h := newHTTP(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, status) }, nil)
		if _, err := h.Provision(t.Context(), someTasks(1, license.Assign, time.Now())); err == nil || !strings.Contains(err.Error(), "redirects") {
			t.Errorf("a redirect (%d): %v", status, err)
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// TestHTTPHoldsBack: a carrier that asks to be left alone is, for a time that is
// bounded.
func TestHTTPHoldsBack(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"30": 30 * time.Second, "0": 0, "7200": 2 * time.Hour, "999999999999": maxRetryAfter, "99999999999999999999": -1, "-5": -1, "soon": -1,
		time.Date(2026, 11, 23, 9, 1, 0, 0, time.UTC).Format(http.TimeFormat): time.Minute,
		time.Date(2020, 11, 23, 9, 1, 0, 0, time.UTC).Format(http.TimeFormat): 0,
	} {
		clock := &still{time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
		calls := 0
		h := newHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Retry-After", value)
			w.WriteHeader(http.StatusTooManyRequests)
		}, func(cfg *HTTPConfig) { cfg.Clock = clock })
		tasks := someTasks(1, license.Assign, clock.at)
		_, err := h.Provision(t.Context(), tasks)
		var away *license.UnavailableError
		if got := errors.As(err, &away); got != (want >= 0) || got && away.After != want {
			t.Errorf("Retry-After %s: %v, want to wait %v", value, err, want)
		}
		_, err = h.Provision(t.Context(), tasks)
		if held := want > 0; held != (calls == 1) || err == nil {
			t.Errorf("Retry-After %s: %d calls, %v", value, calls, err)
		}
		clock.at = clock.at.Add(min(max(want, 0), maxQuiet))
		before := calls
		if _, err = h.Provision(t.Context(), tasks); calls != before+1 || err == nil {
			t.Errorf("Retry-After %s: not called again after it, or after %v", value, maxQuiet)
		}
	}
}

// TestOddAnswersAreToldOnce: the log tells of them once a minute, the metrics of
// each.
func TestOddAnswersAreToldOnce(t *testing.T) {
	var log bytes.Buffer
	clock := &still{time.Now()}
	h := newHTTP(t, text(200, "application/json", `{"outcomes":[{"key":"x","outcome":"done"}]}`), func(cfg *HTTPConfig) {
		cfg.Logger, cfg.Clock = slog.New(slog.NewTextHandler(&log, nil)), clock
	})
	for range 10 {
		if _, err := h.Provision(t.Context(), someTasks(3, license.Assign, time.Now())); err != nil {
			t.Fatal(err)
		}
		clock.at = clock.at.Add(10 * time.Second)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines in 100 seconds, want 2:\n%s", n, log.String())
	}
	if missing, unknown := counted(t, h.metrics.odds["missing"]), counted(t, h.metrics.odds["unknown"]); missing != 30 || unknown != 10 {
		t.Errorf("%v missing and %v unknown outcomes are counted, want 30 and 10", missing, unknown)
	}
}

func TestNewHTTPRefusesNonsense(t *testing.T) {
	for _, tt := range []struct {
		cfg  HTTPConfig
		want string
	}{
		{HTTPConfig{}, "begin with http"},
		{HTTPConfig{URL: "ftp://example.com"}, "begin with http"},
		{HTTPConfig{URL: "https:///x"}, "no host"},
		{HTTPConfig{URL: "https://user:password@example.com/"}, "no user and password"},
		{HTTPConfig{URL: "https://user:pass word@example.com/"}, "no URL"},
		{HTTPConfig{URL: "https://example.com/#x"}, "no fragment"},
		{HTTPConfig{URL: "https://example.com/", Secret: "not base64!"}, "base64"},
		{HTTPConfig{URL: "https://example.com/", Secret: "whsec_"}, "base64"},
	} {
		_, err := NewHTTP(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "password@") {
			t.Errorf("NewHTTP(%+v) = %v, want an error with %q", tt.cfg, err, tt.want)
		}
	}
}

// TestCheckHTTP holds a good system against the checks, and ones that are not.
func TestCheckHTTP(t *testing.T) {
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		check   string
		want    string
	}{
		"good": {system, "", ""},
		"believes anybody": {func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			var call callMessage
			_ = json.Unmarshal(body, &call)
			said := []outcomeMessage{}
			for _, task := range call.Tasks {
				said = append(said, outcomeMessage{Key: task.Key, Outcome: "done"})
			}
			answerJSON(w, outcomesMessage{&said})
		}, "a wrong signature is refused", "anybody can have licenses made"},
		"away":   {text(500, "text/plain", "broken"), "it answers a call", "500 Internal Server Error"},
		"silent": {text(200, "application/json", `{"outcomes":[]}`), "it answers a call", "1 tasks without an outcome"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tt.handler)
			defer srv.Close()
			findings, err := CheckHTTP(t.Context(), HTTPConfig{URL: srv.URL, Token: testToken, Secret: testSecret}, CheckConfig{})
			if err != nil {
				t.Fatal(err)
			}
			noticed := tt.check == ""
			for _, f := range findings {
				all := strings.Join(f.Faults, "\n")
				if tt.check == "" && all != "" {
					t.Errorf("%s: %s", f.Check, all)
				}
				noticed = noticed || f.Check == tt.check && strings.Contains(all, tt.want)
			}
			if !noticed {
				t.Errorf("no check noticed: %+v", findings)
			}
		})
	}
}
