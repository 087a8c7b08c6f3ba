package server

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

func TestServer(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		r := startServer(t, cfg)
		if port := strings.TrimPrefix(r.URL(), "http://127.0.0.1:"); port == r.URL() || port == "0" {
			t.Errorf("URL() = %s, want a port of 127.0.0.1", r.URL())
		}
		r.getJSON(t, "/healthz", http.StatusOK)
		r.getJSON(t, "/readyz", http.StatusOK)
		version := r.getJSON(t, "/version", http.StatusOK)
		if version["carrier"] != "simulated" || version["licensesAreReal"] != false || version["engine"] != r.store.Engine() {
			t.Errorf("/version = %v", version)
		}
		metrics, err := fetch(t, http.DefaultClient, r.URL()+"/metrics")
		if err != nil || !strings.Contains(string(metrics.body), "go_goroutines") {
			t.Errorf("/metrics = %v, %.200s", err, metrics.body)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run = %v", err)
		}
		if !strings.Contains(r.log.String(), "no SIM is really licensed") {
			t.Error("the log does not say that the carrier is simulated")
		}
		if _, err := fetch(t, http.DefaultClient, r.URL()+"/healthz"); err == nil {
			t.Error("the server answers after its end")
		}
	})
}

func TestWholeJob(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		dir := t.TempDir()
		writeFile(t, dir, "fleet.csv", moreSIMs(0, 100))
		cfg.Seed = writeFile(t, dir, "seed.yaml", goodSeed+"deviceFiles: [fleet.csv]\n")
		cfg.CarrierRefuseRate = 0.000001 // none of these, but through the same code
		r := startServer(t, cfg)
		c := r.login(t)
		listener := c.listen(nil)
		iccids := []string{"89148000000000000012", "89148000000000000020"}

		var accepted m2m.RequestAccepted
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", iccids...), http.StatusOK, &accepted)
		for _, m := range listener.wait(t, 2) {
			if m.RequestID != accepted.RequestID || m.Status != m2m.CallbackSuccess || m.CallbackCount != 1 || m.Password != "canary-listener-password" ||
				m.DeviceResponse.DeviceSKUSubscriptionResponse.Action != "Assign" {
				t.Errorf("callback = %+v", m)
			}
		}
		if p := c.pool("SIMSec-IoT"); p.LicenseAssigned != 2 || p.LicenseAvailable != 4998 {
			t.Errorf("pool = %+v", p)
		}
		var status m2m.RequestStatus
		c.call(http.MethodGet, "/accounts/"+testAccount+"/requests/"+accepted.RequestID+"/status", nil, http.StatusOK, &status)
		if status.Status != "Success" {
			t.Errorf("status = %+v", status)
		}
		c.call(http.MethodDelete, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", iccids...), http.StatusOK, &accepted)
		listener.wait(t, 2)
		if p := c.pool("SIMSec-IoT"); p.LicenseAssigned != 0 || p.LicenseAvailable != 5000 {
			t.Errorf("pool = %+v", p)
		}
		c.call(http.MethodPost, "/session/logout", nil, http.StatusOK, nil)
		c.call(http.MethodGet, "/accounts/"+testAccount, nil, http.StatusBadRequest, nil)
		noDrift(t, r)
		for _, secret := range []string{c.bearer, c.session, "demo-secret", "demo-password", "canary-listener-password"} {
			if strings.Contains(r.log.String(), secret) {
				t.Errorf("the log has the secret %q", secret)
			}
		}
	})
}

// noDrift verifies the ledger.
func noDrift(t *testing.T, r *running) {
	t.Helper()
	_, err := r.store.Verify(t.Context(), func(d license.Drift) { t.Errorf("the ledger has drifted: %v", d) })
	if err != nil {
		t.Error(err)
	}
}

// TestDrain stops a server while a listener has not answered: readyz fails
// first, the callback is finished, and nothing is sent twice.
func TestDrain(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		cfg.DrainDelay = time.Second
		first := startServer(t, cfg)
		c := first.login(t)
		hold := make(chan struct{})
		listener := c.listen(hold)
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, nil)
		<-listener.arrived
		first.stop()
		eventually(t, "readyz fails while the server drains", func() bool {
			answer, err := fetch(t, http.DefaultClient, first.URL()+"/readyz")
			if err != nil {
				t.Fatalf("readyz did not fail before the server was gone: %v", err)
			}
			return answer.status == http.StatusServiceUnavailable
		})
		close(hold)
		if err := first.end(); err != nil {
			t.Fatalf("Run = %v", err)
		}
		listener.wait(t, 1)

		second := startServer(t, cfg)
		noDrift(t, second)
		due, err := second.store.DueAccounts(t.Context(), license.PhaseListener, time.Now().Add(time.Hour))
		if err != nil || len(due) > 0 {
			t.Errorf("DueAccounts = %v, %v; want none: the callback was acknowledged", due, err)
		}
	})
}

// TestGraceEnds stops a server whose listener never answers.
func TestGraceEnds(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		cfg.Grace = 50 * time.Millisecond
		r := startServer(t, cfg)
		c := r.login(t)
		hold := make(chan struct{})
		defer close(hold)
		listener := c.listen(hold)
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, nil)
		<-listener.arrived
		started := time.Now()
		if err := r.end(); err != nil {
			t.Errorf("Run = %v", err)
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("Run took %v to end, with a grace of %v", took, cfg.Grace)
		}
	})
}

func TestOneServerPerSQLiteFile(t *testing.T) {
	cfg := sqliteConfig(t)
	startServer(t, cfg)
	_, err := tryServer(t, cfg)
	fails(t, err, "use PostgreSQL")
}

