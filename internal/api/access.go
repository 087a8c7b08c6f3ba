package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/m2m"
)

// access is what a route asks of its caller.
type access int

const (
	needClient  access = iota // the key and secret of an application, in a Basic header
	needBearer                // an application's bearer token
	needSession               // that and a user's session
)

// authenticate finds out who calls, and whether they may already.
func (c *call) authenticate(ctx context.Context, need access) error {
	if err := c.api.addresses.allow(network(c.address()), c.api.cfg.Clock.Now()); err != nil {
		return err
	}
	if need == needClient {
		return c.checkBasic()
	}
	app, err := c.bearer(ctx)
	if err != nil {
		return err
	}
	c.Application = app
	if err := c.oneSession(); err != nil {
		return err
	}
	if need == needSession {
		token, err := c.sessionToken()
		if err != nil {
			return err
		}
		caller, err := c.api.cfg.Auth.Session(ctx, app, token)
		if err != nil {
			return err
		}
		c.Caller = caller
	}
	return c.api.limits.allow(app, c.api.cfg.Clock.Now())
}

// bearer finds the application of the call's bearer token.
func (c *call) bearer(ctx context.Context) (string, error) {
	headers := c.r.Header.Values("Authorization")
	switch {
	case len(headers) > 1, queryHas(c.r.URL, "access_token", "authorization", "bearer"):
		return "", errInvalidBearer(c.family)
	case len(headers) == 0:
		return "", errMissingBearer()
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errMissingBearer()
	}
	app, err := c.api.cfg.Auth.Bearer(ctx, auth.Secret(token))
	if errors.Is(err, auth.ErrBearer) {
		return "", errInvalidBearer(c.family)
	}
	return app, err
}

// oneSession refuses a session token that is given twice or in the query, where
// logs would keep it.
func (c *call) oneSession() error {
	if len(c.r.Header.Values(m2m.SessionHeader)) > 1 || queryHas(c.r.URL, m2m.SessionHeader, "sessionToken") {
		return errSessionInvalid("The session token must be given once, in the header " + m2m.SessionHeader + ".")
	}
	return nil
}

// canonicalUUID is the length of the one form of a UUID that is a token; the
// library knows others.
const canonicalUUID = 36

// sessionToken is the session token of the call. It is a UUID or no token.
func (c *call) sessionToken() (auth.Secret, error) {
	token := strings.TrimSpace(c.r.Header.Get(m2m.SessionHeader))
	if token == "" {
		return "", errSessionInvalid("The header " + m2m.SessionHeader + " is required.")
	}
	if len(token) != canonicalUUID || uuid.Validate(token) != nil {
		return "", errSessionInvalid("The session token is not a valid GUID.")
	}
	return auth.Secret(token), nil
}

// checkBasic looks at the form of a Basic header; whether it names an
// application is seen when the token is issued.
func (c *call) checkBasic() error {
	switch headers := c.r.Header.Values("Authorization"); {
	case len(headers) > 1:
		return errInvalidClient(c.family)
	case queryHas(c.r.URL, "access_token", "token", "client_secret"):
		return errTokenRequest("Credentials and tokens are not accepted in the query.")
	case len(headers) == 0:
		return errMissingClient()
	default:
		scheme, _, _ := strings.Cut(headers[0], " ")
		if !strings.EqualFold(scheme, "Basic") {
			return errMissingClient()
		}
		if _, _, ok := c.r.BasicAuth(); !ok {
			return errInvalidClient(c.family)
		}
		return nil
	}
}

// client is the application's key and secret, once checkBasic has passed.
func (c *call) client() (key string, secret auth.Secret) {
	key, s, _ := c.r.BasicAuth()
	return storable(key), auth.Secret(s)
}

// queryHas reports whether the query has one of the names, in any case.
func queryHas(u *url.URL, names ...string) bool {
	if u.RawQuery == "" {
		return false
	}
	for key := range u.Query() {
		for _, name := range names {
			if strings.EqualFold(key, name) {
				return true
			}
		}
	}
	return false
}

// address is where the call comes from, by which failed logins are counted.
func (c *call) address() string { return addressOf(c.r.RemoteAddr) }

func addressOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	host, _, _ = strings.Cut(host, "%") // the zone of a link-local address
	return host
}

// network is what counts as one address: of IPv6, what one customer has at least.
func network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil || addr.Is4() || addr.Is4In6() {
		return address
	}
	prefix, _ := addr.Prefix(64) // it has as many bits
	return prefix.String()
}

// maxStorable is the longest text from a client that is stored as it is.
const maxStorable = 255

// storable turns a name that a client made up into one that any database can
// hold and that takes no space to speak of: itself where it is short and
// printable, otherwise a hash. It still is another name for another input.
func storable(s string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) }
	if len(s) <= maxStorable && utf8.ValidString(s) && strings.IndexFunc(s, odd) < 0 {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// maxKept is how many callers limits keeps count of. Beyond that those who have
// not called for a while are forgotten, and then all.
const maxKept = 10_000

// limits holds back applications, or addresses, that call too often.
type limits struct {
	perSecond float64 // on all nodes together; 0: no limit
	nodes     func() int

	mu    sync.Mutex
	byApp map[string]*rate.Limiter // or by address
}

func newLimits(perSecond float64, nodes func() int) *limits {
	return &limits{perSecond: perSecond, nodes: nodes, byApp: map[string]*rate.Limiter{}}
}

// allow counts a call of the application. This node's share of the limit moves
// with the number of nodes.
func (l *limits) allow(app string, now time.Time) error {
	if wait, ok := l.take(app, now); !ok {
		return errTooManyCalls(wait)
	}
	return nil
}

// take is allow for those who say it otherwise.
func (l *limits) take(app string, now time.Time) (wait time.Duration, ok bool) {
	if l.perSecond == 0 {
		return 0, true
	}
	share := rate.Limit(l.perSecond / float64(max(l.nodes(), 1)))
	burst := max(1, int(math.Ceil(float64(share))))
	l.mu.Lock()
	limiter := l.byApp[app]
	if limiter == nil {
		l.sweep(now)
		limiter = rate.NewLimiter(share, burst)
		l.byApp[app] = limiter
	}
	l.mu.Unlock()
	if limiter.Limit() != share {
		limiter.SetLimitAt(now, share)
		limiter.SetBurstAt(now, burst)
	}
	r := limiter.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait == 0 {
		return 0, true
	}
	r.CancelAt(now) // a refused call uses nothing up
	return wait, false
}

// An AddressLimit holds addresses back that call too often, for others than an API.
type AddressLimit struct{ limits *limits }

// NewAddressLimit makes a limit of so many calls a second from each address, or IPv6
// /64, on nodes together; 0 is none.
func NewAddressLimit(perSecond float64, nodes func() int) *AddressLimit {
	return &AddressLimit{newLimits(perSecond, nodes)}
}

// Wait counts a call from a remote address, as net/http has it; where there were too
// many, it says how long to wait, and the call counts for nothing.
func (l *AddressLimit) Wait(remote string, now time.Time) time.Duration {
	wait, _ := l.limits.take(network(addressOf(remote)), now)
	return wait
}

// sweep makes room for one more.
func (l *limits) sweep(now time.Time) {
	if len(l.byApp) < maxKept {
		return
	}
	maps.DeleteFunc(l.byApp, func(_ string, r *rate.Limiter) bool { return r.TokensAt(now) >= float64(r.Burst()) })
	if len(l.byApp) >= maxKept {
		clear(l.byApp)
	}
}
