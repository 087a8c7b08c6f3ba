package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

const alertSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// TestAlertMessage takes a pool below its threshold: the operators' URL, which
// fails at first and then switches protocols, gets a signed message each time, and
// the metric says so.
func TestAlertMessage(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		type message struct {
			header http.Header
			body   string
		}
		got := make(chan message, 10)
		failing := make(chan http.HandlerFunc, 2)
		failing <- func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
		failing <- switchProtocols
		hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			got <- message{r.Header.Clone(), string(body)}
			select {
			case fail := <-failing:
				fail(w, r)
			default:
			}
		}))
		defer hook.Close()
		cfg.AlertURL, cfg.AlertSecret = hook.URL+"/hook?token=canary-alert-token", alertSecret
		dir := t.TempDir()
		writeFile(t, dir, "fleet.csv", moreSIMs(0, 10))
		cfg.Seed = writeFile(t, dir, "seed.yaml", goodSeed+"deviceFiles: [fleet.csv]\n")
		r := startServer(t, cfg)
		if _, err := r.store.SetThreshold(t.Context(), testAccount, license.SKUFlexible, 5000); err != nil {
			t.Fatal(err)
		}
		c := r.login(t)
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, &m2m.RequestAccepted{})
		webhook, err := standardwebhooks.NewWebhook(alertSecret)
		if err != nil {
			t.Fatal(err)
		}
		for attempt := range 3 {
			select {
			case m := <-got:
				if err := webhook.Verify([]byte(m.body), m.header); err != nil {
					t.Errorf("attempt %d: %v", attempt+1, err)
				}
				const want = `"data":{"accountName":"` + testAccount + `","skuNumber":"SIMSec-IoT","available":4999,"threshold":5000}}`
				if !strings.HasSuffix(m.body, want) || !strings.HasPrefix(m.body, `{"type":"pool.low","timestamp":"2`) || m.header.Get("Webhook-Id") != "alert_1" {
					t.Errorf("attempt %d: %v %s, want %s", attempt+1, m.header, m.body, want)
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("attempt %d never came", attempt+1)
			}
		}
		if log := r.log.String(); !strings.Contains(log, "503 Service Unavailable") || !strings.Contains(log, "101 Switching Protocols") || strings.Contains(log, "canary-alert-token") {
			t.Errorf("the log tells nothing of the failure, or the URL:\n%s", log)
		}
	})
}

// switchProtocols answers 101 and keeps the connection until its client leaves it.
func switchProtocols(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "x")
	w.WriteHeader(http.StatusSwitchingProtocols)
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
}

func TestCheckAlerts(t *testing.T) {
	for _, test := range []struct{ url, secret, want string }{
		{"", "", ""},
		{"https://example.com/hook", alertSecret, ""},
		{"https://example.com/hook", "", "go together"},
		{"", alertSecret, "go together"},
		{"ftp://example.com", alertSecret, "http or https"},
		{"https://", alertSecret, "http or https"},
		{"https://example.com", "whsec_!", "base64"},
	} {
		err := Config{Carrier: CarrierSimulated, AlertURL: test.url, AlertSecret: test.secret}.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("Check of %q, %q = %v, want %q", test.url, test.secret, err, test.want)
		}
	}
}

// TestAlertsGoNowhereForbidden: the URL is the operator's own, so it may be private,
// but never a metadata service.
func TestAlertsGoNowhereForbidden(t *testing.T) {
	client := &http.Client{Transport: alertTransport(), Timeout: patience}
	for _, host := range []string{"169.254.169.254", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "0xa9fea9fe"} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(q)
		if err == nil {
			_ = resp.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "never sent to") && !strings.Contains(err.Error(), "looks like an address") {
			t.Errorf("%s: %v, want a refusal", host, err)
		}
	}
}
