package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// A secureListener accepts connections whose TLS handshake is done. net/http
// would shake hands itself, but only with a *tls.Conn, above which nothing can
// replace the answers that it makes up. So those that speak HTTP/1.1 are
// wrapped, and those that negotiated HTTP/2, which has no such answers, are
// handed on as they are.
type secureListener struct {
	net.Listener

	config *tls.Config
	log    *slog.Logger
	ready  chan accepted
	ctx    context.Context // ends with the listener
	cancel context.CancelFunc
	hands  sync.WaitGroup // the goroutines
}

type accepted struct {
	conn net.Conn
	err  error
}

// handshakeTimeout bounds the TLS handshake, as the headers of a request are
// bounded.
const handshakeTimeout = headerTimeout

func newSecureListener(inner net.Listener, config *tls.Config, log *slog.Logger) *secureListener {
	l := &secureListener{Listener: inner, config: config, log: log, ready: make(chan accepted)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.hands.Go(l.run)
	return l
}

// Accept waits for a connection that is ready for HTTP.
func (l *secureListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends accepting and the handshakes that are not done.
func (l *secureListener) Close() error {
	l.cancel()
	err := l.Listener.Close()
	l.hands.Wait()
	return err
}

// run accepts until the listener is closed; a handshake holds up nobody else.
func (l *secureListener) run() {
	for {
		c, err := l.Listener.Accept()
		if err == nil {
			l.hands.Go(func() { l.greet(c) })
			continue
		}
		if !l.deliver(accepted{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// deliver hands a connection or an error to Accept; false once nobody takes it.
func (l *secureListener) deliver(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// greet shakes hands on a connection and hands it on.
func (l *secureListener) greet(raw net.Conn) {
	secure := tls.Server(raw, l.config)
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		// What clients do wrong would let anyone fill the log.
		l.log.Debug("a TLS handshake failed", "address", raw.RemoteAddr().String(), "error", err)
		refuse(err)
		_ = raw.Close()
		return
	}
	var conn net.Conn = secure
	if secure.ConnectionState().NegotiatedProtocol != "h2" {
		conn = secureConn{secure}
	}
	if !l.deliver(accepted{conn: conn}) {
		_ = raw.Close()
	}
}

// refuse answers those that speak HTTP where TLS is spoken.
func refuse(err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || record.Conn == nil {
		return
	}
	switch string(record.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		_ = record.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_ = writeMalformed(record.Conn, http.StatusBadRequest) // it is closed in any case
	}
}

// A secureConn is plainConn behind TLS.
type secureConn struct{ *tls.Conn }

// Write writes b, or what stands for it.
func (c secureConn) Write(b []byte) (int, error) { return writeOurs(c.Conn, b) }
