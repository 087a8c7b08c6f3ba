package carrier

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
)

// HTTPConfig sets an HTTP up. Only URL is required.
type HTTPConfig struct {
	// URL is where batches are posted: http or https, without user and fragment.
	URL string
	// Token, when not empty, is sent as a bearer token.
	Token string
	// Secret, when not empty, signs each call by Standard Webhooks; it is base64,
	// with or without "whsec_" before it.
	Secret string
	// Certificate, when not nil, is who we are by mutual TLS. It is called for
	// each handshake.
	Certificate func() (*tls.Certificate, error)
	// RootCAs are whom we trust to say who the carrier is; nil is the machine's.
	RootCAs *x509.CertPool

	Clock   license.Clock         // nil: the machine's
	Logger  *slog.Logger          // nil: logs nothing
	Metrics prometheus.Registerer // nil: counts for nobody
}

// HTTP is a provisioning system out of process, in whatever language. A batch of
// tasks is posted to it as JSON; its answer has outcomes by key, in any order and
// not necessarily all. What it says neither in time nor in form is unknown, never
// a refusal.
type HTTP struct {
	cfg       HTTPConfig
	url       *url.URL
	webhook   *standardwebhooks.Webhook // nil: calls are not signed
	transport *http.Transport
	metrics   *httpMetrics
	strange   func(oddities) // is told of each answer that has some; may be nil

	mu    sync.Mutex // guards what follows
	quiet time.Time  // until then it asked to be left alone
	told  time.Time  // when the log last told of an odd answer
}

const (
	// maxAnswer is the largest answer that is read: 500 outcomes have some 100 KiB,
	// and with the longest texts ten times that.
	maxAnswer = 2 << 20
	// maxQuiet is how long a carrier can have all calls held back at most. The
	// tasks of the call that it answered so wait as long as it said.
	maxQuiet = 5 * time.Minute
	// maxRetryAfter is the longest Retry-After that is believed.
	maxRetryAfter = 24 * time.Hour
	// tellAgain is how often the log tells of odd answers, at most.
	tellAgain = time.Minute
)

// ParseURL checks the URL of a carrier.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is no URL") // url.Parse quotes all of it, a password too
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("it must begin with http:// or https://")
	case u.Hostname() == "":
		return nil, errors.New("it has no host")
	case u.User != nil:
		return nil, errors.New("it must hold no user and password: give a token, a certificate or a signing secret")
	case u.Fragment != "":
		return nil, errors.New("it must have no fragment")
	}
	return u, nil
}

// CheckSecret says whether a signing secret can be used.
func CheckSecret(secret string) error {
	if _, err := standardwebhooks.NewWebhook(secret); err != nil || strings.TrimPrefix(secret, "whsec_") == "" {
		return errors.New("a signing secret is base64, with or without whsec_ before it")
	}
	return nil
}

// NewHTTP makes an HTTP. It fails when the URL or the secret cannot be used or a
// metric is registered already; it calls nobody.
func NewHTTP(cfg HTTPConfig) (*HTTP, error) {
	u, err := ParseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("the carrier's URL: %w", err)
	}
	h := &HTTP{cfg: cfg, url: u}
	if cfg.Secret != "" {
		if err := CheckSecret(cfg.Secret); err != nil {
			return nil, fmt.Errorf("the carrier's secret: %w", err)
		}
		if h.webhook, err = standardwebhooks.NewWebhook(cfg.Secret); err != nil {
			return nil, fmt.Errorf("the carrier's secret: %w", err)
		}
	}
	if h.cfg.Clock == nil {
		h.cfg.Clock = license.SystemClock{}
	}
	if h.cfg.Logger == nil {
		h.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if h.metrics, err = newHTTPMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	h.transport = newTransport(cfg)
	return h, nil
}

// newTransport makes the carrier's connections. The time of a call is bounded by
// its context, and RoundTrip is called directly, so that no redirect is followed.
func newTransport(cfg HTTPConfig) *http.Transport {
	secure := &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12}
	if cfg.Certificate != nil {
		secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cfg.Certificate() }
	}
	return &http.Transport{
		Proxy:                  nil, // it would read the environment
		DialContext:            (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        secure,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
		DisableCompression:     true, // so that the bound on an answer is one on what is kept
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// callError is why nothing is known of a call's tasks. Its kind is a label of the
// metrics.
type callError struct {
	kind string
	err  error
}

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

func callErrorf(kind, format string, args ...any) error {
	return &callError{kind, fmt.Errorf(format, args...)}
}

// Provision posts the tasks and returns an outcome for each of them, in their
// order. An error means that nothing is known of any.
func (h *HTTP) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	if err := h.heldBack(); err != nil {
		return nil, err
	}
	said, err := h.ask(ctx, tasks)
	h.metrics.call(err)
	if err != nil {
		return nil, fmt.Errorf("asking the carrier: %w", err)
	}
	out, odd := answer(tasks, said, h.cfg.Clock.Now())
	if odd != (oddities{}) {
		h.tell(ctx, odd, tasks)
	}
	return out, nil
}

func (h *HTTP) ask(ctx context.Context, tasks []license.Task) ([]outcomeMessage, error) {
	body, err := encodeCall(tasks)
	if err != nil {
		return nil, err
	}
	req, err := h.request(ctx, body, h.cfg.Clock.Now())
	if err != nil {
		return nil, err
	}
	answer, err := h.exchange(req)
	if err != nil {
		return nil, err
	}
	said, err := decodeOutcomes(answer)
	if err != nil {
		return nil, callErrorf(callGarbage, "the answer cannot be read: %w", err)
	}
	return said, nil
}

// request makes the request of a call at a time.
func (h *HTTP) request(ctx context.Context, body []byte, now time.Time) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making the call: %w", err)
	}
	id := "call_" + rand.Text()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "Simlatch")
	if trace := tracing.Of(ctx); trace != "" {
		req.Header.Set(tracing.Header, trace)
	}
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if h.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+h.cfg.Token)
	}
	if h.webhook != nil {
		signature, err := h.webhook.Sign(id, now, body)
		if err != nil {
			return nil, fmt.Errorf("signing the call: %w", err)
		}
		req.Header.Set("Webhook-Signature", signature)
	}
	return req, nil
}

