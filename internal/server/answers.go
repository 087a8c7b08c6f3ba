package server

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"

	"github.com/simlatch/simlatch/internal/api"
)

// A plainListener accepts connections on which even what is no HTTP gets an
// answer of the API's kind. secureListener does the same behind TLS.
type plainListener struct{ net.Listener }

// Accept waits for a connection.
func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(tcpConn); ok && err == nil {
		return plainConn{tcp}, nil
	}
	return c, err
}

// A plainConn replaces the answers that net/http makes up by itself, in plain
// text or with nothing, with statuses up to 505. It writes each of them at once
// and whole, in a form that no answer of ours has.
type plainConn struct{ tcpConn }

// Write writes b, or what stands for it.
func (c plainConn) Write(b []byte) (int, error) { return writeOurs(c.tcpConn, b) }

// A tcpConn is a *net.TCPConn, or what counts one: net/http looks for the two methods.
type tcpConn interface {
	net.Conn
	io.ReaderFrom
	CloseWrite() error
}

// writeOurs writes b to w, or, when b is an answer that net/http has made up by
// itself, the API's answer in its place.
func writeOurs(w io.Writer, b []byte) (int, error) {
	status := ownAnswer(b)
	if status == 0 {
		return w.Write(b)
	}
	return len(b), writeMalformed(w, status)
}

// writeMalformed writes the answer to what is so little HTTP that no request
// came of it, for which net/http has chosen the status.
func writeMalformed(w io.Writer, status int) error {
	status, body := api.Malformed(status)
	_, err := fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: application/json; charset=UTF-8\r\n"+
		"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, http.StatusText(status), len(body), body)
	return err
}

// ownAnswer is the status of an answer that net/http has made up by itself, or
// 0.
func ownAnswer(b []byte) int {
	const start, longest = "HTTP/1.1 ", 512
	if len(b) > longest || len(b) < len(start)+3 || !bytes.HasPrefix(b, []byte(start)) && !bytes.HasPrefix(b, []byte("HTTP/1.0 ")) {
		return 0
	}
	status, err := strconv.Atoi(string(b[len(start) : len(start)+3]))
	if err != nil {
		return 0
	}
	switch status {
	case 400, 431, 501, 505:
		if bytes.Contains(b, []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")) {
			return status
		}
	case 417:
		if bytes.Contains(b, []byte("\r\nContent-Length: 0\r\n")) {
			return status
		}
	}
	return 0
}

// Limits of a request's headers. Ours is smaller than the one net/http is told,
// because what exceeds that one never reaches us, and over HTTP/2 gets an answer
// in plain text that nobody can replace. Over HTTP/2 it takes a client that
// disregards what it was told of the limit.
const (
	maxHeader     = 64 << 10
	maxHeaderHTTP = 1 << 20
)

// limitHeaders refuses requests with headers over maxHeader.
func limitHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const perField = 32 // as HTTP/2 counts (RFC 9113 section 10.5.1)
		size := len(r.RequestURI) + len(r.Host)
		for name, values := range r.Header {
			for _, v := range values {
				size += len(name) + len(v) + perField
			}
		}
		if size <= maxHeader {
			next.ServeHTTP(w, r)
			return
		}
		status, body := api.Malformed(http.StatusRequestHeaderFieldsTooLarge)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		w.Header().Set("Connection", "close")
		w.WriteHeader(status)
		_, _ = w.Write(body) // whoever sent that need not wait for it
	})
}

// withSecurityHeaders sets what tells browsers to make nothing of an answer but
// what it says. A handler that serves pages sets its own in their place.
func withSecurityHeaders(next http.Handler, secure bool) http.Handler {
	// Set as they are: the slices are shared, and nobody appends to them.
	headers := map[string][]string{
		"Content-Security-Policy": {"default-src 'none'; frame-ancestors 'none'"},
		"Referrer-Policy":         {"no-referrer"},
		"X-Content-Type-Options":  {"nosniff"},
		"X-Frame-Options":         {"DENY"},
	}
	if secure {
		headers["Strict-Transport-Security"] = []string{"max-age=31536000"}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), headers)
		next.ServeHTTP(w, r)
	})
}
