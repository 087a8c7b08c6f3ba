package server

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestWhatIsNoHTTP sends what never reaches the API; the answer is of its kind
// all the same.
func TestWhatIsNoHTTP(t *testing.T) {
	r := startServer(t, sqliteConfig(t))
	for _, test := range []struct {
		name, sent string
		status     int
	}{
		{"no HTTP at all", "hello\r\n\r\n", 400},
		{"a broken header", "GET /healthz HTTP/1.1\r\nHost: x\r\nbroken header\r\n\r\n", 400},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", 400},
		{"a version to come", "GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", 400},
		{"an unknown transfer encoding", "POST /api/m2m/v1/session/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
		{"an unknown expectation", "POST /api/m2m/v1/session/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: wonders\r\n\r\n{}", 417},
		{"two lengths", "POST /api/m2m/v1/session/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		{"endless headers", "GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", 431},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := net.Dial("tcp", strings.TrimPrefix(r.URL(), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(patience))
			go func() { _, _ = io.WriteString(c, test.sent) }() // it may be refused before its end
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			var body struct{ ErrorCode, ErrorMessage string }
			if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || body.ErrorCode == "" || body.ErrorMessage == "" {
				t.Errorf("the body: %+v, %v", body, err)
			}
			if got := resp.Header.Get("Content-Type"); resp.StatusCode != test.status || !strings.HasPrefix(got, "application/json") {
				t.Errorf("%s, %s; want %d and JSON", resp.Status, got, test.status)
			}
		})
	}
}
