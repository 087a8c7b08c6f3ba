package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// tls is the configuration for the TLS files, or nil without them.
func (s *Server) tls() (*tls.Config, error) {
	if s.cfg.TLSCert == "" {
		return nil, nil
	}
	c := &certificate{certFile: s.cfg.TLSCert, keyFile: s.cfg.TLSKey, log: s.log, now: time.Now}
	if _, err := c.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: c.get,
		NextProtos: []string{"h2", "http/1.1"}, // net/http serves the first only if it is named here
	}, nil
}

// lookAgain is how often the TLS files are looked at, at most.
const lookAgain = time.Second

// certificate is a certificate in files, read again when they change. While
// they are wrong, for instance because only one of them was replaced yet, the
// last good certificate stands.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu     sync.Mutex
	loaded *tls.Certificate
	state  [2]fileState
	looked time.Time
}

// fileState tells whether a file was changed.
type fileState struct {
	modified time.Time
	size     int64
}

// current is the certificate for calls of our own.
func (c *certificate) current() (*tls.Certificate, error) { return c.get(nil) }

// get is the GetCertificate of a tls.Config.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.loaded != nil && now.Sub(c.looked).Abs() < lookAgain {
		return c.loaded, nil
	}
	c.looked = now
	state, err := c.look()
	if err == nil && c.loaded != nil && state == c.state {
		return c.loaded, nil
	}
	if err == nil {
		err = c.load(state)
	}
	switch {
	case err == nil:
		return c.loaded, nil
	case c.loaded == nil:
		return nil, err
	}
	c.log.Error("the TLS files cannot be used; the last certificate stands", "error", err)
	return c.loaded, nil
}

func (c *certificate) look() (state [2]fileState, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return state, fmt.Errorf("the TLS files: %w", err)
		}
		state[i] = fileState{info.ModTime(), info.Size()}
	}
	return state, nil
}

func (c *certificate) load(state [2]fileState) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("the TLS files %s and %s: %w", c.certFile, c.keyFile, err)
	}
	if c.loaded != nil {
		c.log.Info("read the TLS files again", "subject", pair.Leaf.Subject.String(), "until", pair.Leaf.NotAfter)
	}
	c.loaded, c.state = &pair, state
	return nil
}
