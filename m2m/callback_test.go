package m2m_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

const callbackJSON = `{"username":"me","password":"secret","requestId":"c3f3d17c-79ff-4b35-82df-94446785b6e0",` +
	`"deviceIds":[{"id":"89148000000000000012","kind":"ICCID"}],"faultResponse":{"faultcode":"x","faultstring":"y"},` +
	`"comment":"","status":"Failed","callbackCount":2,"maxCallbackThreshold":4,"new":1}`

const signingSecret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

// sign signs a message by Standard Webhooks.
func sign(secret, id string, at time.Time, body string) http.Header {
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	ts := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + ts + "." + body))
	h := http.Header{}
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", ts)
	h.Set("webhook-signature", "v1,AAAA v2,x v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return h
}

func TestCallbackHandler(t *testing.T) {
	now := time.Now()
	good := sign(signingSecret, "msg_1", now, callbackJSON)
	credentials, secret := m2m.WithCredentials("me", "secret"), m2m.WithSigningSecret(signingSecret)
	tests := []struct {
		name   string
		method string
		body   string
		header http.Header
		opts   []m2m.CallbackOption
		fail   error
		status int
		called bool
	}{
		{"taken", "POST", callbackJSON, nil, nil, nil, 200, true},
		{"not taken", "POST", callbackJSON, nil, nil, errors.New("db-17 is down"), 500, true},
		{"method", "GET", "", nil, nil, nil, 405, false},
		{"no JSON", "POST", "{", nil, nil, nil, 400, false},
		{"trailing data", "POST", callbackJSON + "{}", nil, nil, nil, 400, false},
		{"wrong type", "POST", `{"requestId":1}`, nil, nil, nil, 400, false},
		{"empty", "POST", "", nil, nil, nil, 400, false},
		{"too large", "POST", `{"comment":"` + strings.Repeat("x", 1<<20) + `"}`, nil, nil, nil, 413, false},
		{"credentials", "POST", callbackJSON, nil, []m2m.CallbackOption{credentials}, nil, 200, true},
		{"wrong password", "POST", callbackJSON, nil, []m2m.CallbackOption{m2m.WithCredentials("me", "other")}, nil, 401, false},
		{"wrong user", "POST", callbackJSON, nil, []m2m.CallbackOption{m2m.WithCredentials("you", "secret")}, nil, 401, false},
		{"no credentials", "POST", `{}`, nil, []m2m.CallbackOption{credentials}, nil, 401, false},
		{"signed", "POST", callbackJSON, good, []m2m.CallbackOption{secret, credentials}, nil, 200, true},
		{"not signed", "POST", callbackJSON, nil, []m2m.CallbackOption{secret}, nil, 401, false},
		{"changed", "POST", strings.Replace(callbackJSON, "Failed", "Success", 1), good, []m2m.CallbackOption{secret}, nil, 401, false},
		{"other secret", "POST", callbackJSON, sign("whsec_AAAA", "msg_1", now, callbackJSON), []m2m.CallbackOption{secret}, nil, 401, false},
		{"old", "POST", callbackJSON, sign(signingSecret, "msg_1", now.Add(-6*time.Minute), callbackJSON), []m2m.CallbackOption{secret}, nil, 401, false},
		{"from the future", "POST", callbackJSON, sign(signingSecret, "msg_1", now.Add(6*time.Minute), callbackJSON), []m2m.CallbackOption{secret}, nil, 401, false},
		{"unusable secret", "POST", callbackJSON, good, []m2m.CallbackOption{m2m.WithSigningSecret("%")}, nil, 401, false},
		{"empty secret", "POST", callbackJSON, sign("", "msg_1", now, callbackJSON), []m2m.CallbackOption{m2m.WithSigningSecret("")}, nil, 401, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got *m2m.CallbackMessage
			h := m2m.CallbackHandler(func(_ context.Context, m *m2m.CallbackMessage) error { got = m; return tt.fail }, tt.opts...)
			r := httptest.NewRequestWithContext(t.Context(), tt.method, "/", strings.NewReader(tt.body))
			for k, v := range tt.header {
				r.Header[k] = v
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status || (got != nil) != tt.called {
				t.Errorf("status %d, called %v, want %d, %v; answer %s", w.Code, got != nil, tt.status, tt.called, w.Body)
			}
			if w.Code == 200 && w.Body.String() != "{}" || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("answer %q, %s, want {} as JSON", w.Body, w.Header().Get("Content-Type"))
			}
			if strings.Contains(w.Body.String(), "db-17") {
				t.Errorf("the answer shows what went wrong inside: %s", w.Body)
			}
			if tt.called && (got.CallbackCount != 2 || got.DeviceIDs[0].Kind != m2m.KindICCID || got.FaultResponse.FaultString != "y") {
				t.Errorf("got %+v", got)
			}
		})
	}
}
