package server

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

// TestBackup copies the database of a server that clients use, restores the copy
// under another server, and sees it verified and carrying on: what was under way in
// the copy ends, with a callback for each device.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	iccids := make([]string, 400)
	lines := make([]string, len(iccids))
	for i := range iccids {
		sim := storetest.SIM(testAccount, 1000+i)
		iccids[i] = string(sim.Device.ICCID)
		lines[i] = fmt.Sprintf("  - {account: %q, iccid: %q, imei: %q}\n", testAccount, sim.Device.ICCID, sim.Device.IMEI)
	}
	cfg := Config{
		Database: "sqlite:" + filepath.Join(dir, "simlatch.db"), Seed: writeFile(t, dir, "seed.yaml", strings.Join(append([]string{goodSeed}, lines...), "")),
		CarrierDelay: 50 * time.Millisecond, // so that the copy has work under way
	}
	r := startServer(t, cfg)
	c := r.login(t)
	listener := c.answerBadly()
	listener.well.Store(true)
	stop := make(chan struct{})
	var clients sync.WaitGroup
	accepted := make(chan int, 400)
	clients.Go(func() {
		for n := 0; n < 400; n += 4 {
			select {
			case <-stop:
				return
			default:
			}
			var a m2m.RequestAccepted
			c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", iccids[n:n+4]...), http.StatusOK, &a)
			accepted <- n
		}
	})
	clients.Go(func() {
		for {
			select {
			case <-listener.messages:
			case <-stop:
				return
			}
		}
	})
	for range 10 {
		<-accepted
	}
	path := filepath.Join(dir, "backup.db")
	if err := r.store.Snapshot(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	<-accepted // the server worked on
	close(stop)
	clients.Wait()
	if err := r.end(); err != nil {
		t.Fatal(err)
	}

	cfg.Database, cfg.Seed = "sqlite:"+path, ""
	cfg.SecretsKeyFile = filepath.Join(dir, "simlatch.db.key")
	restored := startServer(t, cfg)
	if err := restored.store.Intact(t.Context()); err != nil {
		t.Error(err)
	}
	pending := func() (open, devices int) {
		list, _, _, err := restored.store.Requests(t.Context(), store.RequestFilter{Account: testAccount, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range list {
			open += q.Total - q.Ended
			devices += q.Total
		}
		return open, devices
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		open, devices := pending()
		if open == 0 && devices >= 40 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d devices have not ended", open, devices)
		}
		for len(listener.messages) > 0 { // of both servers: it is one and the same listener
			<-listener.messages
		}
	}
	if _, err := restored.store.Verify(t.Context(), func(d license.Drift) { t.Error(d) }); err != nil {
		t.Fatal(err)
	}
	again := restored.login(t)
	again.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", iccids[396:]...), http.StatusOK, nil)
}
