package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
	"github.com/simlatch/simlatch/m2m/m2mtest"
)

// pace is how fast runs of tests ask again.
const pace = 20 * time.Millisecond

// other is a server before Simlatch, where calls meet their fate. One that strips
// is not Simlatch to its clients: it knows no dry run and no Idempotency-Key.
type other struct {
	*httptest.Server
	client *m2m.Client

	mu    sync.Mutex // guards what follows
	calls map[string]int
	lose  func(path string, n int) fate // of the n-th call of a path, from 1
}

// fate is what becomes of a call on its way.
type fate int

const (
	arrives fate = iota
	lostBefore
	lostAfter // it is carried out, and its answer is lost
	notFound
	busy
	away
	expired
)

// answers are those of fates that are answered in the place of the server.
var answers = map[fate]struct {
	status int
	body   string
}{
	notFound: {http.StatusNotFound, `{"errorCode": "UnifiedWebService.REQUEST_FAILED.ResourceNotFound", "errorMessage": "No."}`},
	busy:     {http.StatusTooManyRequests, `{"errorCode": "UnifiedWebService.REQUEST_FAILED.TooManyRequests", "errorMessage": "Slowly."}`},
	away:     {http.StatusServiceUnavailable, "upstream is away"},
	expired:  {http.StatusBadRequest, `{"errorCode": "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired", "errorMessage": "Expired."}`},
}

func newOther(t *testing.T, behind *m2mtest.Server, lose func(path string, n int) fate) *other {
	t.Helper()
	return newProxy(t, behind, true, lose)
}

func newProxy(t *testing.T, behind *m2mtest.Server, strip bool, lose func(path string, n int) fate) *other {
	t.Helper()
	target, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := &other{calls: map[string]int{}, lose: lose}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		if strip {
			r.Out.Header.Del("Idempotency-Key")
			r.Out.Header.Del(m2m.DryRunHeader)
		}
	}}
	proxy.ModifyResponse = func(a *http.Response) error {
		if strip {
			a.Header.Del(m2m.ServerHeader)
		}
		return nil
	}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		o.mu.Lock()
		path := q.Method + " " + strings.TrimPrefix(q.URL.Path, m2m.APIPrefix)
		if strings.HasSuffix(path, "/status") {
			path = "status"
		}
		o.calls[path]++
		f := arrives
		if o.lose != nil {
			f = o.lose(path, o.calls[path])
		}
		o.mu.Unlock()
		switch a, instead := answers[f]; {
		case instead:
			w.WriteHeader(a.status)
			_, _ = io.WriteString(w, a.body)
		case f == lostBefore:
			panic(http.ErrAbortHandler)
		case f == lostAfter:
			proxy.ServeHTTP(httptest.NewRecorder(), q)
			panic(http.ErrAbortHandler)
		default:
			proxy.ServeHTTP(w, q)
		}
	}))
	t.Cleanup(o.Close)
	o.client, err = m2m.New(m2m.Config{
		BaseURL: o.URL, Key: behind.Key, Secret: behind.Secret, Username: behind.Username, Password: behind.Password,
	})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *other) count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[path]
}

const assignCall = "POST /devices/license/actions/assign"

