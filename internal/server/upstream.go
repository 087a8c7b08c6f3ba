package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/exchange"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// CarrierUpstream begins the name of a carrier that is another service with the
// same API; its URL follows.
const CarrierUpstream = "upstream:"

// Defaults of the settings of an upstream.
const (
	DefaultUpstreamBatch    = carrier.DefaultUpstreamBatch
	DefaultUpstreamRate     = 1.5 // the reference takes 100 activations a minute (thingspace-api.md 9.4)
	DefaultUpstreamListen   = "127.0.0.1:9001"
	DefaultUpstreamTimeout  = 10 * time.Second
	DefaultUpstreamPatience = time.Minute
)

// UpstreamConfig sets up a carrier that is another service with the same API.
// Key, Secret and CallbackURL are required.
type UpstreamConfig struct {
	Key, User        string
	Secret, Password auth.Secret

	Listen      string            // where the upstream's callbacks are received
	CallbackURL string            // how the upstream reaches that
	Accounts    map[string]string // names there by names here, where they differ
	Batch       int               // devices in a request; 0 means DefaultUpstreamBatch
	Rate        float64           // calls a second; 0 is no limit
	Timeout     time.Duration     // of a call
	Patience    time.Duration     // before the status of a request is asked for
	Record      string            // a directory that exchanges are kept in; empty: none
}

// upstreamURL is the URL of a carrier that is an upstream; empty for others.
func (c Config) upstreamURL() string {
	u, _ := strings.CutPrefix(c.Carrier, CarrierUpstream)
	if u == c.Carrier {
		return ""
	}
	return u
}

// checkUpstream says what is wrong with the settings of an upstream.
func (c Config) checkUpstream() error {
	if !strings.HasPrefix(c.Carrier, CarrierUpstream) {
		if c.Upstream.Record != "" {
			return errors.New("--record keeps the exchanges with an upstream; there is none without --carrier upstream:URL")
		}
		return nil
	}
	if err := CheckUpstreamURL(c.upstreamURL()); err != nil {
		return err
	}
	u, err := url.Parse(c.Upstream.CallbackURL)
	switch {
	case c.ServeOnly:
		return nil
	case c.Upstream.Key == "" || c.Upstream.Secret == "":
		return errors.New("an upstream needs --upstream-key, and its secret in SIMLATCH_UPSTREAM_SECRET or a file that SIMLATCH_UPSTREAM_SECRET_FILE names")
	case c.Upstream.CallbackURL == "":
		return errors.New("an upstream needs --upstream-callback-url: how it reaches --upstream-listen with its callbacks")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("--upstream-callback-url is of the form https://host/path")
	case c.Upstream.Batch < 0:
		return fmt.Errorf("--upstream-batch %d: a number of devices cannot be negative", c.Upstream.Batch)
	case !(c.Upstream.Rate >= 0):
		return fmt.Errorf("--upstream-rate %v: a rate cannot be negative", c.Upstream.Rate)
	case c.Upstream.Timeout < 0:
		return fmt.Errorf("--upstream-timeout %v: a time cannot be negative", c.Upstream.Timeout)
	case c.Upstream.Patience < 0:
		return fmt.Errorf("--upstream-patience %v: a time cannot be negative", c.Upstream.Patience)
	}
	taken := map[string]bool{}
	for ours, theirs := range c.Upstream.Accounts {
		if _, err := license.ParseAccountName(ours); err != nil {
			return fmt.Errorf("--upstream-account %s: %w", ours, err)
		}
		if taken[theirs] {
			return fmt.Errorf("--upstream-account: %s is named for two accounts here, and callbacks about it could go to one only", theirs)
		}
		taken[theirs] = true
	}
	return nil
}

// CheckUpstreamURL refuses what is no URL of an upstream. It never repeats it:
// somebody may have put a password there.
func CheckUpstreamURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("an upstream is named like --carrier upstream:https://host, without credentials or a query")
	}
	return nil
}

