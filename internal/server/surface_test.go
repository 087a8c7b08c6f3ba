package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/exchange"
	"github.com/simlatch/simlatch/internal/license"
)

// surface is the whole HTTP surface of a server, attacked with programs of calls.
type surface struct {
	tb       testing.TB
	dir      string
	samples  []sample
	words    []string
	carrier  answering
	known    known
	listener *httptest.Server
	made     time.Time // when the template of the database was
	logs     errorLog

	server *running
	db     *sql.DB // on the server's database, to look into it
	state  map[string]string
	runs   int // of programs on this database
}

// errorLog keeps what must not be logged, whatever a caller sends.
type errorLog struct {
	mu   sync.Mutex // guards seen
	seen []string
}

func (l *errorLog) Enabled(context.Context, slog.Level) bool { return true }
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *errorLog) WithGroup(string) slog.Handler            { return l }
func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelError && !strings.Contains(r.Message, "panic") {
		return nil
	}
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %v", a); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, b.String())
	return nil
}

func (l *errorLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

// newSurface makes a surface, and ends it when tb ends.
func newSurface(tb testing.TB) *surface {
	tb.Helper()
	vars, err := exchange.Variables(exchange.Seed())
	if err != nil {
		tb.Fatal(err)
	}
	s := &surface{tb: tb, dir: tb.TempDir(), samples: samples(tb, vars), carrier: answering{}}
	for _, a := range exchange.CarrierAnswers(vars) {
		s.carrier[a.Action+a.ICCID] = a
	}
	for name, value := range vars {
		if !strings.Contains(name, "password") && !strings.Contains(name, "secret") && value != "" {
			s.words = append(s.words, value)
		}
	}
	slices.Sort(s.words)
	s.listener = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	tb.Cleanup(s.listener.Close)
	tb.Cleanup(s.stop)
	return s
}

const surfaceFile = "surface.db"

// start begins anew, with the state that the seed describes.
func (s *surface) start() {
	s.tb.Helper()
	s.stop()
	if time.Since(s.made) > 10*time.Minute { // tokens and sessions stand in it, and end
		s.template()
	}
	for _, name := range []string{surfaceFile, surfaceFile + ".key"} {
		text, err := os.ReadFile(filepath.Join(s.dir, "template", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(s.dir, name), text, 0o600)
		}
		if err != nil {
			s.tb.Fatal(err)
		}
	}
	_ = os.Remove(filepath.Join(s.dir, surfaceFile+"-wal"))
	_ = os.Remove(filepath.Join(s.dir, surfaceFile+"-shm"))
	s.serve(filepath.Join(s.dir, surfaceFile), "")
	var err error
	if s.db, err = sql.Open("sqlite", "file:"+filepath.Join(s.dir, surfaceFile)+"?mode=ro&_pragma=busy_timeout(5000)"); err != nil {
		s.tb.Fatal(err)
	}
	s.runs, s.state = 0, s.look()
}

// template makes the database that each server begins with, and enters all users.
func (s *surface) template() {
	dir := filepath.Join(s.dir, "template")
	if err := os.RemoveAll(dir); err != nil {
		s.tb.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.tb.Fatal(err)
	}
	seed := filepath.Join(dir, "seed.yaml")
	if err := os.WriteFile(seed, exchange.Seed(), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	s.serve(filepath.Join(dir, surfaceFile), seed)
	vars, _ := exchange.Variables(exchange.Seed())
	s.known = known{
		bearer: map[string]string{}, session: map[string]string{}, operator: map[string]string{},
		listener: s.listener.URL, request: "00000000-0000-7000-8000-000000000000",
	}
	for _, app := range []string{"app", "other", "revoked"} {
		s.known.bearer[app] = s.enter("access_token", sampleOf(exchange.Exchange{Application: app},
			exchange.Request{Method: "POST", Path: "/api/ts/v1/oauth2/token", Body: form()}, vars))
	}
	for name := range vars {
		user, ok := strings.CutSuffix(name, ".password")
		if !ok {
			continue
		}
		body := fmt.Sprintf(`{"username": %q, "password": %q}`, vars[user+".name"], vars[user+".password"])
		s.known.session[user] = s.enter("sessionToken", sampleOf(exchange.Exchange{Application: "app", User: user},
			exchange.Request{Method: "POST", Path: "/api/m2m/v1/session/login", Body: body}, vars))
	}
	for _, role := range []auth.Role{auth.RoleViewer, auth.RoleOperator, auth.RoleAdmin} {
		token := auth.NewOperatorToken()
		record := auth.OperatorRecord{Operator: auth.Operator{Name: "the-" + string(role), Role: role}, TokenHash: auth.HashSecret(token)}
		if err := s.server.store.AddOperator(context.Background(), record, time.Now()); err != nil {
			s.tb.Fatal(err)
		}
		s.known.operator[string(role)] = string(token)
	}
	s.stop()
	s.made = time.Now()
}

// enter makes a call and returns a member of its answer.
func (s *surface) enter(member string, of sample) string {
	m := mutator{tape: &tape{}, known: &s.known}
	answer, body, err := s.send(m.frame(of)) //nolint:bodyclose // it is read
	var members map[string]any
	if err != nil || answer.StatusCode != http.StatusOK || json.Unmarshal(body, &members) != nil {
		s.tb.Fatalf("entering: %v, %v %s", err, answer, body)
	}
	text, _ := members[member].(string)
	return text
}

// serve starts a server.
func (s *surface) serve(path, seed string) {
	cfg := Config{
		Database: "sqlite:" + path, Seed: seed, Listen: "127.0.0.1:0", Carrier: "surface", Provisioner: s.carrier,
		CallbackAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, CallbackTimeout: 2 * time.Second,
		Grace: time.Second, Logger: slog.New(&s.logs), bodyTimeout: 5 * time.Second,
	}
	r := &running{done: make(chan error, 1)}
	var err error
	if r.Server, err = New(context.Background(), cfg); err != nil {
		s.tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.Run(ctx) }()
	s.server = r
}

func (s *surface) stop() {
	if s.db != nil {
		if err := s.db.Close(); err != nil {
			s.tb.Error(err)
		}
		s.db = nil
	}
	if s.server == nil {
		return
	}
	if err := s.server.end(); err != nil {
		s.tb.Errorf("the server ended with %v", err)
	}
	s.server = nil
}

// callTime bounds a call, above all that the server grants one.
const callTime = 20 * time.Second

// send makes a call on a connection of its own.
func (s *surface) send(c rawCall) (*http.Response, []byte, error) {
	conn, err := net.Dial("tcp", s.server.listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // or the machine runs out of ports
	_ = conn.SetDeadline(time.Now().Add(callTime))
	written := make(chan struct{})
	go func() { // a server may answer before it has read everything
		defer close(written)
		_, err := conn.Write(c.bytes)
		if err == nil && c.torn {
			_ = conn.(*net.TCPConn).CloseWrite()
		}
	}()
	defer func() { _ = conn.Close(); <-written }()
	from := bufio.NewReader(conn)
	for {
		answer, err := http.ReadResponse(from, &http.Request{Method: c.method})
		if err != nil {
			return nil, nil, err
		}
		if answer.StatusCode < 200 && answer.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		if answer.Header.Get("Content-Type") == "text/event-stream" {
			return answer, nil, nil
		}
		body, err := io.ReadAll(io.LimitReader(answer.Body, 32<<20))
		return answer, body, err
	}
}

// looks is what a refused call may not change: not when something was last used
// or tried, nor how far callbacks are.
var looks = map[string]string{
	"account": "name", "credential": "kind, name, hash, disabled", "access": "username, account", "session": "hash, application, username",
	"sim": "account, iccid, imei, imsi, mdn, state, generation, sku, request", "sim_owner": "iccid, account",
	"pool": "account, sku, purchased, reserved, assigned, threshold", "purchase": "account, sku, number, units",
	"request": "account, id, total, succeeded, failed, postings", "idempotency": "account, application, operation, key, hash, request",
	"task": "account, request, iccid, round, outcome, code", "posting": "account, request, number, kind, units",
	"listener": "account, service, url, username, password, secret, attempts, wait, timeout",
	"operator": "name, role, token, password, disabled", "audit": "id, action, target", "policy": "account, refuse_lifetime, daily",
	"policy_day": "account, day, devices", "strange_outcome": "account, request, iccid, verdict, times", "operator_session": "hash", "old_secret": "application, hash, ends",
}

// look is the state as it is when the carrier has nothing left to do.
func (s *surface) look() map[string]string {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(callTime); ; <-tick.C {
		var busy int
		const inWork = `SELECT count(*) FROM task WHERE phase = 'carrier' AND (carrier_due IS NULL OR carrier_due < $1)`
		if err := s.db.QueryRow(inWork, time.Now().Add(30*time.Minute).UnixMicro()).Scan(&busy); err != nil {
			s.tb.Fatal(err)
		}
		if busy == 0 {
			break
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("%d tasks are not settled", busy)
		}
	}
	state := map[string]string{}
	for table, columns := range looks {
		state[table] = s.hash("SELECT " + strings.ReplaceAll(columns, ", ", " || '|' || ") + " FROM " + table + " ORDER BY 1")
	}
	return state
}

// hash is of all rows of one text.
func (s *surface) hash(query string) string {
	rows, err := s.db.Query(query)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer rows.Close()
	h := sha256.New()
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			s.tb.Fatal(err)
		}
		h.Write([]byte(row + "\n"))
	}
	if err := rows.Err(); err != nil {
		s.tb.Fatal(err)
	}
	return string(h.Sum(nil))
}

// most is how many programs run on one database, and how many calls one may make.
const (
	mostPrograms = 25
	mostCalls    = 6
)

// run makes the calls of a program and returns what was found wrong, and in
// which ways calls were answered.
func (s *surface) run(program []byte) (wrong []string, answered []string) {
	if s.server == nil || s.runs >= mostPrograms {
		s.start()
	}
	s.runs++
	m := &mutator{tape: &tape{program}, samples: s.samples, words: s.words, known: &s.known}
	for n := 1 + m.pick(mostCalls); n > 0 && wrong == nil; n-- {
		c := m.call()
		answer, body, err := s.send(c) //nolint:bodyclose // it is read
		said := s.judge(c, answer, body, err)
		if answer != nil {
			answered = append(answered, fmt.Sprintf("%s | %d %s", of(c), answer.StatusCode, codeIn(body)))
		}
		for _, w := range said {
			wrong = append(wrong, fmt.Sprintf("%s\nof %.3000q\nanswered %v %.1000q", w, c.bytes, answer, body))
		}
	}
	var drifts []license.Drift
	if _, err := s.server.store.Verify(context.Background(), func(d license.Drift) { drifts = append(drifts, d) }); err != nil || drifts != nil {
		wrong = append(wrong, fmt.Sprintf("the ledger: %v %v", drifts, err))
	}
	wrong = append(wrong, s.logs.take()...)
	return wrong, answered
}

// of is the kind of a call: its method and the path, without what is different
// in each.
func of(c rawCall) string {
	path, _, _ := strings.Cut(c.path, "?")
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if strings.ContainsAny(segment, "0123456789%") && len(segment) > 3 {
			segments[i] = "*"
		}
	}
	return fmt.Sprintf("%.8s %.100s", c.method, strings.Join(segments, "/"))
}

// codeIn is the code in the body of an error.
func codeIn(body []byte) string {
	var e struct {
		Code string `json:"errorCode"`
		Type string `json:"type"`
	}
	_ = json.Unmarshal(body, &e)
	return e.Code + e.Type
}

// memory fails when the process has grown beyond what a server of this size may
// need.
func (s *surface) memory() error {
	s.stop()
	runtime.GC()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	const mostHeap, mostGoroutines = 256 << 20, 200
	if now.HeapAlloc > mostHeap || runtime.NumGoroutine() > mostGoroutines {
		var b bytes.Buffer
		fmt.Fprintf(&b, "%d bytes of heap and %d goroutines are left", now.HeapAlloc, runtime.NumGoroutine())
		return errors.New(b.String())
	}
	return nil
}
