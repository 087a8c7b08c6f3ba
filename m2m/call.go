package m2m

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxAnswer is the largest answer that is read; a page of 2,000 devices has
	// about 2 MB.
	maxAnswer = 64 << 20
	// maxWait is the longest wait before a call is repeated. A server that asks
	// for more gets its error handed on, with RetryAfter.
	maxWait = 30 * time.Second
)

// call is one call of the API.
type call struct {
	method string
	path   string // below APIPrefix
	full   string // the whole path, of the token endpoints
	in     any    // the body, to be sent as JSON
	form   url.Values
	out    any // what to decode the answer into

	key    string // the Idempotency-Key
	dryRun bool

	safe      bool // may be repeated when it is not known whether it arrived
	impatient bool // a 429 is handed on at once: it means that credentials failed too often
	once      bool // is never repeated
}

// send sends a call, repeated where that is safe and of use, and decodes the
// answer.
func (c *Client) send(ctx context.Context, k call, token, session string) error {
	body, err := encode(k.in)
	if err != nil {
		return err
	}
	if k.form != nil {
		body = []byte(k.form.Encode())
	}
	for n := 0; ; n++ {
		err := c.try(ctx, k, body, token, session)
		wait, again := k.repeat(err, n)
		if !again || n >= c.cfg.Retries || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// repeat says whether a call that failed for the n-th time should be sent again,
// and when.
func (k *call) repeat(err error, n int) (time.Duration, bool) {
	wait := 200 * time.Millisecond << min(n, 6)
	wait -= mathrand.N(wait / 4) //nolint:gosec // nobody gains by guessing it
	var e *Error
	switch {
	case err == nil || k.once || errors.Is(err, errAnswer):
		return 0, false
	case !errors.As(err, &e): // no answer
		return wait, k.safe
	case e.Status == http.StatusTooManyRequests:
		if k.impatient {
			return 0, false
		}
	case e.Status == http.StatusServiceUnavailable, e.Status == http.StatusBadGateway, e.Status == http.StatusGatewayTimeout:
		if !k.safe {
			return 0, false
		}
	default:
		return 0, false
	}
	if e.RetryAfter > 0 {
		wait = e.RetryAfter
	}
	return wait, wait <= maxWait
}

// errAnswer marks an answer that could not be used: the call itself arrived.
var errAnswer = errors.New("m2m: unusable answer")

// try sends a call once.
func (c *Client) try(ctx context.Context, k call, body []byte, token, session string) error {
	path := k.full
	if path == "" {
		path = APIPrefix + k.path
	}
	req, err := http.NewRequestWithContext(ctx, k.method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("m2m: making the request: %w", err)
	}
	c.header(req.Header, k, token, session)
	if k.once {
		// A transport repeats a request with an Idempotency-Key by itself, if it
		// can make the body again.
		req.GetBody = nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("m2m: %w", err)
	}
	defer resp.Body.Close()
	if resp.Header.Get(ServerHeader) != "" {
		c.simlatch.Store(true)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return newError(resp, nil) // its body is the bare connection, which no time limit is for
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return newError(resp, answer)
	case err != nil:
		return fmt.Errorf("m2m: reading the answer: %w", err)
	case len(answer) > maxAnswer:
		return fmt.Errorf("%w: it is larger than %d bytes", errAnswer, maxAnswer)
	case k.out == nil:
		return nil
	}
	if err := json.Unmarshal(answer, k.out); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	return nil
}

func (c *Client) header(h http.Header, k call, token, session string) {
	h.Set("Accept", "application/json")
	h.Set("User-Agent", c.cfg.UserAgent)
	switch {
	case k.form != nil:
		h.Set("Content-Type", "application/x-www-form-urlencoded")
	case k.in != nil:
		h.Set("Content-Type", "application/json")
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	} else if k.full != "" {
		h.Set("Authorization", basic(c.cfg.Key, c.cfg.Secret))
	}
	if session != "" {
		h.Set(SessionHeader, session)
	}
	if k.key != "" {
		h.Set("Idempotency-Key", k.key)
	}
	if k.dryRun {
		h.Set(DryRunHeader, "true")
	}
}

func basic(user, password string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

// newError reads an error answer: the platform's, the gateway's or the token
// endpoint's (sections 9.1 and 4.3), or whatever else stood in the way.
func newError(resp *http.Response, body []byte) *Error {
	e := &Error{Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-ID"), RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	var a struct {
		ErrorCode, ErrorMessage string
		Error                   string
		ErrorDescription        string `json:"error_description"`
		Fault                   struct{ Code, Message, Description string }
	}
	_ = json.Unmarshal(body, &a) // what could be read of it counts
	switch {
	case a.ErrorCode != "" && a.Error != CodeInvalidClient: // which says more
		e.Code, e.Message = a.ErrorCode, a.ErrorMessage
	case a.Error != "":
		e.Code, e.Message = a.Error, a.ErrorDescription
	case a.Fault.Code != "":
		e.Code, e.Message = a.Fault.Code, a.Fault.Message
		if a.Fault.Description != "" {
			e.Message += ": " + a.Fault.Description
		}
	}
	if e.Message == "" {
		e.Message = plain(body)
	}
	if e.Message == "" {
		e.Message = http.StatusText(resp.StatusCode)
	}
	return e
}

// plain is the beginning of an answer that is no JSON, on one line.
func plain(body []byte) string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(body[:min(len(body), 1024)]), "")), " ")
	if r := []rune(text); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return text
}

// retryAfter reads a Retry-After header: seconds, or a date.
func retryAfter(s string) time.Duration {
	if n, err := strconv.Atoi(s); err == nil && n > 0 {
		return time.Duration(min(n, 1<<30)) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// newKey is a random UUID, as the vendor's clients send for an Idempotency-Key.
func newKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
