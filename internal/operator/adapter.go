package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// call is one HTTP request on its way through the adapter.
type call struct {
	api      *API
	route    route
	w        http.ResponseWriter
	r        *http.Request
	id       string // X-Request-ID
	operator auth.Operator
	actor    license.Actor // the operator, as what they change is audited
	progress func(done int)
	body     []byte

	status   int // of the answer if it is no error
	etag     string
	location string
	streamed bool // the answer is written already
}

// The bounds of a body, and the time in which it must have come.
const (
	maxBody     = 1 << 20
	bodyTimeout = 20 * time.Second
	// Those of an upload of SIMs: some million lines.
	maxUpload     = 64 << 20
	uploadTimeout = 5 * time.Minute
)

// read is the work of a route whose call has no body that matters.
func read[Out any](fn func(ctx context.Context, c *call) (Out, error)) func(*call) (any, error) {
	return func(c *call) (any, error) { return fn(c.r.Context(), c) }
}

// change is the work of a route that takes JSON.
func change[In, Out any](fn func(ctx context.Context, c *call, in In) (Out, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		var in In
		if err := c.decode(&in); err != nil {
			return nil, err
		}
		return fn(c.r.Context(), c, in)
	}
}

// none is the answer where there is nothing to say.
type none struct{}

// serve does the work of one call and answers it, whatever comes of it.
func (a *API) serve(w http.ResponseWriter, r *http.Request, route route) {
	started := time.Now()
	c := &call{api: a, route: route, w: w, r: r, status: http.StatusOK}
	if c.id = printable(r.Header.Get(client.RequestIDHeader)); c.id == "" {
		c.id = string(license.NewRequestID(a.cfg.Clock.Now(), a.cfg.Random))
	}
	h := w.Header()
	h.Set(client.RequestIDHeader, c.id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	out, err := c.guard()
	if c.streamed {
		return
	}
	answer := c.answer(out, err)
	c.send(answer)
	c.log(answer.Status, time.Since(started), err)
}

// guard does the work and turns a panic into an error.
func (c *call) guard() (out any, err error) {
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
	return c.do()
}

// do checks who calls, reads the body and does the work, once under its key.
func (c *call) do() (any, error) {
	if c.route.need == "" { // it only has an error to tell
		return c.route.work(c)
	}
	if err := c.authenticate(); err != nil {
		return nil, err
	}
	if err := c.readBody(); err != nil {
		return nil, err
	}
	timeout := c.api.cfg.Timeout
	if c.route.long {
		timeout = c.api.cfg.LongTimeout
	}
	// Network timeouts are real time; a writer that knows none is a test's.
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(timeout + c.api.cfg.Timeout))
	if c.r.Method == http.MethodPost && c.r.Header.Get(client.KeyHeader) != "" {
		ctx, cancel := context.WithTimeout(c.r.Context(), timeout)
		defer cancel()
		return c.once(ctx)
	}
	return c.work(timeout)
}

// work does the work within its time. A stream has none.
func (c *call) work(timeout time.Duration) (any, error) {
	if c.route.path != eventsPath {
		ctx, cancel := context.WithTimeout(c.r.Context(), timeout)
		defer cancel()
		c.r = c.r.WithContext(ctx)
	}
	return c.route.work(c)
}

// authenticate finds out who calls, and whether their role suffices.
func (c *call) authenticate() error {
	known, ok := auth.ActingOf(c.r.Context())
	if !ok {
		var err error
		if known, err = c.bearer(); err != nil {
			return err
		}
	}
	c.operator, c.progress = known.Operator, known.Progress
	c.actor = license.Actor{Name: known.Name, Via: known.Via, From: known.From}
	if !known.Role.May(c.route.need) {
		return problemf(errRole, "this takes the role %s, and %s is %s", c.route.need, known.Name, known.Role)
	}
	return nil
}

// bearer finds who calls by the token that the call has.
func (c *call) bearer() (auth.Acting, error) {
	if wait := c.api.cfg.Wait; wait != nil {
		if after := wait(c.r.RemoteAddr, c.api.cfg.Clock.Now()); after > 0 {
			p := problemf(errTooManyCalls, "there are more calls from this address than --address-rate-limit allows; nothing of this one was begun")
			p.after = after
			return auth.Acting{}, p
		}
	}
	headers := c.r.Header.Values("Authorization")
	scheme, token, _ := strings.Cut(strings.Join(headers, ","), " ")
	if len(headers) != 1 || !strings.EqualFold(scheme, "Bearer") {
		return auth.Acting{}, problemf(errToken, "give an operator's token, once, as \"Authorization: Bearer …\"; 'simlatch operator create' makes operators")
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), c.api.cfg.Timeout)
	defer cancel()
	o, err := c.api.cfg.Operators.Operator(ctx, auth.Secret(strings.TrimSpace(token)))
	if errors.Is(err, auth.ErrOperator) {
		err = problemf(errToken, "the token is unknown, or its operator disabled; 'simlatch operator create' makes operators")
	}
	from, _, splitErr := net.SplitHostPort(c.r.RemoteAddr)
	if splitErr != nil {
		from = c.r.RemoteAddr
	}
	return auth.Acting{Operator: o, Via: license.ViaAPI, From: from}, err
}

