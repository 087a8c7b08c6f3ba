package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/simlatch/simlatch/internal/console"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/m2m"
)

// echoes refuses what it is sent, and says all of it again.
func echoes(w http.ResponseWriter, q *http.Request) {
	body, _ := io.ReadAll(q.Body)
	w.WriteHeader(http.StatusTeapot)
	for _, values := range q.Header {
		body = append(body, strings.Join(values, " ")...)
	}
	_, _ = w.Write(body)
}

// echoCarrier makes the carrier an address that echoes.
func (c *canaries) echoCarrier(cfg *Config, address string) {
	cfg.Carrier, cfg.CarrierToken, cfg.CarrierSecret = "http:"+address, "canary-carrier-token", carrierSecret
	c.secrets["carrier token"], c.secrets["carrier secret, decoded"] = "canary-carrier-token", "canary-carrier-secret"
	c.secrets["carrier secret"] = strings.TrimPrefix(carrierSecret, "whsec_")
}

// echoUpstream makes the carrier an upstream that cannot take the first credentials it
// is given, and refuses each request for licenses, in its own dialect: with all that was sent to
// it as its message, and as its code.
func (c *canaries) echoUpstream(cfg *Config) {
	c.secrets["upstream secret"], c.secrets["upstream password"] = "canary-upstream-secret", "canary-upstream-password"
	c.secrets["upstream credentials, as sent"] = strings.TrimPrefix(basicOf("upstream-key", "canary-upstream-secret"), "Basic ")
	c.secrets["upstream bearer"], c.secrets["upstream session"] = "canary-upstream-bearer", "canary-upstream-session"
	var tokens, sessions atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		q.Body = io.NopCloser(bytes.NewReader(body))
		first := strings.HasSuffix(q.URL.Path, "/token") && tokens.Add(1) == 1 || strings.HasSuffix(q.URL.Path, "/session/login") && sessions.Add(1) == 1
		var out any
		switch {
		case first:
		case strings.HasSuffix(q.URL.Path, "/oauth2/token"):
			out = m2m.TokenAnswer{AccessToken: "canary-upstream-bearer", TokenType: "Bearer", ExpiresIn: 3600}
		case strings.HasSuffix(q.URL.Path, "/session/login"):
			out = m2m.SessionAnswer{SessionToken: "canary-upstream-session"}
		case strings.Contains(q.URL.Path, "/callbacks/"):
			var in m2m.ListenerRequest
			_ = json.Unmarshal(body, &in) // its password is looked for, and there, or the test fails
			c.heard.Store(&in.Password)
			out = m2m.ListenerAnswer{AccountName: testAccount, ServiceName: in.Name}
		}
		if out == nil {
			said := fmt.Sprint(q.Header, string(body))
			w.WriteHeader(map[bool]int{true: http.StatusInternalServerError, false: http.StatusBadRequest}[first])
			out = map[string]string{"errorCode": "UnifiedWebService.REQUEST_FAILED." + said, "errorMessage": said}
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	c.t.Cleanup(upstream.Close)
	at := freePort(c.t)
	cfg.Carrier = CarrierUpstream + upstream.URL
	cfg.Upstream = UpstreamConfig{
		Key: "upstream-key", Secret: "canary-upstream-secret", User: "upstream-user", Password: "canary-upstream-password",
		Listen: at, CallbackURL: "http://" + at + "/callbacks", Timeout: 5 * time.Second, Record: filepath.Join(c.t.TempDir(), "recorded"),
	}
}

// A severed is a way to a database, until it is cut.
type severed struct {
	net.Listener

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

// sever has the server reach its database, if that is PostgreSQL, in a way that can be
// cut, and looks for the password in its URL.
func (c *canaries) sever(cfg *Config) {
	u, err := url.Parse(cfg.Database)
	if err != nil {
		c.t.Fatal(err)
	}
	password, ok := u.User.Password()
	if !ok {
		return
	}
	c.secrets["database password"] = password
	s := &severed{}
	if s.Listener, err = new(net.ListenConfig).Listen(c.t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(s.cut)
	go s.join(u.Host)
	u.Host = s.Addr().String()
	cfg.Database, c.database = u.String(), s
}

func (s *severed) join(address string) {
	for {
		near, err := s.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", address)
		if err != nil {
			_ = near.Close()
			continue
		}
		s.mu.Lock()
		s.conns = append(s.conns, near, far)
		s.mu.Unlock()
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			go func() {
				_, _ = io.Copy(way[0], way[1]) // until it is cut, or either side has enough
				_ = way[0].Close()
			}()
		}
	}
}

// cut ends the way.
func (s *severed) cut() {
	_ = s.Close() // it may be closed
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
}

// lose cuts the server off from its database, and has everybody hear of it.
func (c *canaries) lose() {
	if c.database == nil {
		return
	}
	c.database.cut()
	c.call("GET", "/readyz", "", false)
	c.call("GET", m2m.APIPrefix+"/accounts/"+testAccount, "", false, c.both...)
	c.call("POST", m2m.APIPrefix+"/devices/license/actions/assign", licenseJSON, false, c.both...)
	c.call("GET", client.Prefix+"/self", "", false, "Authorization", "Bearer "+c.secrets["operator's token"])
	c.call("GET", console.Prefix+"/pools", "", false, "Cookie", c.cookie)
	c.call("GET", "/metrics", "", false)
	eventually(c.t, "the log says that the database is lost", func() bool { return strings.Contains(c.r.log.String(), "failed to connect to") })
	if _, err := New(c.t.Context(), c.r.cfg); err == nil {
		c.t.Error("a server starts without its database")
	} else {
		c.answers.WriteString(err.Error())
	}
}

// panicking is a source of random numbers that panics when it is asked for a second
// id, if it is told to.
type panicking struct {
	io.Reader

	left atomic.Int64 // ids before the panic; 0 when there will be none
}

func (p *panicking) Read(b []byte) (int, error) {
	const id = 10
	if len(b) == id && p.left.Load() > 0 && p.left.Add(-1) == 0 {
		panic("no luck any more")
	}
	return p.Reader.Read(b) //nolint:wrapcheck // it is the reader
}

// panic has a call with its secrets panic, between its own id and its request's.
func (c *canaries) panic() {
	c.panics.left.Store(2)
	c.call("POST", m2m.APIPrefix+"/devices/license/actions/assign", licenseJSON, false, c.both...)
	eventually(c.t, "the log says that it panicked", func() bool { return strings.Contains(c.r.log.String(), "no luck any more") })
}

// A spanCollector takes traces by OTLP.
type spanCollector struct {
	provider *sdktrace.TracerProvider

	mu   sync.Mutex // guards said
	said bytes.Buffer
}

// traceInto has the server's traces exported.
func (c *canaries) traceInto(cfg *Config) {
	o := &spanCollector{}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		o.mu.Lock()
		defer o.mu.Unlock()
		_ = q.Header.Write(&o.said) // a buffer takes everything
		o.said.Write(body)          // in which strings stand as they are
	}))
	c.t.Cleanup(collector.Close)
	exporter, err := otlptracehttp.New(c.t.Context(), otlptracehttp.WithEndpointURL(collector.URL))
	if err != nil {
		c.t.Fatal(err)
	}
	o.provider = sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	cfg.Traces, c.traces = o.provider, o
}