// exchange sends a request and returns the body of an answer that is one.
func (h *HTTP) exchange(req *http.Request) ([]byte, error) {
	resp, err := h.transport.RoundTrip(req)
	if err != nil {
		return nil, &callError{networkKind(req.Context(), err), err}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols { // its body is the bare connection, which no time limit is for
		return nil, callErrorf(callStatus, "it switches protocols, which was not asked for")
	}
	if resp.StatusCode != http.StatusOK {
		return nil, h.refusal(resp)
	}
	if err := checkForm(resp.Header); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, callErrorf(networkKind(req.Context(), err), "reading the answer: %w", err)
	case len(body) > maxAnswer:
		return nil, callErrorf(callTooLarge, "the answer is larger than %d bytes", maxAnswer)
	}
	return body, nil
}

func networkKind(ctx context.Context, err error) string {
	var network net.Error
	if errors.As(err, &network) && network.Timeout() || ctx.Err() != nil {
		return callTimeout
	}
	return callNetwork
}

// checkForm wants JSON as it is.
func checkForm(header http.Header) error {
	got := header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(got); err != nil || media != "application/json" {
		return callErrorf(callGarbage, "the answer's Content-Type is %.80q, not application/json", got)
	}
	if coding := header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return callErrorf(callGarbage, "the answer's Content-Encoding is %.40q, which was not asked for", coding)
	}
	return nil
}

// refusal is what a status other than 200 means: that nothing is known.
func (h *HTTP) refusal(resp *http.Response) error {
	const excerpt = 200
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 2*excerpt)) // what could be read of it counts
	text := string(b)
	for _, secret := range []string{h.cfg.Token, h.cfg.Secret} {
		if secret != "" { // an answer may show what was sent
			text = strings.ReplaceAll(text, secret, "********")
		}
	}
	text = text[:min(len(text), excerpt)]
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return callErrorf(callUnauthorized, "it does not accept who we are: %s: %q", resp.Status, text)
	case status >= 300 && status < 400:
		return callErrorf(callStatus, "it redirects (%s), which is not followed", resp.Status)
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		err := callErrorf(callUnavailable, "%s: %q", resp.Status, text)
		if after, ok := retryAfter(resp.Header, h.cfg.Clock.Now()); ok {
			h.holdBack(after)
			return &license.UnavailableError{Err: err, After: after}
		}
		return err
	}
	return callErrorf(callStatus, "%s: %q", resp.Status, text)
}

// retryAfter reads a Retry-After, of seconds or a date.
func retryAfter(header http.Header, now time.Time) (time.Duration, bool) {
	text := header.Get("Retry-After")
	after := time.Duration(-1)
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		after = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		after = max(0, at.Sub(now))
	}
	return min(after, maxRetryAfter), after >= 0
}

// holdBack leaves the carrier alone for some time, as it asked for.
func (h *HTTP) holdBack(after time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := h.cfg.Clock.Now().Add(min(after, maxQuiet)); until.After(h.quiet) {
		h.quiet = until
	}
}

// heldBack is an error while the carrier is to be left alone.
func (h *HTTP) heldBack() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	after := h.quiet.Sub(h.cfg.Clock.Now())
	if after <= 0 {
		return nil
	}
	h.metrics.calls[callHeldBack].Inc()
	return &license.UnavailableError{Err: errors.New("the carrier asked not to be called for some time"), After: after}
}

// tell counts what is odd about an answer, and logs it now and then.
func (h *HTTP) tell(ctx context.Context, odd oddities, tasks []license.Task) {
	h.metrics.odd(odd)
	if h.strange != nil {
		h.strange(odd)
	}
	now := h.cfg.Clock.Now()
	h.mu.Lock()
	silent := now.Sub(h.told) < tellAgain
	if !silent {
		h.told = now
	}
	h.mu.Unlock()
	if silent {
		return
	}
	h.cfg.Logger.WarnContext(ctx, "the carrier did not answer with one outcome for each task; what is open is asked for again",
		"request_id", tasks[0].Request, "tasks", len(tasks), "missing", odd.missing, "unknown", odd.unknown,
		"contradictory", odd.contradictory, "invalid", odd.invalid)
}
