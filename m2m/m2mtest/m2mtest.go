// Package m2mtest gives a test a whole Simlatch, with accounts, pools, devices
// and a simulated carrier, in one line:
//
//	func TestFleet(t *testing.T) {
//		s := m2mtest.NewServer(t)
//		id, err := s.Client.Assign(t.Context(), m2m.LicenseRequest{
//			AccountName: s.Account, SKUNumber: m2mtest.SKUFlexible, Devices: s.Devices[:3],
//		})
//		…
//	}
//
// It is the server itself and no imitation: the same HTTP API, the same rules,
// the same ledger, in a database in memory that is gone when the test is over.
// Only the carrier is simulated, so no SIM is really licensed. A program that
// does not use package m2m is given [Server.URL] and the credentials.
//
// # What is there
//
// An application and a user, an account with 10 devices that are active and 4G
// and hold no license, and 100 licenses of each SKU. [WithDevices], [WithPool]
// and [WithAccount] ask for something else.
//
// # What goes wrong
//
// The carrier succeeds at once. [Server.Refuse] has it refuse devices of the
// test's choice, [WithRefusals] a share of all, and [WithCarrierDelay] has it
// take its time. [WithMaxDevices] and [WithRateLimit] make the API refuse what is
// too much. What the API refuses by itself, such as a device that is suspended,
// needs no more than a device that is: see [WithAccount].
//
// # Callbacks
//
// [Server.Listen] registers a listener and collects what it is told. A program's
// own listener is registered like anywhere else, by
// [m2m.Client.RegisterListener]; it may be on loopback. Messages that are not
// acknowledged come again after 100 ms and not after the usual 5 minutes;
// [WithCallbackSchedule] says otherwise.
//
// # Time
//
// [WithStoppedClock] stops the server's clock, and [Server.Advance] moves it on:
// an hour, with all that falls due in it, takes some milliseconds. Tokens,
// sessions, the carrier's delay and the schedule of callbacks live by it.
//
//	s := m2mtest.NewServer(t, m2mtest.WithStoppedClock())
//	…
//	s.Settle(t)                   // the first attempt of each callback was made
//	s.Advance(t, 5*time.Minute)   // and the second
//
// The server is a sandbox: what that can do beyond this, such as faults and a
// journal, is under /sandbox/v1 of its URL (docs/sandbox.md).
package m2mtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/m2m"
)

// The SKUs that the reference documents.
const (
	SKUFlexible     = "SIMSec-IoT"
	SKULifetime     = "SIMSec-IoT-Lt" // cannot be unassigned
	SKUBundle       = "TS-BUNDLE-KTO-SIMSEC-MRC"
	SKUIntelligence = "TSS-IOT-INTLG-TIERED-SIMSEC"
)

// Server is a running Simlatch.
type Server struct {
	URL string // of the server, such as "http://127.0.0.1:40001"

	Key, Secret        string // of the application
	Username, Password string // of the user, who has access to all accounts

	Account  string       // the first of Accounts
	Accounts []string     // all there are
	Devices  []m2m.Device // of Account, in the order they were asked for
	Client   *m2m.Client  // with these credentials

	devices map[string][]m2m.Device // by account
	dir     string
	sandbox *server.Sandbox
	stop    func() error

	mu      sync.Mutex // guards refused
	refused map[string]bool
}

// NewServer starts a server that ends with the test. When the test has failed,
// the server's log is in its output.
func NewServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	log := &logBuffer{}
	logged := append([]Option{WithLogger(slog.New(slog.NewTextHandler(log, nil)))}, opts...)
	s, err := Start(logged...)
	if err != nil {
		t.Fatalf("m2mtest: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("m2mtest: ending the server: %v", err)
		}
		if t.Failed() && log.text() != "" {
			t.Logf("the server's log:\n%s", log.text())
		}
	})
	return s
}

