package m2m

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config says where the API is and who calls it. BaseURL, Key and Secret are
// required.
type Config struct {
	BaseURL string // such as "https://simlatch.example.com"; APIPrefix and TokenPrefix are appended

	Key, Secret        string // of the application, for the OAuth2 token
	Username, Password string // of the user, for the session; without a user name no session is opened

	HTTPClient *http.Client // nil: one that gives a call a minute and follows no redirects
	UserAgent  string       // "": simlatch-m2m

	// Retries is how often a call is repeated that met 429, 503 or a broken
	// connection, when it is safe to; 0 is 3 times, less than 0 never.
	Retries int
}

// Client calls the API. It fetches the token and opens the session when they
// are first needed and again when the server says that they have expired.
//
// When the server refuses the credentials themselves, the client remembers that
// and answers every call with the same error instead of asking again, since
// repeated failures get a user locked out; Login or Token tries anew.
//
// A Client is safe for concurrent use.
type Client struct {
	base string
	cfg  Config
	http *http.Client

	renewing chan struct{} // holds one while token or session are renewed

	simlatch atomic.Bool // an answer said that the server is Simlatch

	mu       sync.Mutex // guards what follows
	token    string
	session  string
	password string
	refused  error // the server's refusal of the credentials
}

// New makes a client. It calls nobody.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("m2m: base URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("m2m: base URL %q is not of the form https://host", u.Redacted())
	}
	if cfg.Key == "" || cfg.Secret == "" {
		return nil, errors.New("m2m: the application's key and secret are required")
	}
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "simlatch-m2m")
	cfg.Retries = max(0, cmp.Or(cfg.Retries, 3))
	if cfg.HTTPClient == nil {
		transport := &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		}
		cfg.HTTPClient = &http.Client{
			Timeout: time.Minute, Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &Client{
		base: strings.TrimSuffix(cfg.BaseURL, "/"), cfg: cfg, http: cfg.HTTPClient,
		renewing: make(chan struct{}, 1), password: cfg.Password,
	}, nil
}

// CallOption changes one call.
type CallOption func(*call)

// WithIdempotencyKey gives a call the key under which Simlatch takes it for a
// repeat of an earlier one, for 24 hours: a program that stores the key before
// it calls can repeat the call after a crash. Without this option every call
// gets a key of its own.
func WithIdempotencyKey(key string) CallOption {
	return func(k *call) { k.key = key }
}

// WithoutRepeat sends a call once, whatever becomes of it: a call that may have
// arrived is not sent again. It is for servers that do not know the
// Idempotency-Key. A token or session that has expired is renewed all the same,
// since such a call was refused.
func WithoutRepeat() CallOption {
	return func(k *call) { k.once = true }
}

const licensePath = "/devices/license/actions/assign"

// Assign asks for licenses for devices and returns the id of the request. How
// each device ends is told to the account's listener.
//
// A refusal of the request as a whole is an *Error, to be compared with such as
// ErrInsufficientLicense by errors.Is.
func (c *Client) Assign(ctx context.Context, r LicenseRequest, opts ...CallOption) (requestID string, err error) {
	return c.license(ctx, http.MethodPost, r, opts)
}

// Unassign asks to take licenses back from devices and returns the id of the
// request. See Assign.
func (c *Client) Unassign(ctx context.Context, r LicenseRequest, opts ...CallOption) (requestID string, err error) {
	return c.license(ctx, http.MethodDelete, r, opts)
}

func (c *Client) license(ctx context.Context, method string, r LicenseRequest, opts []CallOption) (string, error) {
	var out RequestAccepted
	k := call{method: method, path: licensePath, in: r, out: &out, key: newKey(), safe: true}
	for _, o := range opts {
		o(&k)
	}
	if err := c.call(ctx, k); err != nil {
		return "", err
	}
	return out.RequestID, nil
}

// Action is what a LicenseRequest asks for.
type Action string

// The two actions.
const (
	ActionAssign   Action = "Assign"
	ActionUnassign Action = "Unassign"
)

// ErrNoDryRun says that a server cannot tell what a request would do.
var ErrNoDryRun = errors.New("m2m: the server has not said that it is Simlatch; another would carry the request out")

// Simlatch reports whether the server has said that it is Simlatch, by
// ServerHeader in an answer. It asks for a token where there has been none.
func (c *Client) Simlatch(ctx context.Context) (bool, error) {
	if !c.simlatch.Load() {
		if _, err := c.Token(ctx); err != nil {
			return false, err
		}
	}
	return c.simlatch.Load(), nil
}

