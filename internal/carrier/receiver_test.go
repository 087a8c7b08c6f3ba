package carrier

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/license"
)

// settlerFunc settles as a test says.
type settlerFunc func(p license.LateParams) (license.LateSettlement, error)

func (f settlerFunc) SettleLate(_ context.Context, p license.LateParams) (license.LateSettlement, error) {
	return f(p)
}

const (
	lateRequest = "0190a6f0-0000-7000-8000-000000000001"
	lateKeyText = lateRequest + "/89148000000000000012"
)

// signed is a call of a receiver, signed at a time.
func signed(body string, at time.Time) *http.Request {
	req := httptest.NewRequest(http.MethodPost, OutcomesPath, strings.NewReader(body))
	webhook, err := standardwebhooks.NewWebhook(testSecret)
	if err != nil {
		panic(err)
	}
	signature, err := webhook.Sign("call_1", at, []byte(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("webhook-id", "call_1")
	req.Header.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
	req.Header.Set("webhook-signature", signature)
	return req
}

func newReceiver(t *testing.T, f settlerFunc, wake func()) *Receiver {
	t.Helper()
	r, err := NewReceiver(ReceiverConfig{Settler: f, Secret: testSecret, Wake: wake})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReceiver: outcomes are settled by account, and each is told what became of
// it, in the order of the call.
func TestReceiver(t *testing.T) {
	var given []license.LateParams
	woken := 0
	r := newReceiver(t, func(p license.LateParams) (license.LateSettlement, error) {
		given = append(given, p)
		results := make([]license.LateResult, len(p.Outcomes))
		for i := range results {
			results[i] = license.LateResults[(i+1)%len(license.LateResults)]
		}
		return license.LateSettlement{Results: results, More: p.Account == "a-1"}, nil
	}, func() { woken++ })
	body := `{"outcomes":[
		{"account":"a-1","key":"` + lateKeyText + `","outcome":"done"},
		{"account":"b-1","key":"` + lateKeyText + `","outcome":"refused","code":"already-licensed","text":"It has one."},
		{"account":"a-1","key":"` + strings.ToUpper(lateRequest) + `/89148000000000000012","outcome":"refused","text":"no","new":true},
		{"key":"` + lateKeyText + `","outcome":"done"},
		{"account":"a-1","key":"x","outcome":"done"},
		{"account":"a-1","key":"` + lateKeyText + `","outcome":"later"},
		{"account":"a-1","key":"` + lateKeyText + `","outcome":"done"}]}`
	w := httptest.NewRecorder()
	r.ServeHTTP(w, signed(body, time.Now()))
	var got resultsMessage
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	var words []string
	for _, m := range got.Results {
		words = append(words, m.Result)
	}
	want := []string{"settled", "settled", "repeated", "invalid", "invalid", "invalid", "contradicts"}
	if diff := cmp.Diff(want, words); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	wantGiven := []license.LateOutcome{{Request: lateRequest, ICCID: "89148000000000000012", Verdict: license.Refused, Code: license.CodeAlreadyLicensed, Comment: "It has one."}}
	if len(given) != 2 || given[0].Account != "a-1" || len(given[0].Outcomes) != 3 || given[1].Account != "b-1" || !slices.Equal(given[1].Outcomes, wantGiven) || woken != 1 {
		t.Errorf("settled %+v, woken %d times", given, woken)
	}
	for result, want := range map[string]float64{"settled": 2, "repeated": 1, "contradicts": 1, "invalid": 3, "unknown": 0} {
		if got := counted(t, r.metrics.outcomes[result]); got != want {
			t.Errorf("%v outcomes counted as %s, want %v", got, result, want)
		}
	}
}

// TestReceiverRefuses what is not the carrier's, and what is not in form: none of
// it reaches the store.
func TestReceiverRefuses(t *testing.T) {
	const good = `{"outcomes":[{"account":"a-1","key":"` + lateKeyText + `","outcome":"done"}]}`
	away := &license.UnavailableError{Err: errors.New("away"), After: 1500 * time.Millisecond}
	for name, tt := range map[string]struct {
		body   string
		at     time.Duration // from now, of the signature
		change func(*http.Request)
		settle error
		status int
		detail string
	}{
		"GET":         {good, 0, func(r *http.Request) { r.Method = http.MethodGet }, nil, 405, "posted"},
		"unsigned":    {good, 0, func(r *http.Request) { r.Header.Del("webhook-signature") }, nil, 401, "not signed"},
		"no id":       {good, 0, func(r *http.Request) { r.Header.Del("webhook-id") }, nil, 401, "not signed"},
		"other id":    {good, 0, func(r *http.Request) { r.Header.Set("webhook-id", "call_2") }, nil, 401, "wrong"},
		"other body":  {good, 0, func(r *http.Request) { r.Body = http.NoBody }, nil, 401, "wrong"},
		"other key":   {good, 0, func(r *http.Request) { r.Header.Set("webhook-signature", "v1,c2VjcmV0") }, nil, 401, "wrong"},
		"old":         {good, -6 * time.Minute, nil, nil, 401, "too old"},
		"new":         {good, 6 * time.Minute, nil, nil, 401, "too new"},
		"a form":      {good, 0, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, nil, 415, "application/json"},
		"compressed":  {good, 0, func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, nil, 415, "as it is"},
		"large":       {`{"outcomes":[]` + strings.Repeat(" ", 3<<20) + `}`, 0, nil, nil, 413, "at most"},
		"no JSON":     {`{"outcomes":`, 0, nil, nil, 400, "cannot be read"},
		"a call":      {`{"tasks":[]}`, 0, nil, nil, 400, `no member "outcomes"`},
		"too many":    {`{"outcomes":[` + strings.Repeat(`{},`, 500) + `{}]}`, 0, nil, nil, 400, "at most 500"},
		"store away":  {good, 0, nil, away, 503, "same call again"},
		"store fails": {good, 0, nil, errors.New("disk on fire"), 500, "same call again"},
	} {
		t.Run(name, func(t *testing.T) {
			settled := 0
			r := newReceiver(t, func(license.LateParams) (license.LateSettlement, error) {
				settled++
				return license.LateSettlement{}, tt.settle
			}, nil)
			req := signed(tt.body, time.Now().Add(tt.at))
			if tt.change != nil {
				tt.change(req)
			}
			w := httptest.NewRecorder()
			r.ServeHTTP(w, req)
			var p problem
			err := json.Unmarshal(w.Body.Bytes(), &p)
			if err != nil || w.Code != tt.status || p.Status != tt.status || p.Title == "" || !strings.Contains(p.Detail, tt.detail) ||
				w.Header().Get("Content-Type") != "application/problem+json" || strings.Contains(p.Detail, "fire") {
				t.Errorf("%d %s, %v; want %d and %q", w.Code, w.Body, err, tt.status, tt.detail)
			}
			if (settled > 0) != (tt.settle != nil) {
				t.Errorf("settled %d times", settled)
			}
			if got := w.Header().Get("Retry-After"); (got == "2") != (tt.status == 503) {
				t.Errorf("Retry-After is %q", got)
			}
		})
	}
}

func TestNewReceiverRefusesNonsense(t *testing.T) {
	settler := settlerFunc(func(license.LateParams) (license.LateSettlement, error) { return license.LateSettlement{}, nil })
	for _, cfg := range []ReceiverConfig{{}, {Settler: settler}, {Secret: testSecret}, {Settler: settler, Secret: "%"}} {
		if _, err := NewReceiver(cfg); err == nil {
			t.Errorf("NewReceiver(%+v) succeeded", cfg)
		}
	}
}
