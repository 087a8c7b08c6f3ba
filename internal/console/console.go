// Package console serves the operator's pages, /console. docs/console.md walks
// through them.
//
// Its pages are a client of the operator API, in the same process and on behalf of
// who is signed in (ask.go): so everything that they do, the API does too, roles are
// enforced in one place, and a form that is sent twice counts once, by its
// idempotency key. The pages are made on the server, by templ, and can be read
// without script; a small script keeps what they show up to date.
package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

//go:generate go tool -modfile=../../tools/templ/go.mod templ generate -path . -include-version=false -lazy=false -log-level=warn

// Prefix is where the console is.
const Prefix = "/console"

// Sessions signs operators in and out.
type Sessions interface {
	SignIn(ctx context.Context, name string, password auth.Secret, from string) (auth.Secret, auth.Operator, error)
	SignedIn(ctx context.Context, token auth.Secret) (auth.Operator, error)
	SignOut(ctx context.Context, token auth.Secret) error
}

// Config sets a console up. Sessions, Operator and Clock are needed.
type Config struct {
	Sessions Sessions
	Operator http.Handler // the operator API
	Clock    license.Clock
	// Record writes down in the audit that an operator signed in or out; nil: it is
	// not.
	Record func(ctx context.Context, who license.Actor, action string) error
	Logger *slog.Logger // nil: nothing is logged
	// Secure is that browsers reach us by TLS: cookies are for TLS alone.
	Secure bool
	// Simulated is that the carrier is the simulated one, which each page says.
	Simulated bool
}

// Console serves the pages.
type Console struct {
	cfg     Config
	mux     *http.ServeMux
	handler http.Handler // mux, behind its guard
	imports *imports
}

// New makes a console.
func New(cfg Config) (*Console, error) {
	if cfg.Sessions == nil || cfg.Operator == nil || cfg.Clock == nil {
		return nil, errors.New("console: Config.Sessions, Operator and Clock are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Console{cfg: cfg, imports: newImports(), mux: http.NewServeMux()}
	c.routes(c.mux)
	// Browsers say whence a form comes: no other site's is taken.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.visit(w, r).fail(http.StatusForbidden, "This form came from another site", "Nothing was changed. Open the console by its own address and try again.")
	}))
	c.handler = guard.Handler(c.mux)
	return c, nil
}

// policy is what a page may load: what is ours, and nothing inline.
const policy = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

// ServeHTTP answers one request.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
	if c.secure(r) {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	c.handler.ServeHTTP(w, r)
}

// secure reports whether the browser came by TLS, to us or to a proxy before us.
func (c *Console) secure(r *http.Request) bool {
	return c.cfg.Secure || r.Header.Get("X-Forwarded-Proto") == "https"
}

// Run ends what was uploaded and not imported, in time, until ctx ends.
func (c *Console) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			c.imports.wait()
			return nil
		case <-tick.C:
			c.imports.forget(time.Now())
		}
	}
}