// store is the store as whoever calls uses it: what they change is audited as
// their deed.
func (c *call) store() *store.Store { return c.api.cfg.Store.As(c.actor) }

// readBody reads the body, if there is one.
func (c *call) readBody() error {
	if c.r.Body == nil || c.r.Body == http.NoBody {
		return nil
	}
	if strings.Join(c.r.Header.Values("Content-Encoding"), "") != "" {
		return problemf(errMediaType, "a body is sent as it is: Content-Encoding is not supported")
	}
	most, timeout := int64(maxBody), bodyTimeout
	if c.route.path == importPath {
		most, timeout = maxUpload, uploadTimeout
	}
	rc := http.NewResponseController(c.w)
	_ = rc.SetReadDeadline(time.Now().Add(timeout))
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, most))
	var tooLarge *http.MaxBytesError
	var slow net.Error
	switch {
	case errors.As(err, &tooLarge):
		return problemf(errTooLarge, "a body here has at most %d bytes", most)
	case errors.As(err, &slow) && slow.Timeout():
		return problemf(errSlow, "the body must come within %s", timeout)
	case err != nil:
		return problemf(errInvalid, "the body ends before its announced end")
	}
	_ = rc.SetReadDeadline(time.Time{})
	c.body = body
	return nil
}

// mediaType is that of the body; "" where none is named.
func (c *call) mediaType() string {
	got, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil {
		return c.r.Header.Get("Content-Type")
	}
	return got
}

// decode reads a JSON body strictly: what is misspelt shows. No body is an empty
// one.
func (c *call) decode(into any) error {
	if t := c.mediaType(); t != "application/json" && t != "" {
		return problemf(errMediaType, "the body is %.60q; it must be application/json", t)
	}
	if len(c.body) == 0 {
		return nil
	}
	if err := json.Unmarshal(c.body, into, json.RejectUnknownMembers(true)); err != nil {
		return problemf(errInvalid, "the body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// answer is an answer, as it is sent and, under a key, kept.
type answer struct {
	Status   int            `json:"status"`
	Type     string         `json:"type"`
	Location string         `json:"location,omitzero"`
	ETag     string         `json:"etag,omitzero"`
	Body     jsontext.Value `json:"body"`

	after    time.Duration
	replayed bool
}

func (c *call) answer(out any, err error) answer {
	if made, ok := out.(answer); ok { // under a key, with its error for the log
		return made
	}
	a := answer{Status: c.status, Type: "application/json", Location: c.location, ETag: c.etag}
	if err == nil {
		if a.Body, err = json.Marshal(out); err == nil {
			return a
		}
		err = fmt.Errorf("encoding an answer: %w", err)
	}
	p := problemOf(err)
	if p.kind == errToken {
		c.w.Header().Set("WWW-Authenticate", `Bearer realm="simlatch operator"`)
	}
	a = answer{Status: p.status, Type: "application/problem+json", after: p.after}
	if a.Body, err = json.Marshal(p.wire(c.id), json.OmitZeroStructFields(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		panic(fmt.Sprintf("encoding a problem: %v", err)) // it has strings and numbers only
	}
	return a
}

func (c *call) send(a answer) {
	h := c.w.Header()
	h.Set("Content-Type", a.Type)
	h.Set("Content-Length", strconv.Itoa(len(a.Body)+1))
	for name, value := range map[string]string{"Location": a.Location, "ETag": a.ETag} {
		if value != "" {
			h.Set(name, value)
		}
	}
	if a.after > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((a.after+time.Second-1)/time.Second), 10))
	}
	if a.replayed {
		h.Set("Idempotency-Replayed", "true")
	}
	c.w.WriteHeader(a.Status)
	_, _ = c.w.Write(append(a.Body, '\n')) // fails only when the caller is gone
}

// log writes one line per call: who changed what, and what is wrong with us.
func (c *call) log(status int, took time.Duration, err error) {
	level := slog.LevelDebug
	switch {
	case status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable:
		level = slog.LevelError
	case status == http.StatusServiceUnavailable:
		level = slog.LevelWarn
	case c.r.Method != http.MethodGet && status < http.StatusBadRequest:
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{
		slog.String("request_id", c.id), slog.String("operator", c.operator.Name), slog.String("method", c.r.Method),
		slog.String("path", c.route.path), slog.Int("status", status), slog.Duration("took", took),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	c.api.cfg.Logger.LogAttrs(c.r.Context(), level, "operator call", attrs...)
}

// printable is a client's own id for a call, freed of what cannot stand in a
// header or a log line.
func printable(s string) string {
	const most = 128
	s = s[:min(len(s), most)]
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s))
}
