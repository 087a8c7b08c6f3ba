package server

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/callback"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/provision"
	"github.com/simlatch/simlatch/internal/sandbox"
)

// CarrierSimulated names the carrier that licenses no SIM really.
const CarrierSimulated = "simulated"

// DefaultListen is the address of a server that names none.
const DefaultListen = "127.0.0.1:8080"

// Defaults of settings.
const (
	DefaultGrace      = 10 * time.Second
	DefaultRetention  = 90 * 24 * time.Hour
	DefaultMaxDevices = 10_000
)

// Config is the whole configuration of a server. Only Carrier has no default.
type Config struct {
	// Listen is the address to serve on; empty means DefaultListen, and port 0
	// any free one.
	Listen string
	// TLSCert and TLSKey are files in PEM, read again when they change. Without
	// them the server speaks plain HTTP.
	TLSCert, TLSKey string

	// Database is sqlite:PATH or postgres://…; empty means DefaultDatabase.
	Database string
	// SecretsKeyFile holds the key that seals stored secrets. It may be empty
	// on SQLite, where PATH.key is made beside the database.
	SecretsKeyFile string
	// Seed is a file of what to create at start; see ReadSeed.
	Seed string

	// Carrier names who makes licenses real; there is no default. It is
	// CarrierSimulated, or "http:" and the URL of a provisioning system.
	Carrier string
	// CarrierToken is sent to a carrier by HTTP as a bearer token, and
	// CarrierSecret, in base64, signs the calls in both directions; without it
	// no late outcomes are taken.
	CarrierToken, CarrierSecret auth.Secret
	// CarrierCert and CarrierKey are files in PEM that say who we are to a
	// carrier, read again when they change; CarrierCA is whom we trust to say
	// who it is, empty for whom the machine trusts.
	CarrierCert, CarrierKey, CarrierCA string
	// Provisioner, when not nil, is the carrier, and Carrier only its name.
	Provisioner provision.Carrier
	// CarrierDelay and CarrierRefuseRate set up the simulated carrier: how long
	// it takes, and the share of devices it refuses, always the same ones.
	CarrierDelay      time.Duration
	CarrierRefuseRate float64
	// CarrierRefuses, when not nil, names further SIMs that the simulated
	// carrier refuses, by ICCID. It is called by several goroutines at once.
	CarrierRefuses func(iccid string) bool
	// Upstream sets up the carrier "upstream:URL".
	Upstream UpstreamConfig
	// Workers is how many calls to the carrier run at once; 0 means as many as
	// package provision chooses.
	Workers int
	// ServeOnly makes a node that serves the API and delivers callbacks but
	// leaves the carrier to other nodes. It needs no Carrier.
	ServeOnly bool

	// CallbackAllow are the private and loopback networks that listeners may
	// be in.
	CallbackAllow []netip.Prefix
	// CallbackPorts are the ports that callbacks go to; none means any.
	CallbackPorts []callback.Ports
	// CallbackInterval, CallbackTimeout and CallbackAttempts are the schedule
	// of callbacks; zero means 5 minutes, 10 seconds, and 4 in all.
	CallbackInterval time.Duration
	CallbackTimeout  time.Duration
	CallbackAttempts int

	// MaxDevices is the most devices a request may have; 0 means
	// DefaultMaxDevices.
	MaxDevices int
	// RateLimit is how many calls a second an application may make; 0 is no
	// limit. The nodes of a cluster share it.
	RateLimit float64
	// AddressRateLimit is how many calls of the compatible API a second may come from
	// one address, and how many of the operator API; 0 is no limit. The nodes of a
	// cluster share it.
	AddressRateLimit float64
	// MaxCalls is how many calls of the compatible API are worked on at once, and
	// MaxBodies how many bytes of bodies they may hold; 0 means as package api
	// chooses. What is above is turned away.
	MaxCalls  int
	MaxBodies int64
	// MaxConnections is how many connections the service has at once, and how many an
	// upstream with its callbacks; further ones are closed at once. 0 means half of the
	// files that the process may have open, and 10,000 at most.
	MaxConnections int
	// LoginLock says what many failed logins do; empty means auth.LockSlow.
	LoginLock auth.Lock

	// AlertURL gets a message, signed with AlertSecret (whsec_…), when a pool falls
	// below its threshold; both or neither are given.
	AlertURL, AlertSecret string

	// Retention is how long ended work is kept; 0 means DefaultRetention.
	Retention time.Duration
	// AuditRetention is how long entries of the audit are kept; 0 means for ever.
	AuditRetention time.Duration
	// Grace is how long work in flight may take to end at shutdown; 0 means
	// DefaultGrace.
	Grace time.Duration
	// DrainDelay is how long calls are still accepted after readyz has begun to
	// fail, so that a load balancer can look away first. It is part of Grace.
	DrainDelay time.Duration
	// Node names this node among others on the same database; empty means the
	// host's name and a random part.
	Node string

	// Clock tells the time to everything that decides by it; nil means the
	// machine's.
	Clock license.Clock
	// Random is where tokens and ids come from; nil means crypto/rand.
	Random io.Reader
	// Logger gets the logs; nil discards them.
	Logger *slog.Logger
	// Traces is where spans go; nil begins none.
	Traces trace.TracerProvider
	// Ready, when not nil, is called once with the server's URL when it serves.
	Ready func(url string)

	box  *sandbox.Box // what surrounds the service in a sandbox; nil elsewhere
	from string       // a file that a database in memory begins with
	// listenerConns is how many callbacks a listener gets at once, in a sandbox.
	listenerConns int
	bodyTimeout   time.Duration // as in api.Config; tests have a short one
	callTimeout   time.Duration // Timeout of both APIs; tests have a short one
}

