package server

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFull has the operating system refuse to let the database grow, with work in
// flight: writes are answered 503, and when there is room again, everything that
// was accepted ends and what was refused can be done, without a restart.
func TestDiskFull(t *testing.T) {
	cfg := sqliteConfig(t)
	const devices = 400
	withFleet(t, &cfg, devices)
	r := startServer(t, cfg)
	c := r.login(t)
	listener := c.listen(nil)
	key := func(n int) string { return "order-" + strings.Repeat("1", n+1) }
	const assign = "/devices/license/actions/assign"

	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was) })
	wal, err := os.Stat(strings.TrimPrefix(cfg.Database, "sqlite:") + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	// Somewhat more than there is: some are accepted whose outcomes find no room.
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(wal.Size()) + 128<<10, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	var refused []int
	accepted := 0
	for i := range devices / 10 {
		status, header, body, err := c.try(http.MethodPost, assign, key(i), licenseRequest("SIMSec-IoT", fleet(10*i, 10)...))
		switch {
		case err != nil:
			t.Fatal(err)
		case status == http.StatusOK:
			accepted++
		case status == http.StatusServiceUnavailable && header.Get("Retry-After") != "":
			refused = append(refused, i)
		default:
			t.Fatalf("a call while the disk is full: %d %s", status, body)
		}
	}
	if len(refused) == 0 {
		t.Fatal("nothing was refused: the disk was not full")
	}
	c.call(http.MethodGet, "/accounts/"+testAccount, nil, http.StatusOK, nil) // reads go on
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	for _, i := range refused {
		eventually(t, "what was refused is accepted", func() bool {
			status, _, _, err := c.try(http.MethodPost, assign, key(i), licenseRequest("SIMSec-IoT", fleet(10*i, 10)...))
			return err == nil && status == http.StatusOK
		})
	}
	listener.wait(t, devices)
	eventually(t, "all is settled", func() bool { return c.pool("SIMSec-IoT").LicenseAssigned == devices })
	noDrift(t, r)
	t.Logf("%d calls accepted and %d refused while the disk was full", accepted, len(refused))
}