func TestTwoNodes(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		if cfg.SecretsKeyFile == "" {
			t.Skip("one process serves a SQLite database")
		}
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		a, b := startServer(t, cfg), startServer(t, cfg)
		c := a.login(t)
		listener := c.listen(nil)
		c.url = b.URL() // one session, both nodes
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, nil)
		listener.wait(t, 1)
		eventually(t, "a node knows of the other", func() bool { return a.nodes.Load() == 2 || b.nodes.Load() == 2 })
		other := cfg
		other.SecretsKeyFile = writeFile(t, t.TempDir(), "key", "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=\n")
		_, err := tryServer(t, other)
		fails(t, err, "sealed with another key")
	})
}

func TestFilesArePrivate(t *testing.T) {
	cfg := sqliteConfig(t)
	cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
	startServer(t, cfg)
	path, _ := SQLitePath(cfg.Database)
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 4 { // the database, its -wal and -shm, the key
		t.Errorf("files = %v, %v", files, err)
	}
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o, want 600", filepath.Base(name), mode)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no carrier":          {func(c *Config) { c.Carrier = "" }, "--carrier simulated"},
		"unknown carrier":     {func(c *Config) { c.Carrier = "real" }, `unknown carrier "real"`},
		"address in use":      {func(c *Config) { c.Listen = taken.Addr().String() }, "address already in use"},
		"no key":              {func(c *Config) { c.Database = "postgres://localhost/x" }, "--secrets-key-file"},
		"key missing":         {func(c *Config) { c.SecretsKeyFile = "/nowhere/key" }, "make one with"},
		"unknown database":    {func(c *Config) { c.Database, c.SecretsKeyFile = "mysql:x", "" }, "must be named"},
		"no directory":        {func(c *Config) { c.Database = "sqlite:/nowhere/simlatch.db" }, "/nowhere/simlatch.db"},
		"half of TLS":         {func(c *Config) { c.TLSCert = "x" }, "--tls-cert and --tls-key go together"},
		"TLS files missing":   {func(c *Config) { c.TLSCert, c.TLSKey = "/nowhere/c", "/nowhere/k" }, "/nowhere/c"},
		"negative grace":      {func(c *Config) { c.Grace = -1 }, "--grace"},
		"share above 1":       {func(c *Config) { c.CarrierRefuseRate = 2 }, "--carrier-refuse-rate"},
		"unknown lock":        {func(c *Config) { c.LoginLock = "never" }, "--login-lock"},
		"negative calls":      {func(c *Config) { c.MaxCalls = -1 }, "--max-calls"},
		"negative conns":      {func(c *Config) { c.MaxConnections = -1 }, "--max-connections"},
		"negative bodies":     {func(c *Config) { c.MaxBodies = -1 }, "--max-bodies"},
		"negative rate":       {func(c *Config) { c.RateLimit = -1 }, "--rate-limit"},
		"negative attempts":   {func(c *Config) { c.CallbackAttempts = -1 }, "--callback-attempts"},
		"negative workers":    {func(c *Config) { c.Workers = -1 }, "--workers"},
		"negative devices":    {func(c *Config) { c.MaxDevices = -1 }, "--max-devices"},
		"no seed":             {func(c *Config) { c.Seed = "/nowhere/seed.yaml" }, "/nowhere/seed.yaml"},
		"not an address":      {func(c *Config) { c.Listen = "here" }, "missing port"},
		"negative delay":      {func(c *Config) { c.CarrierDelay = -time.Second }, "--carrier-delay"},
		"negative drain":      {func(c *Config) { c.DrainDelay = -time.Second }, "--drain-delay"},
		"negative retention":  {func(c *Config) { c.Retention = -time.Second }, "--retention"},
		"negative interval":   {func(c *Config) { c.CallbackInterval = -time.Second }, "--callback-interval"},
		"negative patience":   {func(c *Config) { c.CallbackTimeout = -time.Second }, "--callback-timeout"},
		"key that is no key":  {func(c *Config) { c.SecretsKeyFile = c.Seed; c.Seed = "" }, "not 32 bytes"},
		"TLS files not a key": {func(c *Config) { c.TLSCert, c.TLSKey = c.Seed, c.Seed }, "TLS files"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := sqliteConfig(t)
			cfg.Listen, cfg.Carrier = "127.0.0.1:0", CarrierSimulated
			cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
			test.change(&cfg)
			s, err := New(t.Context(), cfg)
			if err == nil {
				_ = s.close()
			}
			fails(t, err, test.want)
		})
	}
}

// TestServeOnly: a node that only serves accepts, and leaves the carrier to
// others.
func TestServeOnly(t *testing.T) {
	cfg := sqliteConfig(t)
	cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
	cfg.ServeOnly = true
	r := startServer(t, cfg)
	if v := r.getJSON(t, "/version", http.StatusOK); v["carrier"] != "none" {
		t.Errorf("/version = %v", v)
	}
	c := r.login(t)
	c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, nil)
	due, err := r.store.DueAccounts(t.Context(), license.PhaseCarrier, time.Now())
	if err != nil || len(due) != 1 || due[0].Count != 1 {
		t.Errorf("DueAccounts = %v, %v; want the task", due, err)
	}
}

// TestFirstErrorEndsAll: when one part fails, Run ends.
func TestFirstErrorEndsAll(t *testing.T) {
	r := startServer(t, sqliteConfig(t))
	if err := r.listener.Close(); err != nil { // under the HTTP server's feet
		t.Fatal(err)
	}
	select {
	case err := <-r.done:
		fails(t, err, "serving")
		r.done <- nil
	case <-time.After(patience):
		t.Error("Run goes on without its listener")
	}
	if ctx := context.Background(); r.store.Migrated(ctx) == nil {
		t.Error("the store is open after Run")
	}
}