// newUpstream builds the carrier.
func (c *core) newUpstream() (*carrier.Upstream, error) {
	cfg := carrier.UpstreamConfig{
		URL: c.cfg.upstreamURL(), Key: c.cfg.Upstream.Key, Secret: string(c.cfg.Upstream.Secret),
		Username: c.cfg.Upstream.User, Password: string(c.cfg.Upstream.Password),
		CallbackURL: c.cfg.Upstream.CallbackURL, Records: c.store,
		Batch: c.cfg.Upstream.Batch, Rate: c.cfg.Upstream.Rate,
		Timeout: c.cfg.Upstream.Timeout, Patience: c.cfg.Upstream.Patience,
		Wake: c.sender.Wake, Clock: c.cfg.Clock, Logger: c.log, Metrics: c.metrics,
		Accounts: map[license.AccountName]string{},
	}
	for ours, theirs := range c.cfg.Upstream.Accounts {
		cfg.Accounts[license.AccountName(ours)] = theirs
	}
	if c.recorder != nil {
		cfg.Observe = c.recorder.Transport
	}
	return carrier.NewUpstream(cfg)
}

// openRecorder makes the recorder of --record.
func (c *core) openRecorder() error {
	if c.cfg.Upstream.Record == "" {
		return nil
	}
	if err := os.MkdirAll(c.cfg.Upstream.Record, 0o700); err != nil {
		return fmt.Errorf("making the directory of --record: %w", err)
	}
	c.recorder = exchange.NewRecorder(exchange.RecorderConfig{
		Dir: c.cfg.Upstream.Record, Logger: c.log,
		Secrets: []string{c.cfg.Upstream.Key, string(c.cfg.Upstream.Secret), string(c.cfg.Upstream.Password)},
	})
	return nil
}

// runUpstream registers our listener upstream and writes its callbacks down.
func (c *core) runUpstream(ctx context.Context) error {
	accounts, err := c.store.Accounts(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return c.upstream.Run(ctx, accounts)
}

// upstreamListener is where an upstream's callbacks arrive.
type upstreamListener struct {
	listener net.Listener
	http     *http.Server
}

// listenUpstream listens for an upstream's callbacks, where the carrier is one.
func (s *Server) listenUpstream(ctx context.Context) error {
	if s.cfg.upstreamURL() == "" || s.cfg.ServeOnly || s.cfg.Provisioner != nil {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Upstream.Listen)
	if err != nil {
		return fmt.Errorf("listening for the upstream's callbacks: %w", err)
	}
	s.callbacks = &upstreamListener{listener: l}
	return nil
}

// handleUpstream makes the server of the upstream's callbacks.
func (s *Server) handleUpstream() error {
	if s.callbacks == nil {
		return nil
	}
	secure, err := s.tls()
	if err != nil {
		return err
	}
	var h http.Handler = s.upstream.Handler()
	if s.recorder != nil {
		h = s.recorder.Handler(h)
	}
	s.callbacks.http = newHTTP(h, secure, s.log, s.cfg.bodyTimeout)
	return nil
}

// serveUpstream receives callbacks until ctx ends; what has come by then is
// answered.
func (s *Server) serveUpstream(ctx context.Context) error {
	u := s.callbacks
	ended := make(chan error, 1)
	go func() {
		limited := s.conns.limit(u.listener, "upstream", s.cfg.MaxConnections, s.log)
		var l net.Listener = plainListener{limited}
		if u.http.TLSConfig != nil {
			l = newSecureListener(limited, u.http.TLSConfig, s.log)
		}
		ended <- u.http.Serve(l)
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("receiving the upstream's callbacks: %w", err)
	case <-ctx.Done():
	}
	// Nobody writes them down any more: they come again.
	err := u.http.Close()
	if end := <-ended; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

// UpstreamClient makes a client of an upstream, as an operator's commands use it.
func UpstreamClient(carrier string, u UpstreamConfig) (*m2m.Client, error) {
	base, ok := strings.CutPrefix(carrier, CarrierUpstream)
	if !ok {
		return nil, errors.New("name the upstream as --carrier upstream:URL")
	}
	if err := CheckUpstreamURL(base); err != nil {
		return nil, err
	}
	return m2m.New(m2m.Config{BaseURL: base, Key: u.Key, Secret: string(u.Secret), Username: u.User, Password: string(u.Password)})
}
