package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

const (
	carrierToken  = "canary-carrier-token"
	carrierSecret = "whsec_Y2FuYXJ5LWNhcnJpZXItc2VjcmV0LWNhbmFyeQ=="
)

// carrierSystem is a provisioning system that remembers what it did by key, which
// its network does when it is told to; how it answers is a test's to say.
type carrierSystem struct {
	t *testing.T
	// answer writes the answer to a call, given what is true of its tasks.
	answer func(w http.ResponseWriter, call int, truth []map[string]string)

	mu     sync.Mutex // guards what follows
	calls  int
	made   map[string]int    // how often each key's license was made or refused: once
	truth  map[string]string // by key
	action map[string]string
}

func newCarrierSystem(t *testing.T, answer func(w http.ResponseWriter, call int, truth []map[string]string)) *carrierSystem {
	return &carrierSystem{t: t, answer: answer, made: map[string]int{}, truth: map[string]string{}, action: map[string]string{}}
}

// serve starts it and returns a server's configuration that names it.
func (s *carrierSystem) serve(cfg Config) Config {
	srv := httptest.NewServer(s)
	s.t.Cleanup(srv.Close)
	cfg.Carrier = CarrierHTTP + srv.URL + "/licenses?key=canary-query"
	cfg.CarrierToken, cfg.CarrierSecret = carrierToken, carrierSecret
	return cfg
}

func (s *carrierSystem) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var call struct {
		Tasks []struct {
			Key, Action, Account string
			Device               struct{ ICCID string }
		}
	}
	if err := json.Unmarshal(body, &call); err != nil || r.Header.Get("Authorization") != "Bearer "+carrierToken ||
		m2m.CheckSignature(carrierSecret, r.Header, body) != nil {
		s.t.Errorf("a call that is none: %s, %v", body, err)
	}
	s.mu.Lock()
	var truth []map[string]string
	for _, task := range call.Tasks {
		if before, known := s.action[task.Key]; known && before != task.Action {
			s.t.Errorf("%s was asked for as %s and as %s", task.Key, before, task.Action)
		}
		s.action[task.Key] = task.Action
		if s.truth[task.Key] == "" { // the work is done whatever the answer will be
			s.made[task.Key]++
			s.truth[task.Key] = "done"
			if strings.HasSuffix(task.Device.ICCID, "7") {
				s.truth[task.Key] = "refused"
			}
		}
		truth = append(truth, map[string]string{"key": task.Key, "outcome": s.truth[task.Key], "text": "the network says so"})
	}
	n := s.calls
	s.calls++
	s.mu.Unlock()
	s.answer(w, n, truth)
}

func writeOutcomes(w http.ResponseWriter, outcomes []map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"outcomes": outcomes})
}

// TestHostileHTTPCarrier has a carrier fail in one way after another, having done
// its work each time: in the end each device has the outcome that is true, told
// once, and the ledger is right.
func TestHostileHTTPCarrier(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		const devices = 20
		withFleet(t, &cfg, devices)
		system := newCarrierSystem(t, func(w http.ResponseWriter, call int, truth []map[string]string) {
			switch call {
			case 0:
				w.WriteHeader(http.StatusUnauthorized)
			case 1:
				_, _ = io.WriteString(w, "<html>")
			case 2:
				panic(http.ErrAbortHandler)
			case 3:
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, strings.Repeat("[", 10<<20))
			case 4: // the opposite beside the truth, and another's device
				for _, o := range truth {
					o["outcome"] = map[string]string{"done": "refused", "refused": "done"}[o["outcome"]]
				}
				lie := append(truth[:1:1], map[string]string{"key": truth[0]["key"], "outcome": "retry"})
				writeOutcomes(w, append(lie, map[string]string{"key": "of another/89148000000000000012", "outcome": "done"}))
			default:
				writeOutcomes(w, truth)
			}
		})
		r := startServer(t, system.serve(cfg))
		c := r.login(t)
		l := c.listen(nil)
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(0, devices)...), http.StatusOK, nil)
		failed := map[string]bool{}
		for _, m := range l.wait(t, devices) {
			failed[m.DeviceIDs[0].ID] = m.Status == m2m.CallbackFailed
		}
		for _, id := range fleet(0, devices) {
			if got, told := failed[id]; !told || got != strings.HasSuffix(id, "7") {
				t.Errorf("%s: told %v, failed %v", id, told, got)
			}
		}
		if p := c.pool("SIMSec-IoT"); p.LicenseAssigned != devices-2 {
			t.Errorf("the pool is %+v, want %d assigned", p, devices-2)
		}
		system.mu.Lock()
		for key, n := range system.made {
			if n != 1 {
				t.Errorf("%s was made %d times", key, n)
			}
		}
		system.mu.Unlock()
		noDrift(t, r)
		if n := strings.Count(r.log.String(), "calling the carrier"); n < 1 || strings.Count(r.log.String(), "the carrier answers again") != 1 {
			t.Errorf("the log tells %d times that the carrier fails; want that, and once that it answers again", n)
		}
		metrics, err := fetch(t, http.DefaultClient, r.URL()+"/metrics")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`simlatch_carrier_calls_total{result="unauthorized"} 1`, `simlatch_carrier_calls_total{result="garbage"} 1`,
			`simlatch_carrier_calls_total{result="network"} 1`, `simlatch_carrier_calls_total{result="too_large"} 1`,
			`simlatch_carrier_odd_outcomes_total{kind="contradictory"} 1`, `simlatch_carrier_odd_outcomes_total{kind="unknown"} 1`,
			"simlatch_provision_consecutive_failures 0",
		} {
			if !bytes.Contains(metrics.body, []byte(want)) {
				t.Errorf("the metrics have no %s", want)
			}
		}
		version := r.getJSON(t, "/version", http.StatusOK)
		if name, _ := version["carrier"].(string); !strings.HasPrefix(name, "http:http://127.0.0.1:") || !strings.HasSuffix(name, "/licenses") || version["licensesAreReal"] != nil {
			t.Errorf("the version is %v", version)
		}
		if strings.Contains(r.log.String(), "canary") {
			t.Error("there is a secret in the log")
		}
	})
}