// plan makes a plan for devices and writes it.
func plan(t *testing.T, c *m2m.Client, s *m2mtest.Server, action license.Action, sku string, devices []m2m.Device) (*bulk.Plan, string) {
	t.Helper()
	var args []string
	for _, d := range devices {
		args = append(args, d.IMEI()+","+d.ICCID())
	}
	p, err := bulk.Make(t.Context(), bulk.MakeParams{
		Client: c, Server: s.URL, Account: s.Account, Action: action, SKU: sku, Fleet: bulk.Devices(args), Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fleet.plan")
	if err := p.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	p, err = bulk.ReadPlan(path)
	if err != nil {
		t.Fatal(err)
	}
	return p, path
}

// apply applies a plan and returns what it ended with.
func apply(t *testing.T, p *bulk.Plan, path string, cfg bulk.Config) ([]bulk.Result, error) {
	t.Helper()
	run, err := bulk.Open(p, path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Pace == 0 {
		cfg.Pace = pace
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	cfg.Notice = func(s string) { t.Log(s) }
	err = run.Apply(t.Context(), cfg)
	results := run.Results()
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	return results, err
}

func listen(t *testing.T, cfg bulk.Config) bulk.Config {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	cfg.Listener, cfg.ListenerURL = ln, "http://"+ln.Addr().String()
	return cfg
}

// statuses counts results by how they ended.
func statuses(results []bulk.Result) map[bulk.Status]int { return bulk.Summarize(results).ByStatus }

func wantStatuses(t *testing.T, results []bulk.Result, want map[bulk.Status]int) {
	t.Helper()
	if got := statuses(results); !maps.Equal(got, want) {
		t.Errorf("the rows ended as %v, want %v\n%+v", got, want, results)
	}
}

// assigned is how many licenses the account's SIMs hold.
func assigned(t *testing.T, s *m2mtest.Server, sku string) int64 {
	t.Helper()
	list, err := s.Client.Subscriptions(t.Context(), s.Account, sku)
	if err != nil || len(list.SubscriptionList) != 1 {
		t.Fatalf("Subscriptions = %+v, %v", list, err)
	}
	return list.SubscriptionList[0].LicenseAssigned
}

// TestApply: a plan is carried out, by asking and with a listener, and a second
// time does nothing.
func TestApply(t *testing.T) {
	for _, withListener := range []bool{false, true} {
		t.Run(fmt.Sprintf("listener=%v", withListener), func(t *testing.T) {
			s := m2mtest.NewServer(t, m2mtest.WithDevices(30))
			s.Refuse(s.Devices[4])
			p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
			cfg := bulk.Config{Client: s.Client, Batch: 7}
			if withListener {
				cfg = listen(t, cfg)
			}
			results, err := apply(t, p, path, cfg)
			if err != nil {
				t.Fatal(err)
			}
			wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 29, bulk.StatusFailed: 1})
			failed := results[4]
			if failed.Status != bulk.StatusFailed || failed.Code != m2m.CodeCarrierRequestUnsuccessful || failed.RequestID == "" ||
				strings.Contains(failed.Message, "--listen") == withListener {
				t.Errorf("the refused device ended as %+v", failed)
			}
			again, err := apply(t, p, path, bulk.Config{Client: s.Client})
			if err != nil || !slices.Equal(again, results) {
				t.Errorf("applied again: %+v, %v", again, err)
			}
			if left, err := s.Client.Listeners(t.Context(), s.Account); err != nil || len(left) > 0 {
				t.Errorf("Listeners = %+v, %v; want none left behind", left, err)
			}
		})
	}
}

// TestApplyNarrows: a device that would be refused only since the plan was made
// does not keep the others from going.
func TestApplyNarrows(t *testing.T) {
	for _, name := range []string{"simlatch", "other"} {
		t.Run(name, func(t *testing.T) {
			s := m2mtest.NewServer(t, m2mtest.WithDevices(12), m2mtest.WithMaxDevices(8))
			c := s.Client
			if name == "other" {
				c = newOther(t, s, nil).client
			}
			p, path := plan(t, c, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
			id, err := s.Client.Assign(t.Context(), m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKUBundle, Devices: s.Devices[3:5]})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Client.Wait(t.Context(), s.Account, id); err != nil {
				t.Fatal(err)
			}
			results, err := apply(t, p, path, bulk.Config{Client: c, Batch: 12}) // more than the server takes
			if err != nil {
				t.Fatal(err)
			}
			wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 10, bulk.StatusFailed: 2})
			for _, r := range results[3:5] {
				if bulk.Verdict(r.Code, r.Message) != "licensed already, or on the way" {
					t.Errorf("a device that got a license since ended as %+v", r)
				}
			}
			if got := assigned(t, s, m2mtest.SKUFlexible); got != 10 {
				t.Errorf("%d are assigned, want 10", got)
			}
		})
	}
}

