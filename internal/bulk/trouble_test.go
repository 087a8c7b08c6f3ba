package bulk_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
	"github.com/simlatch/simlatch/m2m/m2mtest"
)

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

// TestKilledAtOther: a run that was killed between a request and its answer, at a
// server that does not know the Idempotency-Key, does not send it again.
func TestKilledAtOther(t *testing.T) {
	for _, sku := range []string{m2mtest.SKUFlexible, m2mtest.SKULifetime} {
		s := m2mtest.NewServer(t)
		o := newOther(t, s, nil)
		p, path := plan(t, o.client, s, license.Assign, sku, s.Devices)
		if _, err := apply(t, p, path, bulk.Config{Client: o.client}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(bulk.JournalPath(path))
		if err != nil {
			t.Fatal(err)
		}
		cut, _, _ := strings.Cut(string(text), `{"kind":"accepted"`)
		if err := os.WriteFile(bulk.JournalPath(path), []byte(cut), 0o600); err != nil {
			t.Fatal(err)
		}
		results, err := apply(t, p, path, bulk.Config{Client: o.client})
		if err != nil {
			t.Fatal(err)
		}
		wantStatuses(t, results, map[bulk.Status]int{bulk.StatusUnknown: 10})
		if n := o.count(assignCall); n != 1 {
			t.Errorf("%s: the request was sent %d times", sku, n)
		}
	}
}

// TestOldKey: a run that goes on when Simlatch has forgotten its key asks what
// became of the devices, and sends what was not done.
func TestOldKey(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(8))
	s.Refuse(s.Devices[1])
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
	if _, err := apply(t, p, path, bulk.Config{Client: s.Client, Batch: 4}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(bulk.JournalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfterN(string(text), "\n", 3)
	if !strings.Contains(lines[1], `"send"`) {
		t.Fatalf("the journal begins with %s", lines[:2])
	}
	old := strings.Replace(lines[1], `"at":"20`, `"at":"19`, 1)
	if err := os.WriteFile(bulk.JournalPath(path), []byte(lines[0]+old), 0o600); err != nil {
		t.Fatal(err)
	}
	unassign(t, s, s.Devices[4:])
	results, err := apply(t, p, path, bulk.Config{Client: s.Client})
	if err != nil {
		t.Fatal(err)
	}
	wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 7, bulk.StatusFailed: 1})
	if r := results[0]; !strings.Contains(r.Message, "found done") {
		t.Errorf("what was done before ended as %+v", r)
	}
	if got := assigned(t, s, m2mtest.SKUFlexible); got != 7 {
		t.Errorf("%d are assigned, want 7", got)
	}
}

// unassign takes licenses back, so that devices are as if they had never been
// asked about.
func unassign(t *testing.T, s *m2mtest.Server, devices []m2m.Device) {
	t.Helper()
	id, err := s.Client.Unassign(t.Context(), m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKUFlexible, Devices: devices})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client.Wait(t.Context(), s.Account, id); err != nil {
		t.Fatal(err)
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