// bring brings outcomes as the carrier would, and returns what became of each.
func bring(t *testing.T, node, secret string, status int, outcomes []map[string]string) (results []string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"outcomes": outcomes})
	if err != nil {
		t.Fatal(err)
	}
	webhook, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := webhook.Sign("call_1", now, body)
	if err != nil {
		t.Fatal(err)
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, node+carrier.OutcomesPath, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("webhook-id", "call_1")
	q.Header.Set("webhook-timestamp", fmt.Sprint(now.Unix()))
	q.Header.Set("webhook-signature", signature)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	var got struct{ Results []struct{ Result string } }
	if err := json.Unmarshal(text, &got); err != nil || answer.StatusCode != status {
		t.Fatalf("bringing outcomes = %d %s, %v; want %d", answer.StatusCode, text, err, status)
	}
	for _, r := range got.Results {
		results = append(results, r.Result)
	}
	return results
}

// TestLateOutcomes has a carrier answer "later" and bring its outcomes by itself:
// to any node, twice, and some that cannot be true.
func TestLateOutcomes(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		const devices = 6
		withFleet(t, &cfg, devices)
		asked := make(chan []map[string]string, 10)
		system := newCarrierSystem(t, func(w http.ResponseWriter, _ int, truth []map[string]string) {
			var later []map[string]string
			for _, o := range truth {
				later = append(later, map[string]string{"key": o["key"], "outcome": "later"})
			}
			writeOutcomes(w, later)
			asked <- truth
		})
		r := startServer(t, system.serve(cfg))
		c := r.login(t)
		l := c.listen(nil)
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(0, devices)...), http.StatusOK, nil)
		truth := <-asked
		for _, o := range truth {
			o["account"], o["outcome"], o["code"] = testAccount, "done", ""
		}
		truth[1]["outcome"], truth[1]["code"] = "refused", license.CodeAlreadyLicensed
		bring(t, r.URL(), "d3Jvbmctc2VjcmV0LXdyb25nLXNlY3JldA==", http.StatusUnauthorized, truth)
		if got := strings.Join(bring(t, r.URL(), carrierSecret, http.StatusOK, truth), " "); got != "settled settled settled settled settled settled" {
			t.Errorf("brought once: %s", got)
		}
		told := 0
		for _, m := range l.wait(t, devices) {
			if m.Status == m2m.CallbackFailed {
				told++
				if m.FaultResponse.FaultString != m2m.ErrAlreadyLicensed.Message {
					t.Errorf("the refusal is told as %+v", m.FaultResponse)
				}
			}
		}
		truth[2]["outcome"] = "refused"
		truth[3]["key"] = "0190a6f0-0000-7000-8000-000000000000/89148000000000000012"
		if got := strings.Join(bring(t, r.URL(), carrierSecret, http.StatusOK, truth), " "); got != "repeated repeated contradicts unknown repeated repeated" {
			t.Errorf("brought again: %s", got)
		}
		if p := c.pool("SIMSec-IoT"); p.LicenseAssigned != devices-1 || told != 1 {
			t.Errorf("the pool is %+v and %d were told of as failed; want %d assigned and one", p, told, devices-1)
		}
		strange, err := r.store.StrangeOutcomes(t.Context(), testAccount)
		if err != nil || len(strange) != 2 {
			t.Errorf("kept as strange: %+v, %v; want two", strange, err)
		}
		noDrift(t, r)
	})
}

