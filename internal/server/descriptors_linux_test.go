package server

import (
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
)

// TestDescriptorsUsedUp leaves the process no file descriptor: what is there goes on,
// nothing is accepted that is not done, and when there are some again so is the
// service, without a restart.
func TestDescriptorsUsedUp(t *testing.T) {
	cfg := sqliteConfig(t)
	withFleet(t, &cfg, 20)
	r := startServer(t, cfg)
	c := r.login(t)
	listener := c.listen(nil)
	c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(0, 10)...), http.StatusOK, nil)
	listener.wait(t, 10)

	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(len(open)) + 10, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	var taken []net.Conn
	full := false
	for range 1000 {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.listener.Addr().String())
		if err != nil {
			full = true
			break
		}
		taken = append(taken, conn)
	}
	if !full {
		t.Fatal("the descriptors were not used up")
	}
	accepted := 0
	for i := range 5 {
		status, _, body, err := c.try(http.MethodPost, "/devices/license/actions/assign", "order-"+string(rune('a'+i)), licenseRequest("SIMSec-IoT", fleet(10+i, 1)...))
		switch {
		case err != nil: // no connection could be made
		case status == http.StatusOK:
			accepted++
		case status != http.StatusServiceUnavailable:
			t.Errorf("without a descriptor: %d %s", status, body)
		}
	}
	restore()
	for _, conn := range taken {
		_ = conn.Close()
	}
	for i := range 5 { // each under its key, whatever became of it
		eventually(t, "calls are accepted again", func() bool {
			status, _, _, err := c.try(http.MethodPost, "/devices/license/actions/assign", "order-"+string(rune('a'+i)), licenseRequest("SIMSec-IoT", fleet(10+i, 1)...))
			return err == nil && status == http.StatusOK
		})
	}
	// Soon, for no attempt of one that found no descriptor was counted.
	for _, m := range listener.wait(t, 5) {
		if m.CallbackCount != 1 {
			t.Errorf("%s came as attempt %d", m.ICCID(), m.CallbackCount)
		}
	}
	eventually(t, "all is settled", func() bool { return c.pool("SIMSec-IoT").LicenseAssigned == 15 })
	noDrift(t, r)
	t.Logf("%d of 5 calls were accepted without a free descriptor", accepted)
}
