package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// real is an API behind a real HTTP server.
type real struct {
	*harness
	server *httptest.Server
}

func newReal(t *testing.T, change ...func(*Config)) *real {
	t.Helper()
	h := newHarness(t, change...)
	s := httptest.NewServer(h.handler)
	t.Cleanup(s.Close)
	return &real{h, s}
}

// connection is a connection on which a test writes what it likes.
type connection struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (r *real) dial() *connection {
	r.t.Helper()
	c, err := (&net.Dialer{}).DialContext(r.t.Context(), "tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &connection{c, r.t, bufio.NewReader(c)}
}

func (c *connection) send(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *connection) receive(method string) answer {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer{res, body}
}

func (r *real) credentials() string {
	return "Host: x\r\nAuthorization: Bearer " + r.bearer + "\r\nvz-m2m-TOKEN: " + r.session + "\r\n"
}

// TestSlowBody answers a body that does not come, and closes.
func TestSlowBody(t *testing.T) {
	r := newReal(t, func(c *Config) { c.BodyTimeout = 100 * time.Millisecond })
	for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
		c := r.dial()
		c.send("POST %s HTTP/1.1\r\n%s%s\r\n\r\n1\r\n{\r\n", assign, r.credentials(), length)
		a := c.receive("POST")
		if a.StatusCode != http.StatusRequestTimeout || a.code(t) != codeSlowBody || !a.Close {
			t.Errorf("%s: %s", length, a)
		}
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("%s: the connection is still open: %v", length, err)
		}
	}
}

// TestSlowBodyRefusedEarly answers at last, though the body never comes.
func TestSlowBodyRefusedEarly(t *testing.T) {
	r := newReal(t, func(c *Config) { c.BodyTimeout = 100 * time.Millisecond })
	c := r.dial()
	c.send("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", assign)
	if a := c.receive("POST"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s", a)
	}
}

// TestSlowWork is not cut short by the time allowed for the body, and neither
// are later calls on the connection.
func TestSlowWork(t *testing.T) {
	r := newReal(t, func(c *Config) { c.BodyTimeout = 50 * time.Millisecond })
	wait := time.NewTimer(300 * time.Millisecond)
	var gone error
	r.licenses.accept = acceptAfter(wait.C, &gone)
	c := r.dial()
	body := licenseJSON("SIMSec-IoT", device(1))
	for i := range 2 {
		c.send("POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", assign, r.credentials(), len(body), body)
		if a := c.receive("POST"); a.StatusCode != http.StatusOK || gone != nil {
			t.Errorf("call %d: %s; context: %v", i, a, gone)
		}
		wait.Reset(100 * time.Millisecond)
	}
}

func TestOversized(t *testing.T) {
	r := newReal(t)
	chunk := strings.Repeat(" ", 1<<20)
	c := r.dial()
	c.send("POST %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n", assign, r.credentials())
	// The server answers before the end and closes, so the rest may fail.
	for range 9 {
		if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(chunk), chunk); err != nil {
			break
		}
	}
	if a := c.receive("POST"); a.StatusCode != http.StatusRequestEntityTooLarge || a.code(t) != codeTooLarge {
		t.Errorf("chunked: %s", a)
	}
	c = r.dial()
	c.send("POST %s HTTP/1.1\r\n%sContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", assign, r.credentials(), maxBody+1)
	if a := c.receive("POST"); a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("announced: %s", a)
	}
	// The limit itself is allowed.
	body := licenseJSON("SIMSec-IoT", device(1))
	body += strings.Repeat(" ", maxBody-len(body))
	c = r.dial()
	c.send("DELETE %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", assign, r.credentials(), len(body), body)
	if a := c.receive("DELETE"); a.StatusCode != http.StatusOK {
		t.Errorf("at the limit: %s", a)
	}
}

// TestRefusedWhileSending: a client that reads nothing before it has sent
// everything finds the refusal all the same, and not a broken connection.
func TestRefusedWhileSending(t *testing.T) {
	r := newReal(t)
	body := strings.Repeat(" ", 3*maxBody)
	for name, tc := range map[string]struct {
		path, headers string
		status        int
	}{
		"too large": {assign, r.credentials(), http.StatusRequestEntityTooLarge},
		"no bearer": {assign, "Host: x\r\n", http.StatusUnauthorized},
		"no such":   {"/api/m2m/v1/nothing", "Host: x\r\n", http.StatusNotFound},
	} {
		c := r.dial()
		c.send("POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n", tc.path, tc.headers, len(body))
		if _, err := io.WriteString(c, body); err != nil {
			t.Errorf("%s: sending the body: %v", name, err)
			continue
		}
		if a := c.receive("POST"); a.StatusCode != tc.status {
			t.Errorf("%s: %s, want status %d", name, a, tc.status)
		}
	}
}

func TestBrokenBodies(t *testing.T) {
	r := newReal(t)
	c := r.dial()
	c.send("POST %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\nzz\r\n", assign, r.credentials())
	if a := c.receive("POST"); a.StatusCode != http.StatusBadRequest || a.code(t) != m2m.CodeDeserialization {
		t.Errorf("a broken chunk: %s", a)
	}
	c = r.dial()
	c.send("POST %s HTTP/1.1\r\n%sContent-Length: 100\r\n\r\n{", assign, r.credentials())
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if a := c.receive("POST"); a.StatusCode != http.StatusBadRequest || a.code(t) != m2m.CodeDeserialization {
		t.Errorf("a short body: %s", a)
	}
}

// TestKeepAlive makes many calls on one connection, refused ones among them.
func TestKeepAlive(t *testing.T) {
	r := newReal(t)
	c := r.dial()
	body := licenseJSON("SIMSec-IoT", device(1))
	for range 3 {
		c.send("DELETE %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", assign, r.credentials(), len(body), body)
		if a := c.receive("DELETE"); a.StatusCode != http.StatusOK {
			t.Errorf("chunked: %s", a)
		}
		c.send("DELETE %s HTTP/1.1\r\n%s\r\n", assign, r.credentials())
		if a := c.receive("DELETE"); a.code(t) != m2m.CodeRequestUndefined {
			t.Errorf("without a body: %s", a)
		}
		c.send("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", assign, len(body), body)
		if a := c.receive("POST"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("without credentials: %s", a)
		}
		c.send("POST /api/m2m/v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if a := c.receive("POST"); a.StatusCode != http.StatusNotFound {
			t.Errorf("no such path: %s", a)
		}
		c.send("HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n", assign)
		if a := c.receive("HEAD"); a.StatusCode != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "DELETE, POST" || a.ContentLength < 10 {
			t.Errorf("HEAD: %s, Allow %q, length %d", a, a.Header.Get("Allow"), a.ContentLength)
		}
	}
}