// TestLostAnswer: of a server that does not know the Idempotency-Key, the answer
// to a request is lost, or the request is. Nothing is assigned twice, and what is
// for ever is not sent again.
func TestLostAnswer(t *testing.T) {
	for _, c := range []struct {
		name, sku string
		fate      fate
		listener  bool
		want      map[bulk.Status]int
		sends     int
		message   string
	}{
		{"flexible, before", m2mtest.SKUFlexible, lostBefore, false, map[bulk.Status]int{bulk.StatusSuccess: 10}, 3, ""},
		{"flexible, after", m2mtest.SKUFlexible, lostAfter, false, map[bulk.Status]int{bulk.StatusSuccess: 5, bulk.StatusUnknown: 5}, 2, "the request was accepted, but its id is lost"},
		{"flexible, after, with listener", m2mtest.SKUFlexible, lostAfter, true, map[bulk.Status]int{bulk.StatusSuccess: 10}, 2, ""},
		{"lifetime, before", m2mtest.SKULifetime, lostBefore, false, map[bulk.Status]int{bulk.StatusSuccess: 5, bulk.StatusUnknown: 5}, 2, "--repeat-lost"},
		{"lifetime, after", m2mtest.SKULifetime, lostAfter, false, map[bulk.Status]int{bulk.StatusSuccess: 5, bulk.StatusUnknown: 5}, 2, "the request was accepted, but its id is lost"},
		{"lifetime, after, with listener", m2mtest.SKULifetime, lostAfter, true, map[bulk.Status]int{bulk.StatusSuccess: 10}, 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := m2mtest.NewServer(t, m2mtest.WithDevices(10))
			o := newOther(t, s, func(path string, n int) fate {
				if path == assignCall && n == 1 {
					return c.fate
				}
				return arrives
			})
			p, path := plan(t, o.client, s, license.Assign, c.sku, s.Devices)
			if p.DryRun || len(p.Unchecked) == 0 {
				t.Errorf("the plan says that the server was asked for a dry run: %+v", p)
			}
			cfg := bulk.Config{Client: o.client, Batch: 5}
			if c.listener {
				cfg = listen(t, cfg)
			}
			results, err := apply(t, p, path, cfg)
			if err != nil {
				t.Fatal(err)
			}
			wantStatuses(t, results, c.want)
			if got := o.count(assignCall); got != c.sends {
				t.Errorf("%d requests were sent, want %d", got, c.sends)
			}
			if c.message != "" && !strings.Contains(results[0].Message, c.message) {
				t.Errorf("the message is %q, want %q", results[0].Message, c.message)
			}
			if c.fate == lostBefore && c.sku == m2mtest.SKULifetime {
				results, err = apply(t, p, path, bulk.Config{Client: o.client, RepeatLost: true})
				if err != nil {
					t.Fatal(err)
				}
				wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 10})
			}
			want := int64(10)
			if got := assigned(t, s, c.sku); got != want {
				t.Errorf("%d are assigned, want %d", got, want)
			}
		})
	}
}

// TestTrouble: whatever calls meet on their way to Simlatch, the plan is carried
// out without loss and without doing anything twice.
func TestTrouble(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(40))
	fates := []fate{arrives, lostAfter, busy, expired, lostBefore, away, lostAfter, arrives}
	o := newProxy(t, s, false, func(path string, n int) fate {
		if path != assignCall && path != "status" {
			return arrives
		}
		return fates[n%len(fates)]
	})
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
	results, err := apply(t, p, path, bulk.Config{Client: o.client, Batch: 3, Pace: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 40})
	if got := assigned(t, s, m2mtest.SKUFlexible); got != 40 {
		t.Errorf("%d are assigned, want 40", got)
	}
	requests := map[string]bool{}
	for _, r := range results {
		requests[r.RequestID] = true
	}
	if len(requests) != 14 {
		t.Errorf("there were %d requests, want 14", len(requests))
	}
}

