package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Listener serves a handler, such as a Sink.
type Listener struct {
	URL  string
	Addr net.Addr

	srv *http.Server
	end chan error
}

// Listen serves h at address. With secure it speaks TLS, and HTTP/2 if that
// offers it.
func Listen(ctx context.Context, address string, h http.Handler, secure *tls.Config) (*Listener, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for callbacks: %w", err)
	}
	l := &Listener{URL: "http://" + ln.Addr().String() + "/", Addr: ln.Addr(), end: make(chan error, 1)}
	l.srv = &http.Server{Handler: h, TLSConfig: secure, ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	if secure == nil {
		go func() { l.end <- l.srv.Serve(ln) }()
		return l, nil
	}
	l.URL = "https" + l.URL[len("http"):]
	l.srv.Protocols = new(http.Protocols)
	l.srv.Protocols.SetHTTP1(true)
	for _, p := range secure.NextProtos {
		if p == "h2" {
			l.srv.Protocols.SetHTTP1(false)
			l.srv.Protocols.SetHTTP2(true)
		}
	}
	go func() { l.end <- l.srv.ServeTLS(ln, "", "") }()
	return l, nil
}

// Close stops listening and drops what is being answered.
func (l *Listener) Close() error {
	err := l.srv.Close()
	if served := <-l.end; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
