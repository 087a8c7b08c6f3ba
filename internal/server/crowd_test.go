package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestCrowd has 2,000 connections that do nothing and 200 clients that send a byte
// now and then, and holds the service to its work beside them.
func TestCrowd(t *testing.T) {
	cfg := sqliteConfig(t)
	withFleet(t, &cfg, 20)
	cfg.bodyTimeout = time.Second
	r := startServer(t, cfg)
	c := r.login(t)
	listener := c.listen(nil)
	dial := func(text string) net.Conn {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	for range 2000 {
		dial("")
	}
	var slow []net.Conn
	for range 100 {
		slow = append(slow,
			dial("GET /healthz HTTP/1.1\r\nHost: simlatch\r\nX-Slow: "),
			dial(fmt.Sprintf("POST /api/m2m/v1/devices/license/actions/assign HTTP/1.1\r\nHost: simlatch\r\nContent-Type: application/json\r\n"+
				"Authorization: Bearer %s\r\nVZ-M2M-Token: %s\r\nContent-Length: 1000\r\n\r\n{", c.bearer, c.session)))
	}
	for i := range 20 {
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(i, 1)...), http.StatusOK, nil)
	}
	listener.wait(t, 20)
	for i, conn := range slow { // each is let go of, by an answer or without
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatalf("slow client %d is still waited for: %v", i, err)
		}
	}
	noDrift(t, r)
}