// TestUntold: a server that does not tell how requests stand is not asked for
// ever.
func TestUntold(t *testing.T) {
	s := m2mtest.NewServer(t)
	o := newOther(t, s, func(path string, _ int) fate {
		if path == "status" {
			return notFound
		}
		return arrives
	})
	p, path := plan(t, o.client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
	results, err := apply(t, p, path, bulk.Config{Client: o.client})
	if !errors.Is(err, bulk.ErrUntold) {
		t.Errorf("Apply = %v, want ErrUntold", err)
	}
	wantStatuses(t, results, map[bulk.Status]int{bulk.StatusPending: 10})

	// Whether a listener is told is another matter: it comes too late.
	_, err = apply(t, p, path, listen(t, bulk.Config{Client: o.client, Timeout: 200 * time.Millisecond}))
	if !errors.Is(err, bulk.ErrTimeout) {
		t.Errorf("Apply = %v, want ErrTimeout", err)
	}
}

// TestListenerRestored: the listener that was there gets what is not the run's
// while that lasts, and its place afterwards; also when the run was killed.
func TestListenerRestored(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(20), m2mtest.WithCarrierDelay(300*time.Millisecond))
	got := make(chan m2m.CallbackMessage, 100)
	before := httptest.NewServer(m2m.CallbackHandler(func(_ context.Context, m *m2m.CallbackMessage) error {
		got <- *m
		return nil
	}))
	t.Cleanup(before.Close)
	register := m2m.ListenerRequest{Name: m2m.CarrierService, URL: before.URL}
	if _, err := s.Client.RegisterListener(t.Context(), s.Account, register); err != nil {
		t.Fatal(err)
	}
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices[:10])
	foreign, err := s.Client.Assign(t.Context(), m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKUFlexible, Devices: s.Devices[10:]})
	if err != nil {
		t.Fatal(err)
	}
	results, err := apply(t, p, path, listen(t, bulk.Config{Client: s.Client}))
	if err != nil {
		t.Fatal(err)
	}
	wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 10})
	for range 10 {
		select {
		case m := <-got:
			if m.RequestID != foreign {
				t.Errorf("the former listener was told of %s", m.RequestID)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the former listener was not told of what is not the run's")
		}
	}
	now, err := s.Client.Listeners(t.Context(), s.Account)
	if err != nil || len(now) != 1 || now[0].URL != before.URL {
		t.Errorf("Listeners = %+v, %v; want %s back", now, err, before.URL)
	}

	// What was killed before it could restore is caught up on.
	journal, err := os.ReadFile(bulk.JournalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(journal)), "\n")
	if err := os.WriteFile(bulk.JournalPath(path), []byte(strings.Join(lines[:len(lines)-1], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	mine := "http://127.0.0.1:1/"
	for _, line := range lines {
		if _, rest, ok := strings.Cut(line, `"url":"`); ok {
			mine, _, _ = strings.Cut(rest, `"`)
			break
		}
	}
	if _, err := s.Client.RegisterListener(t.Context(), s.Account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: mine}); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, p, path, bulk.Config{Client: s.Client}); err != nil {
		t.Fatal(err)
	}
	now, err = s.Client.Listeners(t.Context(), s.Account)
	if err != nil || len(now) != 1 || now[0].URL != before.URL {
		t.Errorf("after the run was killed: Listeners = %+v, %v; want %s back", now, err, before.URL)
	}

	// A password that is not shown could not be put back.
	register.Username, register.Password = "me", "secret"
	if _, err := s.Client.RegisterListener(t.Context(), s.Account, register); err != nil {
		t.Fatal(err)
	}
	p, path = plan(t, s.Client, s, license.Unassign, m2mtest.SKUFlexible, s.Devices[:10])
	if _, err := apply(t, p, path, listen(t, bulk.Config{Client: s.Client})); err == nil || !strings.Contains(err.Error(), "leave --listen out") {
		t.Errorf("Apply in place of a listener with a password = %v", err)
	}
}

