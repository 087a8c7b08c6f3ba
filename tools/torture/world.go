package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// fleet names the SIMs; the work is on two accounts.
var fleet = load.Fleet{Mark: 77}

var accounts = [...]string{"0000123456-00001", "0000654321-00001"}

// A world is one seed: a database, servers that die on it, the clients, and the
// carrier and the listener, which live through all of it.
type world struct {
	ctx      context.Context // ends with the world
	plan     plan
	binary   string
	dir      string
	database string
	log      *os.File // of the servers
	urls     atomic.Pointer[[]string]
	next     atomic.Uint64
	http     *http.Client
	slow     atomic.Bool // the carrier and the listener are

	bearer, session, operator string
	carrier                   *carrier
	sink                      *sink
	carrierURL, sinkURL       string
	patience                  time.Duration  // drainPatience
	between                   func(life int) // after each life; nil but in tests
	stop                      chan struct{}  // closed when no more work is to be asked for
	migrations                int            // that servers have beside the schema's own
	working                   sync.WaitGroup

	mu     sync.Mutex // guards what follows, and what the carrier and the sink have
	rand   *rand.Rand
	faults []string
	row    row // lost, double, wrong, and the work
	books
}

// books are what the clients know.
type books struct {
	requests map[string]asked       // that were acknowledged, by ID
	held     map[string]bool        // SIMs that hold a license, as far as was told
	bought   map[string]certainty   // purchases by reference
	imported map[int]imported       // by the number of the first SIM
	pools    map[[2]string]struct{} // account and SKU
}

type asked struct {
	account string
	devices int
}

type imported struct {
	account string
	n       int
}

// certainty is of work that was asked for.
type certainty int

const (
	unknown certainty = iota // nobody could say what became of it
	acknowledged
)

func newWorld(ctx context.Context, p plan, binary, dir, database string) (*world, func(), error) {
	w := &world{
		ctx: ctx, plan: p, binary: binary, dir: dir, database: database,
		patience: drainPatience, stop: make(chan struct{}), rand: rand.New(rand.NewPCG(p.seed, 9)),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
		books: books{
			requests: map[string]asked{}, held: map[string]bool{}, bought: map[string]certainty{},
			imported: map[int]imported{}, pools: map[[2]string]struct{}{},
		},
	}
	w.urls.Store(&[]string{})
	w.carrier = &carrier{w: w, truth: map[string]string{}, holds: map[string]string{}, owed: map[string]bool{}, account: map[string]string{}}
	w.sink = &sink{w: w, came: map[string]map[string]*told{}}
	if err := w.writeFiles(); err != nil {
		return nil, nil, err
	}
	outer := http.NewServeMux()
	outer.Handle("/carrier", w.carrier)
	outer.Handle("/callbacks", w.sink)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.slow.Load() {
			sleep(ctx, 50*time.Millisecond)
		}
		outer.ServeHTTP(rw, r)
	}))
	w.carrierURL, w.sinkURL = srv.URL+"/carrier", srv.URL+"/callbacks"
	return w, func() {
		srv.CloseClientConnections()
		srv.Close()
		w.http.CloseIdleConnections()
		_ = w.log.Close() // nothing is written any more
	}, nil
}

// sims is how many SIMs the clients work on.
func (w *world) sims() int { return w.plan.clients * (w.plan.chunks*8 + w.plan.large) }

