package console_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/m2m"
)

// The scene: two accounts, one of which has a listener that works and one that has
// a listener in trouble.
const (
	fleet   = "0342077109-00001"
	metered = "0777000111-00001"

	began = 26 * time.Hour // ago

	password = "correct horse battery"
)

// patience bounds every wait.
const patience = 20 * time.Second

// scene is a server with something to see, which all browser tests of a process
// share.
type scene struct {
	url    string
	client *m2m.Client
	clock  *clock
	store  *store.Store // beside the server
	mu     sync.Mutex
	fails  map[string]bool // ICCIDs whose callbacks are not acknowledged
}

// iccid is the n-th SIM of an account, with its check digit.
func iccid(account, n int) string {
	digits := fmt.Sprintf("8914800%d%010d", account, n)
	return digits + string(luhn(digits))
}

func imei(account, n int) string {
	digits := fmt.Sprintf("35%d%011d", account, n)
	return digits + string(luhn(digits))
}

func luhn(digits string) byte {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return byte('0' + (10-sum%10)%10)
}

// A fickle carrier refuses and forgets SIMs by what their ICCIDs say.
type fickle struct{}

func (fickle) Provision(_ context.Context, tasks []license.Task) (outcomes []license.Outcome, _ error) {
	for _, t := range tasks {
		o := license.Outcome{Task: t, Verdict: license.Done}
		switch n := string(t.Device.ICCID[14:18]); {
		case n == "0070" || n == "0071" || n == "0072":
			o.Verdict, o.Comment = license.Retry, "the carrier's system did not answer"
		case strings.HasSuffix(n, "7"):
			o.Verdict, o.Code, o.Comment = license.Refused, "SIM_BARRED", "the SIM is barred in the network"
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

// A clock runs with the machine's and is behind it, by less and less: what took a
// day is played in a second.
type clock struct{ behind atomic.Int64 }

func (c *clock) Now() time.Time                         { return time.Now().Add(-time.Duration(c.behind.Load())) }
func (c *clock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// newScene starts a server and has clients use it.
func newScene(t testing.TB) *scene {
	t.Helper()
	dir, err := os.MkdirTemp("", "simlatch-console")
	must(t, err)
	atEnd(func() { _ = os.RemoveAll(dir) })
	s := &scene{clock: &clock{}, fails: map[string]bool{iccid(1, 3): true, iccid(1, 4): true}}
	s.clock.behind.Store(int64(began))
	database := "sqlite:" + filepath.Join(dir, "scene.db")
	s.open(t, database)
	seed := filepath.Join(dir, "seed.yaml")
	must(t, os.WriteFile(seed, []byte(seedText()), 0o600))
	ctx, stop := context.WithCancel(context.Background())
	srv, err := server.New(ctx, server.Config{
		Listen: "127.0.0.1:0", Database: database, Seed: seed, Carrier: "scene", Provisioner: fickle{},
		CallbackAllow:    []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Clock:            s.clock,
		CallbackInterval: 50 * time.Millisecond, CallbackTimeout: 2 * time.Second, CallbackAttempts: 2,
	})
	if err != nil {
		stop()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	atEnd(func() {
		stop()
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "the scene ended with", err)
		}
	})
	s.url = srv.URL()
	s.client, err = m2m.New(m2m.Config{BaseURL: s.url, Key: "fleet-portal", Secret: "fleet-portal-secret", Username: "ada", Password: "ada-password"})
	must(t, err)
	s.play(t)
	return s
}

// open opens the database, and adds an operator of each role, who can sign in.
func (s *scene) open(t testing.TB, database string) {
	t.Helper()
	db, err := store.Open(context.WithoutCancel(t.Context()), database, store.Options{})
	must(t, err)
	_, err = db.Migrate(t.Context())
	must(t, err)
	s.store = db
	atEnd(func() { _ = db.Close() })
	hash := auth.HashPassword(password)
	for _, role := range auth.Roles() {
		must(t, db.AddOperator(t.Context(), auth.OperatorRecord{
			Operator: auth.Operator{Name: operatorOf(role), Role: role}, PasswordHash: hash,
			TokenHash: auth.HashSecret(auth.NewOperatorToken()),
		}, s.clock.Now()))
	}
}

// operatorOf is the name of the operator with a role.
func operatorOf(role auth.Role) string {
	return map[auth.Role]string{auth.RoleViewer: "vera", auth.RoleOperator: "olga", auth.RoleAdmin: "anna"}[role]
}

func seedText() string {
	var b strings.Builder
	fmt.Fprintf(&b, `applications: [{key: fleet-portal, secret: fleet-portal-secret}, {key: billing, secret: billing-secret}]
users:
  - {username: ada, password: ada-password, accounts: [%q, %q]}
  - {username: bob, password: bob-password, accounts: [%q]}
accounts:
  - {name: %q, pools: {SIMSec-IoT: 400, SIMSec-IoT-Lt: 40, TS-BUNDLE-KTO-SIMSEC-MRC: 120}}
  - {name: %q, pools: {SIMSec-IoT: 25}}
devices:
`, fleet, metered, metered, fleet, metered)
	for account, name := range map[int]string{1: fleet, 2: metered} {
		for n := 1; n <= 100*(3-account); n++ {
			fmt.Fprintf(&b, "  - {account: %q, iccid: %q, imei: %q, mdn: \"555%d%06d\"}\n", name, iccid(account, n), imei(account, n), account, n)
		}
	}
	return b.String()
}

// play has clients do what there is to see.
func (s *scene) play(t testing.TB) {
	t.Helper()
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // what is cut off names no device
		s.mu.Lock()
		defer s.mu.Unlock()
		for iccid := range s.fails {
			if strings.Contains(string(body), iccid) {
				http.Error(w, "the fleet portal is being updated", http.StatusServiceUnavailable)
				return
			}
		}
	}))
	atEnd(good.Close)
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "<h1>500</h1> database connection lost", http.StatusInternalServerError)
	}))
	atEnd(bad.Close)
	for account, url := range map[string]string{fleet: good.URL + "/sim-events", metered: bad.URL + "/hooks/licenses"} {
		_, err := s.client.RegisterListener(t.Context(), account, m2m.ListenerRequest{
			Name: license.CarrierService, URL: url, Username: "simlatch", Password: "listener-password",
		})
		must(t, err)
	}
	for _, r := range []struct {
		account  license.AccountName
		sku      license.SKU
		number   int
		from, to int
	}{
		{fleet, license.SKUBundle, 1, 61, 80},
		{fleet, license.SKUFlexible, 1, 1, 40},
		{fleet, license.SKULifetime, 1, 41, 60},
		{metered, license.SKUFlexible, 2, 1, 22},
	} {
		s.assign(t, r.account, r.sku, r.number, r.from, r.to)
		s.settle(t, r.account)
		s.clock.behind.Add(int64(-began / 5))
	}
	s.clock.behind.Store(0)
	s.until(t, "three tasks are stuck", func() bool {
		stuck, err := s.store.StuckTasks(t.Context(), fleet)
		must(t, err)
		return len(stuck) == 3
	})
}