// TestShort: a plan for which there are too few licenses sends nothing.
func TestShort(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(10), m2mtest.WithPool(m2mtest.SKUFlexible, 7))
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
	if p.Short() != 3 || p.After.LicenseAvailable != 0 {
		t.Errorf("the plan is short of %d, and leaves %d", p.Short(), p.After.LicenseAvailable)
	}
	if _, err := apply(t, p, path, bulk.Config{Client: s.Client}); !errors.Is(err, bulk.ErrShort) {
		t.Errorf("Apply = %v, want ErrShort", err)
	}
}

// TestPlanFile: a plan that was changed is refused, and so is one whose journal
// is another's or damaged; a torn end is not.
func TestPlanFile(t *testing.T) {
	s := m2mtest.NewServer(t)
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices[:3])
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed := filepath.Join(t.TempDir(), "changed.plan")
	for _, c := range []struct{ from, to, want string }{
		{`"sku": "SIMSec-IoT"`, `"sku": "SIMSec-IoT-Lt"`, "has been changed since it was made"},
		{`"action": "assign"`, `"action":  "assign"`, "has been changed since it was made"},
		{`"digest": "sha256:`, `"digest": "sha256:0`, "has been changed since it was made"},
		{`"simlatchPlan": 1`, `"simlatchPlan": 2`, "it was made by a newer one"},
		{"{", "[", "is no plan"},
	} {
		write(changed, strings.Replace(string(text), c.from, c.to, 1))
		if _, err := bulk.ReadPlan(changed); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadPlan with %s = %v, want %q", c.to, err, c.want)
		}
	}
	if _, err := apply(t, p, path, bulk.Config{Client: s.Client, Batch: 2}); err != nil {
		t.Fatal(err)
	}
	if err := p.WriteFile(path); err == nil || !strings.Contains(err.Error(), "has been applied") {
		t.Errorf("WriteFile over a plan that was applied = %v", err)
	}
	journal, err := os.ReadFile(bulk.JournalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ journal, want string }{
		{string(journal) + `{"kind":"outc`, ""},
		{strings.Replace(string(journal), "sha256:", "sha256:f", 1), "this is the journal of another plan"},
		{strings.Replace(string(journal), `"kind"`, `kind`, 1), "the journal is damaged"},
		{strings.Replace(string(journal), `"request":1`, `"request":9`, 1), "the journal is damaged"},
		{string(journal) + "{\"kind\":\"news\"}\n", "written by a newer simlatch"},
	} {
		write(bulk.JournalPath(path), c.journal)
		run, err := bulk.Open(p, path)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Open = %v, want %q", err, c.want)
		}
		if err == nil {
			if _, err := bulk.Open(p, path); err == nil || !strings.Contains(err.Error(), "another process is applying this plan") {
				t.Errorf("Open of a plan that is open = %v", err)
			}
			if err := run.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestJournalCut: a run can end after any entry of its journal, and the next one
// comes to the same end.
func TestJournalCut(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(6))
	s.Refuse(s.Devices[1])
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
	want, err := apply(t, p, path, bulk.Config{Client: s.Client, Batch: 2})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(bulk.JournalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for n := range len(lines) - 1 {
		whole := strings.Join(lines[:n], "")
		if strings.Count(whole, `"send"`) < 3 {
			continue // a request that was sent is always in it
		}
		cut := whole + lines[n][:len(lines[n])/2]
		if err := os.WriteFile(bulk.JournalPath(path), []byte(cut), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := apply(t, p, path, bulk.Config{Client: s.Client})
		if err != nil {
			t.Fatalf("after %d entries: %v", n, err)
		}
		for i := range got {
			got[i].Time = want[i].Time
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %d entries: %+v\nwant %+v", n, got, want)
		}
	}
	if got := assigned(t, s, m2mtest.SKUFlexible); got != 5 {
		t.Errorf("%d are assigned, want 5", got)
	}
}
