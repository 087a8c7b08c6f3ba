package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// carrierOf answers calls with an outcome for each task, made of its key and
// attempt.
func carrierOf(t *testing.T, outcome func(key string, attempt int) string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct {
			Tasks []struct {
				Key     string
				Attempt int
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		outcomes := []map[string]string{}
		for _, task := range call.Tasks {
			outcomes = append(outcomes, map[string]string{"key": task.Key, "outcome": outcome(task.Key, task.Attempt), "text": "\x1b[31mno"})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"outcomes": outcomes})
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestCarrierCheck checks a good system, and some that are not.
func TestCarrierCheck(t *testing.T) {
	good := carrierOf(t, func(string, int) string { return "done" })
	fickle := carrierOf(t, func(_ string, attempt int) string {
		if attempt > 1 {
			return "refused"
		}
		return "done"
	})
	slow := carrierOf(t, func(string, int) string { return "later" })
	for name, tt := range map[string]struct {
		args     []string
		status   int
		out      string // in what is printed
		messages string
	}{
		"good":          {[]string{good}, exitDone, "ok    assign: a batch of the largest size\n", ""},
		"with a token":  {[]string{good, "--carrier-token", "x"}, exitPartly, "fail  a wrong token is refused\n      it answered such a call with 200", "1 of "},
		"fickle":        {[]string{fickle}, exitPartly, "done, and refused when asked again under its key", "2 of "},
		"slow":          {[]string{slow, "--patience", "0s"}, exitPartly, "later after 0s, where done or refused was waited for (\uFFFD[31mno)", ""},
		"no URL":        {[]string{"x"}, exitUsage, "", "begin with http"},
		"two":           {[]string{good, good}, exitUsage, "", "accepts 1 arg"},
		"bad prefix":    {[]string{good, "--iccid-prefix", "89x"}, exitUsage, "", "--iccid-prefix 89x"},
		"bad SKU":       {[]string{good, "--sku", "none"}, exitUsage, "", "--sku"},
		"bad account":   {[]string{good, "--account", "/"}, exitUsage, "", "--account"},
		"bad patience":  {[]string{good, "--patience", "-1s"}, exitUsage, "", "negative"},
		"bad authority": {[]string{"https://127.0.0.1:1/", "--carrier-ca", "none.pem"}, exitUsage, "", "--carrier-ca"},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, messages := simlatch(t, "", append([]string{"carrier", "check"}, tt.args...)...)
			if status != tt.status || !strings.Contains(out, tt.out) || !strings.Contains(messages, tt.messages) {
				t.Errorf("status %d\n%s%s\nwant %d, %q and %q", status, out, messages, tt.status, tt.out, tt.messages)
			}
		})
	}
}

// TestCarrierStrange lists what a carrier said of a task that there is not.
func TestCarrierStrange(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "strange.db")
	s, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	storetest.Seed(t, s, storetest.Fixture{SIMs: 1})
	for range 3 {
		_, err := s.SettleLate(t.Context(), license.LateParams{Account: storetest.Account, Now: storetest.Start(), Outcomes: []license.LateOutcome{
			{Request: "0190a6f0-0000-7000-8000-000000000001", ICCID: "89148000000000000012", Verdict: license.Refused, Comment: "never heard of it"},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	status, out, messages := simlatch(t, "", "carrier", "strange", "--output", "csv", "--database", url)
	want := "0190a6f0-0000-7000-8000-000000000001,89148000000000000012,refused,unknown,3,"
	if status != exitDone || !strings.Contains(out, want) || !strings.Contains(out, "never heard of it") {
		t.Errorf("status %d\n%s%s\nwant a line with %s", status, out, messages, want)
	}
}