// Plan tells what a request would do, and does nothing. Only Simlatch knows how
// to: the reference would carry the request out, in the case of a lifetime
// license for ever. So the request is sent only once an answer has had
// ServerHeader; Plan asks for a token to get one, and fails with ErrNoDryRun if
// that does not have it.
func (c *Client) Plan(ctx context.Context, action Action, r LicenseRequest) (Plan, error) {
	method := http.MethodPost
	if action == ActionUnassign {
		method = http.MethodDelete
	}
	switch known, err := c.Simlatch(ctx); {
	case err != nil:
		return Plan{}, err
	case !known:
		return Plan{}, ErrNoDryRun
	}
	var out struct {
		Plan
		RequestAccepted
	}
	err := c.call(ctx, call{method: method, path: licensePath, in: r, out: &out, dryRun: true})
	if err == nil && !out.DryRun {
		err = fmt.Errorf("m2m: the server knows no dry run: it accepted the request as %s", out.RequestID)
	}
	return out.Plan, err
}

// Subscriptions lists the license pools of an account, or the one of a SKU where
// sku is not empty.
func (c *Client) Subscriptions(ctx context.Context, account, sku string) (Subscriptions, error) {
	var out Subscriptions
	return out, c.call(ctx, call{
		method: http.MethodPost, path: "/accounts/subscriptions/actions/list",
		in: SubscriptionsRequest{AccountName: account, SKUNumber: sku}, out: &out, safe: true,
	})
}

// Account describes an account.
func (c *Client) Account(ctx context.Context, account string) (Account, error) {
	var out Account
	return out, c.call(ctx, call{method: http.MethodGet, path: join("accounts", account), out: &out, safe: true})
}

// RequestStatus tells how a request stands as a whole.
func (c *Client) RequestStatus(ctx context.Context, account, requestID string) (RequestStatus, error) {
	var out RequestStatus
	return out, c.call(ctx, call{
		method: http.MethodGet, path: join("accounts", account, "requests", requestID, "status"),
		out: &out, safe: true,
	})
}

// Wait asks for the status of a request until that is no longer StatusPending,
// at first often and then every 10 seconds. It fails when ctx ends or a call
// does.
func (c *Client) Wait(ctx context.Context, account, requestID string) (RequestStatus, error) {
	for pause := 100 * time.Millisecond; ; pause = min(pause*3/2, 10*time.Second) {
		s, err := c.RequestStatus(ctx, account, requestID)
		if err != nil || s.Status != StatusPending {
			return s, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return s, ctx.Err()
		}
	}
}

// CarrierService is the service whose listener is told how assign and unassign
// ended.
const CarrierService = "CarrierService"

// Listeners lists the account's callback listeners.
func (c *Client) Listeners(ctx context.Context, account string) ([]Listener, error) {
	var out []Listener
	return out, c.call(ctx, call{method: http.MethodGet, path: join("callbacks", account), out: &out, safe: true})
}

// RegisterListener registers a callback listener, in place of the one the
// account has for that service.
func (c *Client) RegisterListener(ctx context.Context, account string, l ListenerRequest) (ListenerAnswer, error) {
	var out ListenerAnswer
	return out, c.call(ctx, call{method: http.MethodPost, path: join("callbacks", account), in: l, out: &out, safe: true})
}

// DeregisterListener removes the account's listener for a service, such as
// CarrierService.
func (c *Client) DeregisterListener(ctx context.Context, account, service string) (ListenerAnswer, error) {
	var out ListenerAnswer
	return out, c.call(ctx, call{method: http.MethodDelete, path: join("callbacks", account, "name", service), out: &out})
}

// Devices goes through all devices that r selects, page by page. It ends with
// the first error.
func (c *Client) Devices(ctx context.Context, r DeviceListRequest) iter.Seq2[DeviceInfo, error] {
	return func(yield func(DeviceInfo, error) bool) {
		for {
			page, err := c.DevicePage(ctx, r)
			if err != nil {
				yield(DeviceInfo{}, err)
				return
			}
			last := r.LargestDeviceIDSeen
			for _, d := range page.Devices {
				last = max(last, d.number())
				if !yield(d, nil) {
					return
				}
			}
			if !page.HasMoreData {
				return
			}
			if last == r.LargestDeviceIDSeen {
				yield(DeviceInfo{}, errors.New("m2m: there are more devices, but none of these has a DeviceId to go on from"))
				return
			}
			r.LargestDeviceIDSeen = last
		}
	}
}

// DevicePage lists one page of devices. The next is asked for with the largest
// DeviceId of this one as LargestDeviceIDSeen.
func (c *Client) DevicePage(ctx context.Context, r DeviceListRequest) (DeviceList, error) {
	var out DeviceList
	return out, c.call(ctx, call{method: http.MethodPost, path: "/devices/actions/list", in: r, out: &out, safe: true})
}

// number is the device's DeviceId, 0 where it has none.
func (d DeviceInfo) number() int64 {
	for _, a := range d.ExtendedAttributes {
		if a.Key == "DeviceId" {
			n, _ := strconv.ParseInt(a.Value, 10, 64) // 0 is the answer then
			return n
		}
	}
	return 0
}

// join makes a path of parts, of which some come from callers.
func join(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

// encode is the JSON of a request body; nil has none.
func encode(v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("m2m: encoding the request: %w", err)
	}
	return b, nil
}
