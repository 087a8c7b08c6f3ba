package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/provision"
)

// CheckPrefix begins the ICCIDs of the SIMs that checks of a carrier make up.
const CheckPrefix = carrier.CheckPrefix

// CarrierHTTP begins the name of a carrier that is a provisioning system at a
// URL.
const CarrierHTTP = "http:"

// simulated reports whether licenses are known not to be real.
func (c Config) simulated() bool { return c.Carrier == CarrierSimulated }

// carrierURL is the URL of a carrier by HTTP.
func (c Config) carrierURL() (string, bool) {
	if c.Provisioner != nil {
		return "", false
	}
	return strings.CutPrefix(c.Carrier, CarrierHTTP)
}

// carrierName is the carrier as anyone may read it: what follows the path of its
// URL may be a secret.
func (c Config) carrierName() string {
	if text, ok := c.carrierURL(); ok {
		if u, err := url.Parse(text); err == nil {
			return CarrierHTTP + (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
		}
	}
	return c.Carrier
}

// checkCarrier says what is wrong with the carrier's settings.
func (c Config) checkCarrier() error {
	text, isHTTP := c.carrierURL()
	switch {
	case c.Carrier == "" && !c.ServeOnly:
		return errors.New("no carrier is named, and there is no default: give --carrier simulated for one that answers like a carrier and licenses no SIM really, --carrier http:URL for a provisioning system, or --carrier upstream:URL for a service with the same API")
	case isHTTP && strings.HasPrefix(text, "//"):
		return errors.New("--carrier http: is followed by a whole URL, as in --carrier http:https://carrier.example/licenses")
	case isHTTP:
		return c.checkHTTPCarrier(text)
	case strings.HasPrefix(c.Carrier, CarrierUpstream), c.Upstream.Record != "":
		return c.checkUpstream()
	case c.Carrier != "" && c.Carrier != CarrierSimulated && c.Provisioner == nil:
		return fmt.Errorf("unknown carrier %.60q: this version knows --carrier simulated, --carrier http:URL and --carrier upstream:URL", c.Carrier)
	}
	for _, f := range []struct{ flag, value string }{
		{"token", string(c.CarrierToken)},
		{"secret", string(c.CarrierSecret)},
		{"cert", c.CarrierCert},
		{"key", c.CarrierKey},
		{"ca", c.CarrierCA},
	} {
		if f.value != "" && c.Carrier == CarrierSimulated {
			return fmt.Errorf("--carrier-%s is for --carrier http:URL; the simulated carrier is asked nothing", f.flag)
		}
	}
	return nil
}

func (c Config) checkHTTPCarrier(text string) error {
	u, err := carrier.ParseURL(text)
	switch {
	case err != nil:
		return fmt.Errorf("--carrier http:URL: %w", err)
	case (c.CarrierCert == "") != (c.CarrierKey == ""):
		return errors.New("--carrier-cert and --carrier-key go together: give both or neither")
	case u.Scheme == "http" && c.CarrierCert+c.CarrierCA != "":
		return errors.New("--carrier-cert, --carrier-key and --carrier-ca are for a carrier whose URL begins with https://")
	case strings.ContainsFunc(string(c.CarrierToken), func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("--carrier-token: a bearer token has neither spaces nor characters beyond ASCII")
	case c.CarrierSecret == "":
		return nil
	}
	if err := carrier.CheckSecret(string(c.CarrierSecret)); err != nil {
		return fmt.Errorf("--carrier-secret: %w", err)
	}
	return nil
}

// newCarrier builds the carrier that the configuration names.
func (c Config) newCarrier(log *slog.Logger, metrics prometheus.Registerer) (provision.Carrier, error) {
	if c.Provisioner != nil {
		return c.Provisioner, nil
	}
	if _, isHTTP := c.carrierURL(); isHTTP {
		cfg, err := c.httpCarrier(log)
		if err != nil {
			return nil, err
		}
		cfg.Metrics = metrics
		return carrier.NewHTTP(cfg)
	}
	simulated := carrier.SimulatedConfig{Clock: c.Clock, Delay: c.CarrierDelay, RefuseRate: c.CarrierRefuseRate}
	if c.CarrierRefuses != nil {
		simulated.Refuses = func(id license.ICCID) bool { return c.CarrierRefuses(string(id)) }
	}
	return carrier.NewSimulated(simulated)
}

// httpCarrier reads the files of a carrier by HTTP.
func (c Config) httpCarrier(log *slog.Logger) (carrier.HTTPConfig, error) {
	text, _ := c.carrierURL()
	cfg := carrier.HTTPConfig{
		URL: text, Token: string(c.CarrierToken), Secret: string(c.CarrierSecret), Clock: c.Clock, Logger: log,
	}
	if c.CarrierCA != "" {
		pem, err := os.ReadFile(c.CarrierCA)
		if err != nil {
			return cfg, fmt.Errorf("--carrier-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return cfg, fmt.Errorf("--carrier-ca %s holds no certificate in PEM", c.CarrierCA)
		}
	}
	if c.CarrierCert != "" {
		files := &certificate{certFile: c.CarrierCert, keyFile: c.CarrierKey, log: log, now: time.Now}
		if _, err := files.get(nil); err != nil {
			return cfg, fmt.Errorf("--carrier-cert: %w", err)
		}
		cfg.Certificate = files.current
	}
	return cfg, nil
}

// newReceiver builds what takes late outcomes in; nil where the carrier brings
// none.
func (c *core) newReceiver() (http.Handler, error) {
	text, isHTTP := c.cfg.carrierURL()
	if !isHTTP {
		return nil, nil
	}
	if u, err := url.Parse(text); err == nil && u.Scheme == "http" && !loopback(u.Hostname()) {
		c.log.Warn("the carrier is called over plain HTTP: others can read, change and forge what is said; use https", "carrier", c.cfg.carrierName())
	}
	if c.cfg.CarrierSecret == "" {
		c.log.Warn("there is no --carrier-secret: calls of the carrier are not signed, and it can bring no outcomes by itself")
		return nil, nil
	}
	return carrier.NewReceiver(carrier.ReceiverConfig{
		Settler: c.store, Secret: string(c.cfg.CarrierSecret), Wake: c.sender.Wake,
		Clock: c.cfg.Clock, Logger: c.log, Metrics: c.metrics,
	})
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// CarrierCheck says what the checks of a carrier ask for.
type CarrierCheck = carrier.CheckConfig

// CarrierFinding is what one check of a carrier found.
type CarrierFinding = carrier.Finding

// CheckCarrier holds the provisioning system that the configuration names against
// what is asked of one, by tasks that nobody asked for. The error says that it
// could not be tried, and is one of the configuration.
func (c Config) CheckCarrier(ctx context.Context, check CarrierCheck) ([]CarrierFinding, error) {
	if _, isHTTP := c.carrierURL(); !isHTTP {
		return nil, errors.New("only a carrier at a URL can be checked")
	}
	if err := c.checkCarrier(); err != nil {
		return nil, err
	}
	cfg, err := c.httpCarrier(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return carrier.CheckHTTP(ctx, cfg, check)
}
