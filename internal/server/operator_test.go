package server

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/m2m"
)

// operatorToken makes an operator of a running server.
func (r *running) operatorToken(t *testing.T, role auth.Role) string {
	t.Helper()
	token := auth.NewOperatorToken()
	err := r.store.AddOperator(t.Context(), auth.OperatorRecord{
		Operator: auth.Operator{Name: "the-" + string(role), Role: role}, TokenHash: auth.HashSecret(token),
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(token)
}

// TestOperatorAPI follows, by its live events, a request that a client makes, and
// has the listener tested; the server then ends in spite of the open stream.
func TestOperatorAPI(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		r := startServer(t, cfg)
		c := r.login(t)
		listener := c.answerBadly()
		listener.well.Store(true)
		token := r.operatorToken(t, auth.RoleOperator)
		call := func(method, path string, into any) {
			t.Helper()
			status, body := r.operate(t, token, method, path)
			if status != http.StatusOK || json.Unmarshal(body, into) != nil {
				t.Fatalf("%s %s: %d %s", method, path, status, body)
			}
		}
		var tested client.Tested
		call("POST", "/accounts/"+testAccount+"/listeners/CarrierService/test", &tested)
		if got := <-listener.messages; !tested.OK || tested.Status != http.StatusOK || got.WebhookID != tested.WebhookID || got.Count != 1 {
			t.Errorf("tested %+v, heard %+v", tested, got)
		}

		events := r.watch(t, token)
		var accepted m2m.RequestAccepted
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, &accepted)
		id := accepted.RequestID
		seen := map[string]bool{}
		for deadline := time.After(patience); !seen[client.EventEnded]; {
			select {
			case e := <-events:
				if e.Request == nil || e.Request.ID != id {
					t.Errorf("another event: %+v", e)
				}
				seen[e.Type] = true
			case <-deadline:
				t.Fatalf("the events were %v", seen)
			}
		}
		if !seen[client.EventAccepted] || !seen[client.EventSettled] {
			t.Errorf("the events were %v", seen)
		}
		var detail client.RequestDetail
		call("GET", "/accounts/"+testAccount+"/requests/"+id, &detail)
		if detail.Request.Status != "Success" || detail.Request.Ended != detail.Request.Devices {
			t.Errorf("the request: %+v", detail.Request)
		}
		if status, body := r.operate(t, "nobody", "GET", "/accounts"); status != http.StatusUnauthorized || !strings.Contains(string(body), "simlatch operator create") {
			t.Errorf("with no token: %d %s", status, body)
		}
		began := time.Now()
		if err := r.end(); err != nil || time.Since(began) > 5*time.Second {
			t.Errorf("the end took %s: %v", time.Since(began), err)
		}
	})
}

func (r *running) operatorCall(t *testing.T, token, method, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.URL()+client.Prefix+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func (r *running) operate(t *testing.T, token, method, path string) (status int, body []byte) {
	t.Helper()
	resp := r.operatorCall(t, token, method, path) //nolint:bodyclose // it is when the test is over
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// watch reads live events until the server or the test ends.
func (r *running) watch(t *testing.T, token string) <-chan client.Event {
	t.Helper()
	resp := r.operatorCall(t, token, "GET", "/events") //nolint:bodyclose // it is when the test is over
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("events: %d", resp.StatusCode)
	}
	events := make(chan client.Event, 100)
	go func() {
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			var e client.Event
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && json.Unmarshal([]byte(data), &e) == nil {
				events <- e
			}
		}
	}()
	return events
}
