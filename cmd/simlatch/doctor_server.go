package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/m2m"
)

// Bounds of what is good.
const (
	clockWarn = 30 * time.Second
	clockFail = 5 * time.Minute // from then on signatures of callbacks do not count
	certWarn  = 14 * 24 * time.Hour
)

// lookAtServer makes the checks of a client. Each needs the one before it.
func (d *doctor) lookAtServer(cmd *cobra.Command) {
	rest := []string{"server", "clock", "credentials", "session", "account", "listener"}
	p, err := profileOf(cmd, true)
	switch {
	case err != nil:
		d.fail("server", "", "%v", err)
		d.skip("which server to ask is not known", rest[1:]...)
		return
	case p.server == "":
		d.skip("no server is stored or named", rest...)
		return
	}
	answered := d.within(cmd.Context(), func(ctx context.Context) bool { return d.lookAtURL(ctx, &p) })
	if !answered {
		d.skip("the server does not answer", rest[1:]...)
		return
	}
	client, p, err := clientOf(cmd, func(cfg *m2m.Config) { cfg.Retries = -1 })
	if err != nil {
		d.fail("credentials", "simlatch login stores them", "%v", err)
		d.skip("there are no credentials", rest[3:]...)
		return
	}
	for i, look := range []func(ctx context.Context, client *m2m.Client, p *clientProfile) bool{
		d.lookAtCredentials, d.lookAtSession, d.lookAtAccount, d.lookAtListener,
	} {
		good := d.within(cmd.Context(), func(ctx context.Context) bool { return look(ctx, client, &p) })
		if !good {
			d.skip("see "+rest[2+i], rest[3+i:]...) //nolint:gosec // rest names all of these checks
			return
		}
	}
}

// within bounds the time of a check.
func (d *doctor) within(ctx context.Context, look func(context.Context) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, d.o.timeout)
	defer cancel()
	return look(ctx)
}

// fetched is an answer to a GET.
type fetched struct {
	status int
	header http.Header
	body   []byte // its beginning
	tls    *tls.ConnectionState
	took   time.Duration
	at     time.Time // half-way, when the server wrote its date
}