// TestMutualTLS has a carrier that wants to know who calls.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	cfg := sqliteConfig(t)
	withFleet(t, &cfg, 2)
	system := newCarrierSystem(t, func(w http.ResponseWriter, _ int, truth []map[string]string) { writeOutcomes(w, truth) })
	srv := httptest.NewUnstartedServer(system)
	certFile, keyFile := writeCertificate(t, dir, "simlatch")
	text, err := os.ReadFile(certFile)
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AppendCertsFromPEM(text)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, VerifyConnection: func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: known, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}}
	srv.StartTLS()
	defer srv.Close()
	cfg.Carrier = CarrierHTTP + srv.URL
	cfg.CarrierToken, cfg.CarrierSecret = carrierToken, carrierSecret
	cfg.CarrierCert, cfg.CarrierKey = certFile, keyFile
	cfg.CarrierCA = writeFile(t, dir, "ca.pem", pemOf(srv.Certificate()))
	r := startServer(t, cfg)
	c := r.login(t)
	l := c.listen(nil)
	c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(0, 2)...), http.StatusOK, nil)
	for _, m := range l.wait(t, 2) {
		if m.Status != m2m.CallbackSuccess {
			t.Errorf("a callback says %+v", m)
		}
	}

	cfg.CarrierCert, cfg.CarrierKey = "", ""
	findings, err := cfg.CheckCarrier(t.Context(), CarrierCheck{})
	if err != nil || len(findings) != 1 || !strings.Contains(strings.Join(findings[0].Faults, ""), "certificate required") {
		t.Errorf("called by nobody: %+v, %v", findings, err)
	}
	cfg.CarrierCA = ""
	findings, err = cfg.CheckCarrier(t.Context(), CarrierCheck{})
	if err != nil || len(findings) != 1 || !strings.Contains(strings.Join(findings[0].Faults, ""), "unknown authority") {
		t.Errorf("called by one who does not know it: %+v, %v", findings, err)
	}
}

func TestCarrierSettings(t *testing.T) {
	dir := t.TempDir()
	const good = "http:https://carrier.example/"
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Carrier: "http://carrier.example/"}, "followed by a whole URL"},
		{Config{Carrier: "https://carrier.example/"}, "unknown carrier"},
		{Config{Carrier: "http:carrier.example"}, "begin with http:// or https://"},
		{Config{Carrier: "http:https://u:canary@carrier.example/"}, "no user and password"},
		{Config{Carrier: good, CarrierSecret: "canary!"}, "--carrier-secret: a signing secret is base64"},
		{Config{Carrier: good, CarrierToken: "canary\n"}, "--carrier-token"},
		{Config{Carrier: good, CarrierCert: "c.pem"}, "go together"},
		{Config{Carrier: "http:http://carrier.example/", CarrierCA: "ca.pem"}, "begins with https://"},
		{Config{Carrier: CarrierSimulated, CarrierToken: "canary"}, "--carrier-token is for --carrier http:URL"},
		{Config{Carrier: good, CarrierCA: dir + "/none.pem"}, "--carrier-ca"},
		{Config{Carrier: good, CarrierCA: writeFile(t, dir, "ca.pem", "no PEM")}, "holds no certificate"},
		{Config{Carrier: good, CarrierCert: dir + "/none.pem", CarrierKey: dir + "/none.key"}, "--carrier-cert"},
	} {
		tt.cfg.Database = sqliteConfig(t).Database
		_, err := tryServer(t, tt.cfg)
		fails(t, err, tt.want)
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("the error tells a secret: %v", err)
		}
	}
	r := startServer(t, Config{Database: sqliteConfig(t).Database, Carrier: "http:http://carrier.example/"})
	for _, want := range []string{"called over plain HTTP", "there is no --carrier-secret"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log does not say that %s", want)
		}
	}
	if answer, err := http.Post(r.URL()+carrier.OutcomesPath, "application/json", strings.NewReader("{}")); err != nil || answer.StatusCode != http.StatusNotFound { //nolint:bodyclose // nothing is read of it
		t.Errorf("outcomes without a secret: %v, %v; want 404", answer, err)
	}
}

func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}