func (w *world) writeFiles() (err error) {
	var csv strings.Builder
	csv.WriteString("account,imei,iccid\n")
	for i := range w.sims() {
		fmt.Fprintf(&csv, "%s,%s,%s\n", w.accountOf(i), fleet.IMEI(i), fleet.ICCID(i))
	}
	seed := "applications: [{key: k, secret: a-secret-of-some-length}]\n" +
		fmt.Sprintf("users: [{username: u, password: p, accounts: [%q, %q]}]\naccounts:\n", accounts[0], accounts[1])
	for _, a := range accounts {
		seed += fmt.Sprintf("  - {name: %q, pools: {SIMSec-IoT: 100000, TS-BUNDLE-KTO-SIMSEC-MRC: 100000, SIMSec-IoT-Lt: 100000}}\n", a)
	}
	for name, text := range map[string]string{
		"fleet.csv": csv.String(), "seed.yaml": seed + "deviceFiles: [fleet.csv]\n",
		"key": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n",
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	w.log, err = os.Create(filepath.Join(w.dir, "server.log"))
	return err
}

// accountOf is the account of a SIM of the clients: each client has one account.
func (w *world) accountOf(i int) string {
	return accounts[i/(w.plan.chunks*8+w.plan.large)%len(accounts)]
}

// chance is true in so many of 100 cases; w.mu is held.
func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

func (w *world) fault(count *int, format string, args ...any) {
	*count++
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

// lost, double and wrong note harm; w.mu is held.
func (w *world) lost(format string, args ...any) { w.fault(&w.row.Lost, "lost: "+format, args...) }

func (w *world) double(format string, args ...any) {
	w.fault(&w.row.Double, "double: "+format, args...)
}

func (w *world) wrong(format string, args ...any) { w.fault(&w.row.Wrong, "wrong: "+format, args...) }

// serve starts a server that dies as l says; an empty life dies nowhere.
func (w *world) serve(l life) (*process, error) {
	cmd := exec.Command(w.binary, "serve", "--carrier", "http:"+w.carrierURL, "--listen", "127.0.0.1:0", //nolint:noctx // it is ended by hand
		"--database", w.database, "--secrets-key-file", "key", "--seed", "seed.yaml", "--callback-allow", "127.0.0.0/8",
		"--callback-interval", "200ms", "--grace", "3s", "--log-format", "json")
	cmd.Dir, cmd.Stderr = w.dir, w.log
	cmd.Env = append(plainEnvironment(), "SIMLATCH_CARRIER_SECRET="+carrierSecret, "CRASH_LOG="+w.crashLog())
	if w.migrations += l.migrations; w.migrations > 0 {
		cmd.Env = append(cmd.Env, "CRASH_MIGRATIONS="+strconv.Itoa(w.migrations))
	}
	if l.end == endPoint || l.end == endShutdown {
		cmd.Env = append(cmd.Env, fmt.Sprintf("CRASH_AT=%s:%d", l.name(), l.passage))
	}
	return startProcess(cmd)
}

func (w *world) crashLog() string { return filepath.Join(w.dir, "crash.log") }

// run runs another command of the server's program to its end.
func (w *world) run(args ...string) (string, error) {
	cmd := exec.CommandContext(w.ctx, w.binary, append(args, "--database", w.database, "--secrets-key-file", "key")...)
	cmd.Dir, cmd.Env = w.dir, plainEnvironment()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("simlatch %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), stderr.String())
	}
	return out.String(), nil
}

// errNoServer says that no server lives at the moment.
var errNoServer = errors.New("no server lives")

// call makes a call to one of the servers that live.
func (w *world) call(ctx context.Context, method, path string, body io.Reader, header map[string]string) (int, []byte, error) {
	urls := *w.urls.Load()
	if len(urls) == 0 {
		return 0, nil, errNoServer
	}
	r, err := http.NewRequestWithContext(ctx, method, urls[w.next.Add(1)%uint64(len(urls))]+path, body)
	if err != nil {
		return 0, nil, err
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	a, err := w.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	answer, err := io.ReadAll(a.Body)
	return a.StatusCode, answer, err
}

// login makes an operator, gets the token and the session that all clients use, and
// registers the listener.
func (w *world) login() error {
	out, err := w.run("operator", "create", "olga", "--role", "operator")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if token, ok := strings.CutPrefix(line, "token"); ok {
			w.operator = strings.TrimSpace(token)
		}
	}
	header := map[string]string{"Authorization": "Basic azphLXNlY3JldC1vZi1zb21lLWxlbmd0aA==", "Content-Type": "application/x-www-form-urlencoded"}
	var token m2m.TokenAnswer
	if err := w.get("/api/ts/v1/oauth2/token", url.Values{"grant_type": {"client_credentials"}}.Encode(), header, &token); err != nil {
		return err
	}
	w.bearer = token.AccessToken
	var session m2m.SessionAnswer
	if err := w.get("/api/m2m/v1/session/login", `{"username": "u", "password": "p"}`, w.header(), &session); err != nil {
		return err
	}
	w.session = session.SessionToken
	for _, a := range accounts {
		var l m2m.ListenerAnswer
		if err := w.get("/api/m2m/v1/callbacks/"+a, fmt.Sprintf(`{"name": "CarrierService", "url": %q}`, w.sinkURL), w.header(), &l); err != nil {
			return err
		}
	}
	return nil
}

// header is that of a client's calls.
func (w *world) header() map[string]string {
	h := map[string]string{"Authorization": "Bearer " + w.bearer, "Content-Type": "application/json"}
	if w.session != "" {
		h[m2m.SessionHeader] = w.session
	}
	return h
}

func (w *world) get(path, body string, header map[string]string, out any) error {
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	status, answer, err := w.call(ctx, http.MethodPost, path, strings.NewReader(body), header)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, answer)
	}
	if err == nil {
		err = json.Unmarshal(answer, out)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