// Start starts a server outside of a test, such as in an example or for a
// demonstration. Close ends it.
func Start(opts ...Option) (*Server, error) {
	o, err := optionsOf(opts)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "m2mtest-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Key: "test-key", Secret: "test-secret-of-an-application", Username: "test-user", Password: "test-password",
		dir: dir, refused: map[string]bool{}, devices: map[string][]m2m.Device{},
	}
	for _, a := range o.accounts {
		s.Accounts = append(s.Accounts, a.Name)
		for _, d := range a.Devices {
			s.devices[a.Name] = append(s.devices[a.Name], m2m.NewDevice(d.IMEI, d.ICCID))
		}
	}
	s.Account = s.Accounts[0]
	s.Devices = s.devices[s.Account]
	if err := s.start(o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *Server) start(o *options) (err error) {
	seed, err := s.seed(o)
	if err != nil {
		return fmt.Errorf("writing the seed: %w", err)
	}
	cfg := server.SandboxConfig{
		Logger: o.logger, CarrierDelay: o.carrierDelay, CarrierRefuseRate: o.refuseRate, CarrierRefuses: s.refuses,
		CallbackAttempts: o.attempts, CallbackInterval: o.interval, CallbackTimeout: o.timeout,
		MaxDevices: o.maxDevices, RateLimit: o.rateLimit,
	}
	cfg.Seed = seed
	if o.stopped {
		cfg.Rate = new(float64)
	}
	if err := s.serve(cfg); err != nil {
		return err
	}
	s.Client, err = s.NewClient(nil)
	return err
}

// serve runs a sandbox until Close. It is the one place that knows what a server
// is made of.
func (s *Server) serve(cfg server.SandboxConfig) error {
	cfg.Listen = "127.0.0.1:0"
	ctx, cancel := context.WithCancel(context.Background())
	box, err := server.NewSandbox(ctx, cfg)
	if err != nil {
		cancel()
		return err
	}
	info, err := box.Info(ctx)
	if err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- box.Run(ctx) }()
	s.URL, s.sandbox = info.URL, box
	s.stop = func() error {
		cancel()
		return <-ended
	}
	return nil
}

// Close ends the server and removes what it had. NewServer does so by itself.
func (s *Server) Close() error {
	return errors.Join(s.stop(), os.RemoveAll(s.dir))
}

// Now is the server's time.
func (s *Server) Now() time.Time { return s.sandbox.Box().Clock().Now() }

// Advance moves the server's clock on, through every moment at which something
// falls due, and waits until that is done. It is for WithStoppedClock; elsewhere
// the clock goes on by itself as well.
func (s *Server) Advance(t testing.TB, d time.Duration) {
	t.Helper()
	if _, err := s.sandbox.Box().Advance(context.Background(), d); err != nil {
		t.Fatalf("m2mtest: moving the clock on: %v", err)
	}
}

// Settle waits until the server has nothing to do and nothing is due: all that
// could be asked of the carrier and told to listeners by now was.
func (s *Server) Settle(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.sandbox.Box().Settle(ctx); err != nil {
		t.Fatalf("m2mtest: waiting for the end of all work: %v", err)
	}
}

// NewClient makes another client of the server. Change may change its
// configuration before, such as to use other credentials or another transport;
// nil changes nothing.
func (s *Server) NewClient(change func(*m2m.Config)) (*m2m.Client, error) {
	cfg := m2m.Config{BaseURL: s.URL, Key: s.Key, Secret: s.Secret, Username: s.Username, Password: s.Password}
	if change != nil {
		change(&cfg)
	}
	return m2m.New(cfg)
}

// DevicesOf lists the devices of an account.
func (s *Server) DevicesOf(account string) []m2m.Device { return s.devices[account] }

// Refuse has the carrier refuse devices from now on, be it to assign or to
// unassign. The request is accepted all the same; the callback tells.
func (s *Server) Refuse(devices ...m2m.Device) { s.setRefused(devices, true) }

// Relent takes back what Refuse did.
func (s *Server) Relent(devices ...m2m.Device) { s.setRefused(devices, false) }

func (s *Server) setRefused(devices []m2m.Device, refused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range devices {
		s.refused[s.iccid(d)] = refused
	}
}

// iccid is that of a device that may have been named by its IMEI alone.
func (s *Server) iccid(d m2m.Device) string {
	if id := d.ICCID(); id != "" {
		return id
	}
	for _, devices := range s.devices {
		for _, known := range devices {
			if known.IMEI() == d.IMEI() {
				return known.ICCID()
			}
		}
	}
	return ""
}

func (s *Server) refuses(iccid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[iccid]
}

// logBuffer keeps the server's log until it is known whether it is wanted.
type logBuffer struct {
	mu sync.Mutex // guards b
	b  []byte
}

// Write implements io.Writer.
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	return len(p), nil
}

func (l *logBuffer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
