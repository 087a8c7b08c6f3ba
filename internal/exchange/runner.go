package exchange

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Config says which server to ask and what it offers.
type Config struct {
	URL  string            // of the server, without the API's prefix
	Vars map[string]string // Variables of the seed
	// Offers lists what host and server offer beyond the API; exchanges that
	// need anything else are skipped.
	Offers []Need
	TLS    *tls.Config // to trust the server's certificate; nil: the system's roots
	// Listen is the address on which callbacks are received; empty: a free port
	// on loopback. ListenURL is how the server reaches it; empty: by the address,
	// on this machine.
	Listen    string
	ListenURL string
	// Patience is how long to wait for a callback, or for an answer that is
	// expected eventually; zero: 10 s.
	Patience time.Duration
	// Quiet is how long to wait for what must not come; zero: 300 ms.
	Quiet time.Duration
	// Timeout bounds each request; zero: 30 s.
	Timeout time.Duration
}

// Runner runs exchanges against a server, one at a time.
type Runner struct {
	cfg      Config
	client   *http.Client
	listener *listener            // nil unless callbacks are offered
	sessions map[[2]string]string // by application and user
}

// NewRunner makes a Runner, which Close ends.
func NewRunner(cfg Config) (*Runner, error) {
	if cfg.URL = strings.TrimRight(cfg.URL, "/"); cfg.URL == "" {
		return nil, errors.New("the runner needs the URL of a server")
	}
	cfg.Patience = orElse(cfg.Patience, 10*time.Second)
	cfg.Quiet = orElse(cfg.Quiet, 300*time.Millisecond)
	cfg.Timeout = orElse(cfg.Timeout, 30*time.Second)
	r := &Runner{cfg: cfg, sessions: map[[2]string]string{}}
	r.client = &http.Client{
		Timeout: cfg.Timeout,
		// HTTP/1.1 alone: only there do headers keep their spelling.
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: cfg.TLS, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	if !slices.Contains(cfg.Offers, NeedCallbacks) {
		return r, nil
	}
	var err error
	if r.listener, err = listen(cfg.Listen, cfg.ListenURL); err != nil {
		return nil, fmt.Errorf("listening for callbacks: %w", err)
	}
	return r, nil
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Close ends the runner's listener.
func (r *Runner) Close() error {
	r.client.CloseIdleConnections()
	if r.listener == nil {
		return nil
	}
	return r.listener.close()
}

// Enter fetches a token and opens a session for an exchange, and does no more:
// an error tells that the server cannot be reached, or does not let it in.
func (r *Runner) Enter(ctx context.Context, x Exchange) error {
	run := r.newRun(x)
	err := run.enter(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return errors.New(newMasker(run.vars).text(err.Error()))
}

func (r *Runner) newRun(x Exchange) *run {
	vars := map[string]string{}
	maps.Copy(vars, r.cfg.Vars)
	return &run{Runner: r, x: x, vars: vars, captured: map[string]string{}, told: map[string]bool{}}
}

// Run runs one exchange. What goes wrong is in the result, which holds no
// secrets.
func (r *Runner) Run(ctx context.Context, x Exchange) Result {
	res := Result{Exchange: x.Name, Title: x.Title, Sources: x.Sources}
	var missing []string
	for _, n := range x.Needs {
		if !slices.Contains(r.cfg.Offers, n) {
			missing = append(missing, string(n))
		}
	}
	if missing != nil {
		res.Skipped = "needs " + strings.Join(missing, ", ")
		return res
	}
	start := time.Now()
	run := r.newRun(x)
	err := run.prepare(ctx)
	for i := 0; err == nil && i < len(x.Steps); i++ {
		var step StepResult
		step, err = run.step(ctx, x.Steps[i])
		res.Steps = append(res.Steps, step)
	}
	if err == nil {
		run.finish(&res)
	} else {
		res.Error = err.Error()
	}
	newMasker(run.vars).result(&res)
	res.Took = time.Since(start)
	return res
}

// RegisteringListener is how a Result's Error begins when the server did not
// register the runner's listener.
const RegisteringListener = "registering the listener"

// run is one run of one exchange.
type run struct {
	*Runner
	x        Exchange
	vars     map[string]string // of the seed and the exchange
	captured map[string]string // from answers so far; before them in rank come a row's
	ids      []string          // of the requests accepted so far
	told     map[string]bool   // those whose callbacks the exchange expects
	inbox    *inbox
	heard    []string // the callbacks that the current step expected and got
}

// prepare logs in and registers the listener.
func (r *run) prepare(ctx context.Context) error {
	if err := r.enter(ctx); err != nil {
		return err
	}
	if r.listener == nil {
		return nil
	}
	r.inbox = r.listener.open(r.x.Name)
	r.vars["listener"] = r.listener.url + "/" + r.x.Name
	if r.x.Listen == nil {
		return nil
	}
	if err := r.register(ctx); err != nil {
		return fmt.Errorf("%s: %w", RegisteringListener, err)
	}
	return nil
}

// enter sees to the exchange's token and session.
func (r *run) enter(ctx context.Context) error {
	var err error
	if r.vars["bearer"], err = r.token(ctx); err != nil {
		return fmt.Errorf("fetching a token for the application %q: %w", r.x.Application, err)
	}
	key := [2]string{r.x.Application, r.x.User}
	if r.sessions[key] == "" {
		if r.sessions[key], err = r.login(ctx); err != nil {
			return fmt.Errorf("logging in the user %q: %w", r.x.User, err)
		}
	}
	r.vars["session"] = r.sessions[key]
	return nil
}

func (r *run) token(ctx context.Context) (string, error) {
	if fixed := r.vars[r.x.Application+".token"]; fixed != "" {
		return fixed, nil
	}
	return r.setUp(ctx, "access_token", Request{
		Method: "POST", Path: "/api/ts/v1/oauth2/token",
		Body: "grant_type=client_credentials", HasBody: true,
	})
}

func (r *run) login(ctx context.Context) (string, error) {
	if fixed := r.vars[r.x.User+".session"]; fixed != "" {
		return fixed, nil
	}
	body := fmt.Sprintf(`{"username": "${%s.name}", "password": "${%s.password}"}`, r.x.User, r.x.User)
	return r.setUp(ctx, "sessionToken", Request{Method: "POST", Path: "/api/m2m/v1/session/login", Body: body, HasBody: true})
}

func (r *run) register(ctx context.Context) error {
	l := r.x.Listen
	body := fmt.Sprintf(`{"name": "CarrierService", "url": "${listener}", "username": %q, "password": %q}`, l.Username, l.Password)
	_, err := r.setUp(ctx, "serviceName", Request{Method: "POST", Path: "/api/m2m/v1/callbacks/${" + l.Account + "}", Body: body, HasBody: true})
	return err
}

// setUp makes a request that is no step and returns one member of its answer.
// It looks at nothing else: what is wrong with such an answer is for the
// exchanges about it to tell, and no reason for all to fail.
func (r *run) setUp(ctx context.Context, member string, q Request) (string, error) {
	a, err := r.send(ctx, q, r.vars)
	if err != nil {
		return "", err
	}
	if a.status != http.StatusOK {
		return "", fmt.Errorf("%s: the answer is %d with %s", firstLine(a.sent), a.status, clip(a.body, 400))
	}
	m := matchJSON("body", `{"`+member+`": "<text as it>", ...}`, a.body)
	if len(m.diffs) > 0 {
		return "", fmt.Errorf("%s: %v", firstLine(a.sent), m.diffs[0])
	}
	return m.captured["it"], nil
}

// step makes a step's request, compares the answer and waits for the callbacks.
// Its error ends the exchange.
func (r *run) step(ctx context.Context, s Step) (StepResult, error) {
	if s.Listener != nil && r.inbox != nil {
		r.inbox.answerWith(s.Listener)
	}
	vars := maps.Clone(r.vars)
	maps.Copy(vars, r.captured)
	maps.Copy(vars, s.Vars)
	name, err := expand(s.Name, vars)
	res := StepResult{Name: clip(name, 200)}
	if err != nil {
		return res, err
	}
	want, err := s.Response.expand(vars)
	if err != nil {
		return res, err
	}
	res.Want = want.String()
	m, err := r.ask(ctx, s, want, vars, &res)
	if err != nil {
		return res, err
	}
	res.Diffs = m.diffs
	maps.Copy(r.captured, m.captured)
	maps.Copy(vars, m.captured)
	if len(m.diffs) > 0 && len(s.Callbacks) > 0 {
		return res, nil // nothing will come of a request that went wrong
	}
	return res, r.callbacks(ctx, s, vars, &res)
}

// ask makes the request, again while it may and the answer does not fit.
func (r *run) ask(ctx context.Context, s Step, want Message, vars map[string]string, res *StepResult) (match, error) {
	const pause = 20 * time.Millisecond
	patience := time.NewTimer(r.cfg.Patience)
	defer patience.Stop()
	for {
		a, err := r.send(ctx, s.Request, vars)
		if err != nil {
			return match{}, err
		}
		m := match{captured: map[string]string{}}
		m.answer(want, a)
		res.Request, res.Got = a.sent, a.String()
		if a.requestID != "" && !slices.Contains(r.ids, a.requestID) {
			r.ids = append(r.ids, a.requestID)
		}
		if !s.Repeat || len(m.diffs) == 0 {
			return m, nil
		}
		select {
		case <-ctx.Done():
			return m, ctx.Err()
		case <-patience.C:
			return m, nil
		case <-time.After(pause):
		}
	}
}

// expand replaces the variables in what is expected.
func (w Message) expand(vars map[string]string) (Message, error) {
	var err error
	if w.Body, err = expand(w.Body, vars); err != nil {
		return w, err
	}
	w.Headers, err = expandHeaders(w.Headers, vars)
	return w, err
}

func expandHeaders(headers []Header, vars map[string]string) ([]Header, error) {
	var out []Header
	for _, h := range headers {
		var err error
		if h.Value, err = expand(h.Value, vars); err != nil {
			return nil, err
		}
		if h.Name, err = expand(h.Name, vars); err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

// String is what is expected as the file has it.
func (w Message) String() string {
	var b strings.Builder
	if w.Status != 0 {
		fmt.Fprintf(&b, "%d\n", w.Status)
	}
	for _, h := range w.Headers {
		if h.Without {
			fmt.Fprintf(&b, "!%s\n", h.Name)
		} else {
			fmt.Fprintf(&b, "%s: %s\n", h.Name, h.Value)
		}
	}
	if w.Body != "" {
		fmt.Fprintf(&b, "\n%s\n", w.Body)
	}
	return clip(b.String(), shown)
}
