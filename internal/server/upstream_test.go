package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/exchange"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/sandbox"
	"github.com/simlatch/simlatch/m2m"
)

// freePort is an address nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// tickingSandbox is a sandbox whose clock runs, so that a callback that comes too
// early comes again.
func tickingSandbox() SandboxConfig {
	rate := 1.0
	return SandboxConfig{
		Spec: sandbox.Spec{Rate: &rate}, ListenerConns: 8, CallbackInterval: 200 * time.Millisecond, CallbackAttempts: 100,
	}
}

// guardConfig makes a server the guard of an upstream.
func guardConfig(t *testing.T, cfg Config, upstream string) Config {
	t.Helper()
	at := freePort(t)
	cfg.Carrier = CarrierUpstream + upstream
	cfg.Upstream = UpstreamConfig{
		Key: "demo-key", Secret: "demo-secret", User: "demo", Password: "demo-password",
		Listen: at, CallbackURL: "http://" + at + "/callbacks", Patience: 2 * time.Second, Timeout: 5 * time.Second,
	}
	return cfg
}

// clean checks that both sides of a chain are right, and of one mind.
func (r *running) clean(t *testing.T, there *tester) {
	t.Helper()
	if _, err := r.store.Verify(t.Context(), func(d license.Drift) { t.Errorf("the guard: %v", d) }); err != nil {
		t.Fatal(err)
	}
	var verified struct{ OK bool }
	if there.call("GET", "/sandbox/v1/verify", "", http.StatusOK, &verified); !verified.OK {
		t.Error("the upstream's ledger is wrong")
	}
	here, behind := login(t, r.URL()), login(t, there.info.URL)
	for _, sku := range []string{string(license.SKUFlexible), string(license.SKULifetime)} {
		if a, b := here.pool(sku), behind.pool(sku); a != b {
			t.Errorf("the pools differ: %+v here, %+v there", a, b)
		}
	}
}

// TestUpstream takes devices through two services, of which one refuses some,
// some as a whole request and some by callback.
func TestUpstream(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		there := startSandbox(t, tickingSandbox())
		// One SIM is known here only.
		stranger := "  - {account: \"" + sandbox.DefaultAccount + "\", imei: \"490154203237518\", iccid: \"89148000000000000913\"}\n"
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", sandbox.DefaultSeed()+stranger)
		cfg = guardConfig(t, cfg, there.info.URL)
		cfg.Upstream.Record = filepath.Join(t.TempDir(), "recorded")
		here := startServer(t, cfg)
		// One has a license there already.
		login(t, there.info.URL).call(http.MethodPost, "/devices/license/actions/assign",
			licenseRequest("TSS-IOT-INTLG-TIERED-SIMSEC", string(sandbox.SIM(20))), http.StatusOK, nil)
		c := here.login(t)
		s := c.listen(nil)
		magic := func(code string) string { return sandbox.MagicPrefix + code + "0000000001" }
		iccids := []string{magic("00"), magic("01"), magic("02"), magic("03"), magic("04"), "89148000000000000913", string(sandbox.SIM(20))}
		for i := 1; i <= 19; i++ {
			iccids = append(iccids, string(sandbox.SIM(i)))
		}
		var accepted m2m.RequestAccepted
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest(string(license.SKUFlexible), iccids...), http.StatusOK, &accepted)
		faults := map[string]error{
			magic("01"): m2m.ErrCarrierRefused, magic("02"): m2m.ErrAlreadyLicensed, magic("04"): m2m.ErrCarrierRefused,
			"89148000000000000913": m2m.ErrDevicesNotFound, string(sandbox.SIM(20)): m2m.ErrLicenseHeld,
		}
		for _, m := range s.wait(t, len(iccids)) {
			want := faults[m.ICCID()]
			if got := m.Err(); (got == nil) != (want == nil) || want != nil && m.ICCID() != magic("04") && !errors.Is(got, want) {
				t.Errorf("%s: %v, want %v", m.ICCID(), got, want)
			}
			if m.RequestID != accepted.RequestID {
				t.Errorf("a callback for request %s, not ours", m.RequestID)
			}
		}
		here.clean(t, there)
		// And back, but for one that the carrier there leaves as it is.
		c.call(http.MethodDelete, "/devices/license/actions/assign",
			licenseRequest(string(license.SKUFlexible), magic("00"), magic("03"), string(sandbox.SIM(1)), string(sandbox.SIM(2))), http.StatusOK, nil)
		for _, m := range s.wait(t, 4) {
			if failed := m.Err() != nil; failed != (m.ICCID() == magic("03")) {
				t.Errorf("unassign of %s: %v", m.ICCID(), m.Err())
			}
		}
		here.clean(t, there)
		v := here.getJSON(t, "/version", http.StatusOK)
		if v["carrier"] != CarrierUpstream+there.info.URL || strings.Contains(fmt.Sprint(v), "demo-secret") {
			t.Errorf("/version says %v", v)
		}
		const told = 24 + 4 // devices of accepted requests
		eventually(t, "every callback is recorded", func() bool {
			_, callbacks := loadRecorded(t, cfg.Upstream.Record)
			return callbacks >= told
		})
		replay(t, cfg.Upstream.Record)
	})
}