// ParseCallbackPorts reads the ports of --callback-ports.
func ParseCallbackPorts(list []string) (ports []callback.Ports, err error) {
	for _, s := range list {
		p, err := callback.ParsePorts(s)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p...)
	}
	return ports, nil
}

// Check says what is wrong with the configuration by itself, whatever the
// database and the files it names hold. New checks it too.
func (c Config) Check() error {
	if err := c.checkCarrier(); err != nil {
		return err
	}
	return errors.Join(c.checkNumbers(), c.checkAlerts())
}

// complete fills in the defaults.
func (c Config) complete() Config {
	c.Listen = cmp.Or(c.Listen, DefaultListen)
	c.Database = cmp.Or(c.Database, DefaultDatabase)
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	c.Retention = cmp.Or(c.Retention, DefaultRetention)
	c.MaxConnections = cmp.Or(c.MaxConnections, defaultConnections())
	c.MaxDevices = cmp.Or(c.MaxDevices, DefaultMaxDevices)
	c.LoginLock = cmp.Or(c.LoginLock, auth.LockSlow)
	c.Upstream.Listen = cmp.Or(c.Upstream.Listen, DefaultUpstreamListen)
	c.Upstream.Timeout = cmp.Or(c.Upstream.Timeout, DefaultUpstreamTimeout)
	c.Random = cmp.Or[io.Reader](c.Random, rand.Reader)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Clock == nil {
		c.Clock = license.SystemClock{}
	}
	if c.Node == "" {
		host, _ := os.Hostname() // the random part tells nodes apart where it is unknown
		c.Node = host + "-" + rand.Text()[:8]
	}
	return c
}

func (c Config) checkNumbers() error {
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{
		{"carrier-delay", c.CarrierDelay},
		{"callback-interval", c.CallbackInterval},
		{"callback-timeout", c.CallbackTimeout},
		{"retention", c.Retention},
		{"audit-retention", c.AuditRetention},
		{"grace", c.Grace},
		{"drain-delay", c.DrainDelay},
	} {
		if d.value < 0 {
			return fmt.Errorf("--%s %v: a time cannot be negative", d.flag, d.value)
		}
	}
	switch {
	case !(c.CarrierRefuseRate >= 0 && c.CarrierRefuseRate <= 1): // NaN too
		return fmt.Errorf("--carrier-refuse-rate %v: a share is between 0 and 1", c.CarrierRefuseRate)
	case c.Workers < 0:
		return fmt.Errorf("--workers %d: a number of calls cannot be negative", c.Workers)
	case c.CallbackAttempts < 0:
		return fmt.Errorf("--callback-attempts %d: a number of attempts cannot be negative", c.CallbackAttempts)
	case c.MaxDevices < 0:
		return fmt.Errorf("--max-devices %d: a number of devices cannot be negative", c.MaxDevices)
	case c.MaxCalls < 0:
		return fmt.Errorf("--max-calls %d: a number of calls cannot be negative", c.MaxCalls)
	case c.MaxConnections < 0:
		return fmt.Errorf("--max-connections %d: a number of connections cannot be negative", c.MaxConnections)
	case c.MaxBodies < 0:
		return fmt.Errorf("--max-bodies %d: a size cannot be negative", c.MaxBodies)
	case !(c.RateLimit >= 0):
		return fmt.Errorf("--rate-limit %v: a rate cannot be negative", c.RateLimit)
	case !(c.AddressRateLimit >= 0):
		return fmt.Errorf("--address-rate-limit %v: a rate cannot be negative", c.AddressRateLimit)
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key go together: give both or neither")
	case c.LoginLock != "" && c.LoginLock != auth.LockSlow && c.LoginLock != auth.LockReference:
		return fmt.Errorf("--login-lock %q: it is %s or %s", c.LoginLock, auth.LockSlow, auth.LockReference)
	}
	return nil
}