// fetch gets a URL by a connection of its own, and follows nothing.
func (p *clientProfile) fetch(ctx context.Context, url string) (*fetched, error) {
	transport, err := p.transport()
	if err != nil {
		return nil, err
	}
	transport.DisableKeepAlives = true
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	resp, err := (&http.Client{Transport: transport, CheckRedirect: noRedirect}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	took := time.Since(start)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what could be read of it counts
	return &fetched{resp.StatusCode, resp.Header, body, resp.TLS, took, start.Add(took / 2)}, nil
}

// lookAtURL looks whether the server answers, and what it says of itself.
func (d *doctor) lookAtURL(ctx context.Context, p *clientProfile) bool {
	server := p.server
	ready, err := p.fetch(ctx, server+"/readyz")
	if err != nil {
		d.fail("server", unreachable(server, err), "%s: %v", server, cause(err))
		return false
	}
	var state struct{ Status, Reason string }
	ours := json.Unmarshal(ready.body, &state) == nil && state.Status != ""
	switch {
	case !ours:
		d.ok("server", "%s answers in %s; it is not Simlatch, or something stands before it", server, ready.took.Round(time.Millisecond))
	case ready.status != http.StatusOK:
		d.fail("server", "look into its log", "%s is not ready: %s", server, cmp.Or(state.Reason, state.Status))
	default:
		d.ok("server", "%s answers in %s%s", server, ready.took.Round(time.Millisecond), p.ofVersion(ctx))
	}
	if risk := plainRisk(server); risk != "" {
		d.warn("server", "serve with --tls-cert and --tls-key", "%s", risk)
	}
	if t := ready.tls; t != nil && time.Until(t.PeerCertificates[0].NotAfter) < certWarn {
		d.warn("server", "renew it", "its certificate ends at %s", t.PeerCertificates[0].NotAfter.Format(time.RFC3339))
	}
	d.lookAtClock(ready)
	return true
}

// ofVersion is what Simlatch says of itself; empty where it says nothing.
func (p *clientProfile) ofVersion(ctx context.Context) string {
	var v struct{ Version, Engine, Carrier, Notice string }
	answer, err := p.fetch(ctx, p.server+"/version")
	if err != nil || json.Unmarshal(answer.body, &v) != nil || v.Version == "" {
		return ""
	}
	return fmt.Sprintf(": Simlatch %s on %s, carrier %s", v.Version, v.Engine, v.Carrier)
}

func (d *doctor) lookAtClock(f *fetched) {
	theirs, err := http.ParseTime(f.header.Get("Date"))
	if err != nil {
		d.skip("the server does not tell the time", "clock")
		return
	}
	// Date has whole seconds: the middle of one is the best guess.
	off := f.at.Sub(theirs.Add(500 * time.Millisecond)).Round(time.Second)
	direction := "behind"
	if off > 0 {
		direction = "ahead of"
	}
	const remedy = "keep the time of both by NTP"
	switch {
	case off.Abs() >= clockFail:
		d.fail("clock", remedy, "this machine is %s %s the server: signatures of callbacks will not count", off.Abs(), direction)
	case off.Abs() >= clockWarn:
		d.warn("clock", remedy, "this machine is %s %s the server", off.Abs(), direction)
	default:
		d.ok("clock", "it agrees with the server's within %s", max(off.Abs(), time.Second))
	}
}

func (d *doctor) lookAtCredentials(ctx context.Context, client *m2m.Client, p *clientProfile) bool {
	if _, err := client.Token(ctx); err != nil {
		d.fail("credentials", "simlatch login, with a key and secret that 'simlatch application' knows", "application %s: %v", p.key, err)
		return false
	}
	d.ok("credentials", "application %s has its token", p.key)
	return true
}

func (d *doctor) lookAtSession(ctx context.Context, client *m2m.Client, p *clientProfile) bool {
	err := client.Login(ctx)
	switch {
	case errors.Is(err, m2m.ErrTooManyRequests):
		d.fail("session", "wait as long as it says, or have the operator run 'simlatch user unlock "+p.user+"'", "user %s: too many failed logins: %v", p.user, err)
	case err != nil:
		d.fail("session", "simlatch login, with a user and password that 'simlatch user' knows", "user %s: %v", p.user, err)
	default:
		d.ok("session", "user %s is logged in", p.user)
	}
	return err == nil
}

func (d *doctor) lookAtAccount(ctx context.Context, client *m2m.Client, p *clientProfile) bool {
	name, err := p.account(ctx, client)
	var pools m2m.Subscriptions
	if err == nil {
		pools, err = client.Subscriptions(ctx, name, "")
	}
	switch {
	case errors.Is(err, m2m.ErrMultipleAccounts):
		d.fail("account", "name one with --account, or store it with simlatch login", "user %s has access to more than one", p.user)
	case errors.Is(err, m2m.ErrNoAccounts):
		d.fail("account", "the operator gives access with 'simlatch user grant "+p.user+" --account NAME'", "user %s has access to none", p.user)
	case errors.Is(err, m2m.ErrAccountNotFound):
		d.fail("account", "look whether --account is right; the operator gives access with 'simlatch user grant'", "%s: user %s has no access to it, or it does not exist", name, p.user)
	case err != nil:
		d.fail("account", "", "%v", err)
	case len(pools.SubscriptionList) == 0:
		d.warn("account", "the operator adds some with 'simlatch pool add'", "%s has no licenses", name)
	default:
		d.ok("account", "%s has %d license pools", name, len(pools.SubscriptionList))
	}
	return err == nil
}

// lookAtListener looks whether the account's listener can be reached from here,
// which is not to say from the server.
func (d *doctor) lookAtListener(ctx context.Context, client *m2m.Client, p *clientProfile) bool {
	listeners, err := client.Listeners(ctx, p.acct)
	if err != nil {
		d.fail("listener", "", "%v", err)
		return false
	}
	for _, l := range listeners {
		if l.ServiceName != m2m.CarrierService {
			continue
		}
		answer, err := p.fetch(ctx, l.URL)
		switch {
		case err != nil:
			d.fail("listener", "start it, or register another with 'simlatch callbacks register'", "%s cannot be reached from here: %v", l.URL, cause(err))
		case answer.status >= 500:
			d.warn("listener", "look into its log", "%s answers a GET with %d", l.URL, answer.status)
		default:
			d.ok("listener", "%s answers", l.URL)
		}
		return true
	}
	d.warn("listener", "register one with 'simlatch callbacks register URL'", "none is registered for %s: nobody is told how requests end", m2m.CarrierService)
	return true
}

// unreachable says what to do about a server that does not answer.
func unreachable(server string, err error) string {
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &dns):
		return "look whether the name is right, and known here"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "start it, or look whether host and port are right"
	case errors.As(err, &authority):
		return "name the authority's certificate with --tls-ca"
	case errors.As(err, &host):
		return "call it by a name that its certificate has"
	case errors.As(err, &invalid):
		return "renew its certificate, and look at the clock of this machine"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it speaks plain HTTP: begin the URL with http://"
	case errors.Is(err, context.DeadlineExceeded):
		return "look whether a firewall stands between, or give it longer with --timeout"
	}
	return "look whether " + server + " is right"
}

// cause is what lies behind an error of a call, without the call.
func cause(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