// TestUpstreamWithoutCallbacks: of devices whose callbacks never come, the
// request's status tells, or what the upstream says that they hold.
func TestUpstreamWithoutCallbacks(t *testing.T) {
	there := startSandbox(t, tickingSandbox())
	cfg := sqliteConfig(t)
	cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", sandbox.DefaultSeed())
	cfg = guardConfig(t, cfg, there.info.URL)
	cfg.Upstream.Patience = 50 * time.Millisecond
	here := startServer(t, cfg)
	c := here.login(t)
	s := c.listen(nil)
	swallowed := func(n int) string { return sandbox.MagicPrefix + fmt.Sprintf("26%010d", n) }
	blocked := sandbox.MagicPrefix + "010000000001"
	for _, step := range []struct {
		method string
		iccids []string
	}{
		{http.MethodPost, []string{swallowed(1)}},
		{http.MethodPost, []string{swallowed(2), blocked}}, // which fails as a whole
		{http.MethodDelete, []string{swallowed(1), swallowed(2)}},
	} {
		c.call(step.method, "/devices/license/actions/assign", licenseRequest(string(license.SKUFlexible), step.iccids...), http.StatusOK, nil)
		for _, m := range s.wait(t, len(step.iccids)) {
			if failed := m.Err() != nil; failed != (m.ICCID() == blocked) {
				t.Errorf("%s %s: %v", step.method, m.ICCID(), m.Err())
			}
		}
		here.clean(t, there)
	}
}

// loadRecorded parses what was recorded of a chain, and counts the callbacks in it.
func loadRecorded(t *testing.T, dir string) (all []exchange.Exchange, callbacks int) {
	t.Helper()
	all, err := exchange.LoadFS(os.DirFS(dir))
	if err != nil || len(all) < 10 {
		t.Fatalf("%d exchanges were recorded, %v", len(all), err)
	}
	for _, x := range all {
		for _, step := range x.Steps {
			callbacks += len(step.Callbacks)
		}
	}
	return all, callbacks
}

// replay runs what was recorded of a chain against another sandbox.
func replay(t *testing.T, dir string) {
	t.Helper()
	all, _ := loadRecorded(t, dir)
	there := startSandbox(t, SandboxConfig{})
	login(t, there.info.URL).call(http.MethodPost, "/devices/license/actions/assign",
		licenseRequest("TSS-IOT-INTLG-TIERED-SIMSEC", string(sandbox.SIM(20))), http.StatusOK, nil)
	runner, err := exchange.NewRunner(exchange.Config{
		URL: there.info.URL, Offers: []exchange.Need{exchange.NeedCallbacks}, Patience: patience,
		Vars: map[string]string{
			"account": testAccount, "app.key": "demo-key", "app.secret": "demo-secret", "user.name": "demo", "user.password": "demo-password",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = runner.Close() }()
	for _, x := range all {
		text, err := os.ReadFile(filepath.Join(dir, x.Name+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"demo-secret", "demo-password", "demo-key"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s holds a secret:\n%s", x.Name, text)
			}
		}
		if r := runner.Run(t.Context(), x); !r.OK() {
			t.Errorf("%v\n%s", r, text)
		}
	}
}

// TestUpstreamReceiverWaitsForNobody has strangers send bodies that do not end where the
// upstream's callbacks arrive: each is let go of, by an answer or without.
func TestUpstreamReceiverWaitsForNobody(t *testing.T) {
	for _, record := range []bool{false, true} {
		cfg := guardConfig(t, sqliteConfig(t), "http://127.0.0.1:1")
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		cfg.bodyTimeout = time.Second
		if record {
			cfg.Upstream.Record = t.TempDir()
		}
		r := startServer(t, cfg)
		var slow []net.Conn
		for _, head := range []string{
			"POST /callbacks/" + testAccount + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", "POST /callbacks/" + testAccount + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
			"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", "GET /callbacks/" + testAccount + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
		} {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.callbacks.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			slow = append(slow, conn)
		}
		for i, conn := range slow {
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("stranger %d is still waited for: %v", i, err)
			}
		}
	}
}
