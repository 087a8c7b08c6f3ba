package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// call is one HTTP request on its way through the adapter.
type call struct {
	auth.Caller // of routes that need one; the application as soon as it is known

	api    *API
	family family
	r      *http.Request
	w      http.ResponseWriter
	id     string // X-Request-ID
	body   []byte // as sent, once it was read
	kept   int64  // bytes of the body that are counted in api.admission,
	keeper string // for this application
	status int    // of the answer if it is no error
}

// handle is the adapter of an endpoint: it checks who calls, reads and decodes
// the body, and calls fn, in the order that docs/compatibility.md gives to the
// checks.
func handle[In, Out any](who access, decode func(*call) (In, error),
	fn func(ctx context.Context, c *call, in In) (Out, error),
) func(*call) (any, error) {
	return func(c *call) (any, error) {
		if err := c.withTimeout(func(ctx context.Context) error { return c.authenticate(ctx, who) }); err != nil {
			return nil, err
		}
		in, err := decode(c)
		if err != nil {
			return nil, err
		}
		var out Out
		err = c.withTimeout(func(ctx context.Context) error {
			out, err = fn(ctx, c, in)
			return err
		})
		return out, err
	}
}

// withTimeout bounds a part of the work that is not waiting for the client: how
// much of it is done at once, and its time.
func (c *call) withTimeout(do func(ctx context.Context) error) error {
	app := c.Application
	if err := c.api.admission.enter(app, held{calls: 1}); err != nil {
		return err
	}
	defer c.api.admission.leave(app, held{calls: 1})
	ctx, cancel := context.WithTimeout(c.r.Context(), c.api.cfg.Timeout)
	defer cancel()
	return do(ctx)
}

// serve does the work of one call and answers it, whatever comes of it. pattern
// is the path as metrics and logs name it.
func (a *API) serve(w http.ResponseWriter, r *http.Request, f family, pattern string, work func(*call) (any, error)) {
	started := time.Now()
	c := &call{api: a, family: f, r: r, w: w, status: http.StatusOK}
	c.id = requestID(r.Header.Get(requestIDHeader))
	if c.id == "" {
		c.id = string(license.NewRequestID(a.cfg.Clock.Now(), a.cfg.Random))
	}
	span := c.begin(pattern)
	c.limitBody()
	defer c.letGo()
	out, err := c.guard(work)
	status, code, body := c.render(out, err)

	h := w.Header()
	h.Set(requestIDHeader, c.id)
	h.Set(m2m.ServerHeader, "1")
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	// Answers hold tokens, passwords and what changes at any moment.
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	writeErr := a.write(w, status, body)
	c.discardBody()

	c.end(span, status, code, out)
	a.metrics.count(r.Method, pattern, status, code, time.Since(started))
	a.log(c, pattern, status, code, time.Since(started), err, writeErr)
}

// write sends an answer, within the time a call may take. The deadline must be
// gone with it: the connection is also that of calls to come.
func (a *API) write(w http.ResponseWriter, status int, body []byte) error {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(a.cfg.Timeout)) // network timeouts are real time
	w.WriteHeader(status)
	_, err := w.Write(body)
	_ = rc.Flush()
	_ = rc.SetWriteDeadline(time.Time{})
	return err
}

// guard does the work and turns a panic into an error.
func (c *call) guard(work func(*call) (any, error)) (out any, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler { //nolint:errorlint // the very value is what net/http panics with
			panic(p)
		}
		err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}()
	return work(c)
}

// render encodes an answer, and sets the headers of an error.
func (c *call) render(out any, err error) (status int, code string, body []byte) {
	if err == nil {
		// The wire types use omitempty as encoding/json means it.
		body, err = json.Marshal(out, jsonv1.OmitEmptyWithLegacySemantics(true))
		if err == nil {
			return c.status, "", append(body, '\n')
		}
		err = fmt.Errorf("encoding an answer: %w", err)
	}
	e := wire(err)
	h := c.w.Header()
	if e.allow != "" {
		h.Set("Allow", e.allow)
	}
	if e.challenge != "" {
		h.Set("WWW-Authenticate", e.challenge)
	}
	if e.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.retryAfter+time.Second-1)/time.Second), 10))
	}
	if e.close {
		h.Set("Connection", "close")
	}
	body, err = json.Marshal(e.body(c))
	if err != nil { // it has nothing but strings, made valid before
		panic(fmt.Sprintf("encoding an error: %v", err))
	}
	return e.status, e.code, append(body, '\n')
}

// log writes one line per call: an error where the fault is ours, otherwise for
// whoever looks closely.
func (a *API) log(c *call, pattern string, status int, code string, took time.Duration, err, writeErr error) {
	level := slog.LevelDebug
	switch {
	case status == http.StatusServiceUnavailable && c.r.Context().Err() != nil:
		// The client is gone; there is nothing to look into.
	case errors.Is(err, errShed):
		// It is counted; a line for each would be a load of its own.
	case status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	}
	ctx := c.r.Context()
	if !a.cfg.Logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", c.id), slog.String("method", clip(c.r.Method)), slog.String("path", pattern),
		slog.Int("status", status), slog.Duration("took", took),
	}
	if code != "" {
		attrs = append(attrs, slog.String("code", code))
	}
	if c.Application != "" {
		attrs = append(attrs, slog.String("application", c.Application))
	}
	if err = errors.Join(err, writeErr); err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	a.cfg.Logger.LogAttrs(ctx, level, "api call", attrs...)
}

const requestIDHeader = "X-Request-ID"

// maxRequestID is the longest X-Request-ID that is echoed whole.
const maxRequestID = 128

// requestID is a client's own id for a request, freed of what cannot stand in a
// header or a log line.
func requestID(s string) string {
	if len(s) > maxRequestID {
		s = s[:maxRequestID]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
}