// text is all that was exported.
func (o *spanCollector) text(t *testing.T) string {
	t.Helper()
	if err := o.provider.Shutdown(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.String()
}

// settled waits until the first request has met its carrier and, where that refused it,
// its listener.
func (c *canaries) settled(operator []string) {
	eventually(c.t, "the carrier has failed", func() bool {
		if c.r.cfg.upstreamURL() == "" {
			return value(c.r.families(c.t)["simlatch_provision_consecutive_failures"], nil) > 0
		}
		return value(c.r.families(c.t)["simlatch_callback_answers_total"], map[string]string{"status": "4xx"}) > 0
	})
	c.call("GET", client.Prefix+"/requests", "", false, operator...)
}

// signIn signs an operator in at the console, after a try with another password.
func (c *canaries) signIn(name string) (cookie string) {
	const form = "application/x-www-form-urlencoded"
	c.call("POST", console.Prefix+"/sign-in", "name="+name+"&password=canary-wrong-password", false, "Content-Type", form)
	q, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.r.URL()+console.Prefix+"/sign-in", strings.NewReader("name="+name+"&password=canary-console-password"))
	if err != nil {
		c.t.Fatal(err)
	}
	q.Header.Set("Content-Type", form)
	resp, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, set := range resp.Cookies() {
		if set.Value != "" {
			c.secrets["console session"] = set.Value
			c.cookie = set.Name + "=" + set.Value
		}
	}
	if c.cookie == "" {
		c.t.Fatalf("signing in at the console: %s", resp.Status)
	}
	return c.cookie
}

var consoleLink = regexp.MustCompile(`(?:href|data-part|src)="(` + console.Prefix + `/[^"#]*)"`)

// console opens every page of the console that a page leads to.
func (c *canaries) console() {
	const most = 150
	known := map[string]bool{console.Prefix + "/": true}
	queue := []string{console.Prefix + "/"}
	for opened := 0; opened < len(queue) && opened < most; opened++ {
		page := c.call("GET", queue[opened], "", false, "Cookie", c.cookie)
		for _, found := range consoleLink.FindAllStringSubmatch(page, -1) {
			link := strings.ReplaceAll(found[1], "&amp;", "&")
			if !known[link] && !strings.Contains(link, "/events") && !strings.Contains(link, "/assets/") {
				known[link] = true
				queue = append(queue, link)
			}
		}
	}
	for _, page := range []string{"/pools", "/requests", "/callbacks", "/audit", "/sims"} {
		if !known[console.Prefix+page] {
			c.t.Errorf("no page of the console leads to %s, of %d", page, len(known))
		}
	}
}

// listen opens two streams of events. The function that it returns ends them, and keeps
// what they said.
func (c *canaries) listen(path string, headers []string, other string, others []string) (end func()) {
	ctx, stop := context.WithCancel(c.t.Context())
	var said [2]bytes.Buffer
	var streams sync.WaitGroup
	for i, s := range []struct {
		path    string
		headers []string
	}{{path, headers}, {other, others}} {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, c.r.URL()+s.path, nil)
		if err != nil {
			c.t.Fatal(err)
		}
		q.Header.Set(s.headers[0], s.headers[1])
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			c.t.Fatal(err)
		}
		if resp.StatusCode != http.StatusOK {
			c.t.Fatalf("%s: %s", s.path, resp.Status)
		}
		streams.Go(func() {
			defer resp.Body.Close()
			_, _ = io.Copy(&said[i], resp.Body) // until it is ended
		})
	}
	return func() {
		stop()
		streams.Wait()
		for i := range said {
			if !strings.Contains(said[i].String(), "data:") {
				c.t.Errorf("stream %d said nothing: %q", i, said[i].String())
			}
			c.answers.Write(said[i].Bytes())
		}
	}
}

// everyFile is what the files in a directory hold.
func everyFile(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all.WriteString(path + "\n" + string(text) + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
