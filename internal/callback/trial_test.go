package callback

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// TestTestMessage has listeners tested that answer well, badly and not at all.
func TestTestMessage(t *testing.T) {
	const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	status := http.StatusOK
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var m m2m.CallbackMessage
		if err := json.Unmarshal(body, &m); err != nil || m.ICCID() != string(testICCID) || m.Status != m2m.CallbackFailed || m.Comment != testComment ||
			m.CallbackCount != 1 || m.Password != "secret" {
			t.Errorf("the message: %s (%v)", body, err)
		}
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil || wh.Verify(body, r.Header) != nil {
			t.Errorf("the signature does not fit: %v", err)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "heard secret")
	}))
	s, err := New(Config{Outbox: newOutbox(), Guard: loopback()})
	if err != nil {
		t.Fatal(err)
	}
	l := license.Listener{Account: testAccount, URL: listener.URL, Username: "user", Password: "secret", SigningSecret: secret}
	d := s.Test(t.Context(), l)
	if d.Verdict != license.Delivered || d.Status != http.StatusOK || string(d.Answer) != "heard ********" || d.Latency <= 0 {
		t.Errorf("answered well: %+v", d)
	}
	status = http.StatusTeapot
	if d := s.Test(t.Context(), l); d.Verdict != license.Exhausted || d.Status != status {
		t.Errorf("answered badly: %+v", d)
	}
	listener.Close()
	if d := s.Test(t.Context(), l); d.Verdict != license.Exhausted || d.Status != 0 || len(d.Answer) == 0 {
		t.Errorf("not answered: %+v %s", d, d.Answer)
	}
	guarded, err := New(Config{Outbox: newOutbox()})
	if err != nil {
		t.Fatal(err)
	}
	if d := guarded.Test(t.Context(), l); d.Status != 0 || !strings.Contains(string(d.Answer), "--callback-allow") {
		t.Errorf("an address that is not allowed: %+v %s", d, d.Answer)
	}
}
