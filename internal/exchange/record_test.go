package exchange

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorded makes a request through a recorder, and returns what came back.
func recorded(t *testing.T, r *Recorder, method, url, body string) string {
	t.Helper()
	client := http.Client{Transport: r.Transport(http.DefaultTransport)}
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

// TestRecorder records messages that hold what means something in a file, and
// reads them back.
func TestRecorder(t *testing.T) {
	const accepted = `{"requestId": "r-1", "note": "${account} <any>\n-- request --\nGET /", "token": "<b>", "price": "5$"}`
	answers := map[string]string{
		"/api/m2m/v1/devices/license/actions/assign":       accepted,
		"/api/m2m/v1/accounts/A-1/requests/r-1/status":     `{"requestId": "r-1", "status": "Success"}`,
		"/api/m2m/v1/session/login":                        `{"sessionToken": "canary-session"}`,
		"/api/m2m/v1/garbage":                              "-- response --\n" + strings.Repeat("x", 2<<20),
		"/api/m2m/v1/accounts/subscriptions/actions/list":  `{"accountName": "A-1", "subscriptionList": []}`,
		"/api/m2m/v1/callbacks/A-1":                        `[{"password": "canary-other"}]`,
		"/api/ts/v1/oauth2/token":                          `{"access_token": "canary-token", "expires_in": 3}`,
		"/api/m2m/v1/session/password/actions/reset":       `{"newPassword": "canary-new"}`,
		"/api/m2m/v1/accounts/A-1/requests/unknown/status": `{"errorCode": "canary-secret in a message"}`,
		"/api/m2m/v1/accounts/A-1":                         `{"accountName": "A-1"}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, answers[r.URL.Path])
	}))
	defer server.Close()
	dir := t.TempDir()
	r := NewRecorder(RecorderConfig{Dir: dir, Secrets: []string{"canary-secret", "canary-password"}})
	const in = `{"accountName": "A-1", "skuNumber": "${x}", "devices": ["-- cases --"]}`
	handler := r.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
	}))
	callback := func() {
		handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "POST", "/",
			strings.NewReader(`{"username": "canary-user", "password": "canary-callback", "requestId": "r-1", "status": "Success", "comment": "${y}", "callbackCount": 3}`)))
	}
	callback() // it may overtake the answer that names its request
	if got := recorded(t, r, "POST", server.URL+"/api/m2m/v1/devices/license/actions/assign", in); got != accepted {
		t.Errorf("the client got %q", got)
	}
	callback()
	for path := range answers {
		switch {
		case strings.HasSuffix(path, "/login"):
			recorded(t, r, "POST", server.URL+path, `{"username": "canary-user", "password": "canary-password"}`)
		case strings.HasSuffix(path, "/garbage"):
			if got := recorded(t, r, "POST", server.URL+path, "grant_type=x"); got != answers[path] {
				t.Errorf("the client got %d bytes, want %d", len(got), len(answers[path]))
			}
		case !strings.HasSuffix(path, "/assign"):
			recorded(t, r, "GET", server.URL+path, "")
		}
	}
	all, err := LoadFS(os.DirFS(dir))
	if err != nil || len(all) != len(answers)-1 { // one is a part of another
		t.Fatalf("%d exchanges, %v", len(all), err)
	}
	x := all[0]
	if len(x.Steps) != 2 || len(x.Steps[0].Callbacks) != 2 || x.Listen == nil || x.Listen.Account != "account" {
		t.Fatalf("recorded %+v", x)
	}
	vars := map[string]string{"account": "A-1", "requestId": "r-1"}
	for text, want := range map[string]string{
		x.Steps[0].Request.Body:      in,
		x.Steps[0].Callbacks[0].Body: `{"requestId": "r-1", "status": "Success", "comment": "${y}", "callbackCount": "<int>"}`,
		x.Steps[0].Response.Body:     `{"requestId": "<text as requestId>", "note": "${account} <any>\n-- request --\nGET /", "token": "<string>", "price": "5$"}`,
		x.Steps[1].Request.Path:      "/api/m2m/v1/accounts/A-1/requests/r-1/status",
	} {
		got, err := expand(text, vars)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(parseRecorded([]byte(want)), parseRecorded([]byte(got))); diff != "" || strings.HasPrefix(want, "/") && got != want {
			t.Errorf("%s is %s (-want +got):\n%s", text, got, diff)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(dir + "/" + f.Name())
		if err != nil || strings.Contains(string(text), "canary-") {
			t.Errorf("%s, %v:\n%s", f.Name(), err, text)
		}
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}
