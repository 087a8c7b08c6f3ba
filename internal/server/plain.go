package server

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/simlatch/simlatch/internal/api"
)

// A plainListener accepts connections on which even what is no HTTP gets an
// answer of the API's kind. net/http answers that by itself, in plain text or
// with nothing, with statuses up to 505, and gives nobody a say.
type plainListener struct{ net.Listener }

// Accept waits for a connection.
func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		return &plainConn{TCPConn: tcp}, nil
	}
	return c, err
}

// A plainConn replaces the answers that net/http makes up by itself. It writes
// each of them at once and whole, in a form that no answer of ours has.
type plainConn struct{ *net.TCPConn }

// Write writes b, or what stands for it.
func (c *plainConn) Write(b []byte) (int, error) {
	status := ownAnswer(b)
	if status == 0 {
		return c.TCPConn.Write(b)
	}
	status, body := api.Malformed(status)
	_, err := fmt.Fprintf(c.TCPConn, "HTTP/1.1 %d %s\r\nContent-Type: application/json; charset=UTF-8\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s", status, http.StatusText(status), len(body), body)
	return len(b), err
}

// ownAnswer is the status of an answer that net/http has made up by itself, or
// 0.
func ownAnswer(b []byte) int {
	const start, longest = "HTTP/1.1 ", 512
	if len(b) > longest || !bytes.HasPrefix(b, []byte(start)) || len(b) < len(start)+3 {
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
