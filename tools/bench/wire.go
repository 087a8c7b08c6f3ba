package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// wire is one kept connection of HTTP/1.1. It does no more than it must: the
// load shares the machine with what it measures.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
}

func dial(ctx context.Context, address string) (*wire, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return &wire{conn, bufio.NewReader(conn)}, nil
}

func (w *wire) close() { _ = w.conn.Close() } // what was answered was read

// post renders a request that wire.do sends.
func post(address, path string, header map[string]string, body []byte) []byte {
	var b bytes.Buffer
	u, _ := url.Parse(address) // dial says what is wrong with it
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", path, u.Host, len(body))
	for name, value := range header {
		fmt.Fprintf(&b, "%s: %s\r\n", name, value)
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// do sends a request and returns the body of its answer, which must be a 200.
func (w *wire) do(request []byte) ([]byte, error) {
	if _, err := w.conn.Write(request); err != nil {
		return nil, err
	}
	status, err := w.line()
	if err != nil {
		return nil, err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 200 "))
	said := string(status)
	length := -1
	for {
		line, err := w.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return nil, err
			}
		}
	}
	if length < 0 {
		return nil, fmt.Errorf("the answer %q has no length", said)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(w.r, body); err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("answered %q: %s", said, body)
	}
	return body, nil
}

func (w *wire) line() ([]byte, error) {
	line, err := w.r.ReadSlice('\n')
	return bytes.TrimSuffix(line, []byte("\r\n")), err
}

// closedLoop sends requests over connections of which each sends the next when
// it has its answer. It returns the bodies of the answers in the order of the
// requests, and how long all took. Connections are made before.
func closedLoop(ctx context.Context, address string, connections int, requests [][]byte) ([][]byte, time.Duration, error) {
	connections = min(connections, len(requests))
	wires := make([]*wire, connections)
	for i := range wires {
		w, err := dial(ctx, address)
		if err != nil {
			return nil, 0, err
		}
		defer w.close()
		defer context.AfterFunc(ctx, w.close)()
		wires[i] = w
	}
	answers := make([][]byte, len(requests))
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, connections)
	start := time.Now()
	for _, w := range wires {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(requests)); i = next.Add(1) - 1 {
				body, err := w.do(requests[i])
				if err != nil {
					errs <- fmt.Errorf("request %d: %w", i, err)
					return
				}
				answers[i] = body
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return nil, 0, err
	default:
		return answers, took, nil
	}
}

// requestID reads the answer to an accepted request.
func requestID(answer []byte) (string, error) {
	var a struct {
		RequestID string `json:"requestId"`
	}
	if err := json.Unmarshal(answer, &a); err != nil || strings.TrimSpace(a.RequestID) == "" {
		return "", fmt.Errorf("the answer %q has no requestId", answer)
	}
	return a.RequestID, nil
}

// repath replaces the path of a rendered request.
func repath(request []byte, from, to string) []byte {
	return bytes.Replace(request, []byte(from), []byte(to), 1)
}
