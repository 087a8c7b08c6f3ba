package server

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// noHTTP is what never reaches the API, or not far.
var noHTTP = []struct {
	name, sent string
	status     int
}{
	{"no HTTP at all", "hello\r\n\r\n", 400},
	{"a broken header", "GET /healthz HTTP/1.1\r\nHost: x\r\nbroken header\r\n\r\n", 400},
	{"no host", "GET /healthz HTTP/1.1\r\n\r\n", 400},
	{"a version to come", "GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", 400},
	{"an unknown transfer encoding", "POST /api/m2m/v1/session/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
	{"an unknown expectation", "POST /api/m2m/v1/session/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: wonders\r\n\r\n{}", 417},
	{"an unknown expectation of an old client", "GET /healthz HTTP/1.0\r\nExpect: wonders\r\n\r\n", 417},
	{"two lengths", "POST /api/m2m/v1/session/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
	{"long headers", "GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", 431},
	{"many headers", "GET /healthz HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: a\r\n", 4000) + "\r\n", 431},
	{"endless headers", "GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 2<<20) + "\r\n\r\n", 431},
}

// TestWhatIsNoHTTP sends what never reaches the API; the answer is of its kind
// all the same, behind TLS too.
func TestWhatIsNoHTTP(t *testing.T) {
	plain := startServer(t, sqliteConfig(t))
	cfg := sqliteConfig(t)
	cfg.TLSCert, cfg.TLSKey = writeCertificate(t, t.TempDir(), "localhost")
	secure := startServer(t, cfg)
	for _, kind := range []struct {
		name, address string
		secure        bool
	}{
		{"plain", plain.listener.Addr().String(), false},
		{"TLS", secure.listener.Addr().String(), true},
	} {
		for _, test := range noHTTP {
			t.Run(kind.name+"/"+test.name, func(t *testing.T) {
				c, err := net.Dial("tcp", kind.address)
				if err != nil {
					t.Fatal(err)
				}
				if kind.secure {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
				}
				checkRefusal(t, c, test.sent, test.status)
			})
		}
	}
	t.Run("plain HTTP where TLS is spoken", func(t *testing.T) {
		c, err := net.Dial("tcp", secure.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		checkRefusal(t, c, "DELETE /api/m2m/v1/devices/license/actions/assign HTTP/1.1\r\nHost: x\r\n\r\n", 400)
	})
}

// checkRefusal sends what is refused on c, and checks that the answer is of the
// API's kind.
func checkRefusal(t *testing.T, c net.Conn, sent string, status int) {
	t.Helper()
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = io.WriteString(c, sent) }() // it may be refused before its end
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	checkJSONError(t, resp, status)
}

func checkJSONError(t *testing.T, resp *http.Response, status int) {
	t.Helper()
	var body struct{ ErrorCode, ErrorMessage string }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || body.ErrorCode == "" || body.ErrorMessage == "" {
		t.Errorf("the body: %+v, %v", body, err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != status || !strings.HasPrefix(got, "application/json") {
		t.Errorf("%s, %s; want %d and JSON", resp.Status, got, status)
	}
}

// TestHeadersOverHTTP2: net/http's own answer to long headers could not be
// replaced there.
func TestHeadersOverHTTP2(t *testing.T) {
	cfg := sqliteConfig(t)
	cfg.TLSCert, cfg.TLSKey = writeCertificate(t, t.TempDir(), "localhost")
	r := startServer(t, cfg)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	address, err := url.Parse(r.URL() + "/api/m2m/v1/session/login")
	if err != nil {
		t.Fatal(err)
	}
	req := (&http.Request{Method: http.MethodPost, URL: address, Header: http.Header{"A": {strings.Repeat("a", 80<<10)}}}).WithContext(t.Context())
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.Proto != "HTTP/2.0" {
		t.Errorf("the protocol is %s", resp.Proto)
	}
	checkJSONError(t, resp, http.StatusRequestHeaderFieldsTooLarge)
}

// TestHandshakeHoldsUpNobody: connections that never shake hands neither keep
// others waiting nor the server from ending.
func TestHandshakeHoldsUpNobody(t *testing.T) {
	cfg := sqliteConfig(t)
	cfg.TLSCert, cfg.TLSKey = writeCertificate(t, t.TempDir(), "localhost")
	r := startServer(t, cfg)
	var silent []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", r.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		silent = append(silent, c)
	}
	for range 3 {
		if _, protocol := shown(t, r.URL()); protocol != "HTTP/2.0" {
			t.Errorf("the protocol is %s", protocol)
		}
	}
	if err := r.end(); err != nil {
		t.Error(err)
	}
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a silent connection outlived the server: %d bytes, %v", n, err)
		}
	}
}