// settle waits until the callbacks of an account have ended, but for what the
// carrier says nothing about.
func (s *scene) settle(t testing.TB, account license.AccountName) {
	t.Helper()
	s.until(t, "callbacks have ended", func() bool {
		requests, _, _, err := s.store.Requests(t.Context(), store.RequestFilter{Account: account, Limit: 100})
		must(t, err)
		open := 0
		for _, r := range requests {
			open += r.Total - r.Ended
		}
		return open <= 3
	})
}

func (s *scene) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to be that %s", what)
		}
	}
}

// assign assigns licenses to SIMs and waits until the carrier has answered for
// those that it answers for.
func (s *scene) assign(t testing.TB, account license.AccountName, sku license.SKU, number, from, to int) string {
	t.Helper()
	in := m2m.LicenseRequest{AccountName: string(account), SKUNumber: string(sku)}
	for n := from; n <= to; n++ {
		in.Devices = append(in.Devices, m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: iccid(number, n), Kind: "iccid"}}})
	}
	id, err := s.client.Assign(t.Context(), in)
	must(t, err)
	return id
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What is shared ends with the process.
var (
	endMu sync.Mutex
	ends  []func()
)

func atEnd(f func()) {
	endMu.Lock()
	defer endMu.Unlock()
	ends = append(ends, f)
}

func TestMain(m *testing.M) {
	status := m.Run()
	for i := len(ends) - 1; i >= 0; i-- {
		ends[i]()
	}
	os.Exit(status)
}

// theScene is started by the first test that needs it.
var theScene struct {
	once sync.Once
	s    *scene
}

func sharedScene(t testing.TB) *scene {
	t.Helper()
	theScene.once.Do(func() { theScene.s = newScene(t) })
	if theScene.s == nil {
		t.Fatal("the scene could not be set")
	}
	return theScene.s
}
