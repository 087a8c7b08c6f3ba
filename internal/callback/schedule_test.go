package callback

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// log records what a listener saw, in order.
type log struct {
	mu      sync.Mutex
	started time.Time
	counts  []int
	at      []time.Duration
	ids     []string
	most    int
}

func newLog() *log { return &log{started: time.Now()} }

func (l *log) add(r *http.Request, m m2m.CallbackMessage) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts = append(l.counts, m.CallbackCount)
	l.at = append(l.at, time.Since(l.started).Round(time.Second))
	l.ids = append(l.ids, r.Header.Get("webhook-id"))
	l.most = m.MaxCallbackThreshold
	return len(l.counts)
}

func (l *log) want(t *testing.T, counts []int, at []time.Duration) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if diff := cmp.Diff(counts, l.counts); diff != "" {
		t.Errorf("callback counts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(at, l.at); diff != "" {
		t.Errorf("times of attempts (-want +got):\n%s", diff)
	}
}

func TestRetrySchedule(t *testing.T) {
	const m = time.Minute
	tests := []struct {
		name    string
		answer  func(n int, w http.ResponseWriter, r *http.Request)
		counts  []int
		at      []time.Duration
		verdict license.DeliveryVerdict
		status  int
	}{
		{
			"at once", func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
			[]int{1},
			[]time.Duration{0},
			license.Delivered, 204,
		},
		{
			"second time", func(n int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader([]int{500, 299}[n-1]) },
			[]int{1, 2},
			[]time.Duration{0, 5 * m},
			license.Delivered, 299,
		},
		{
			"never", func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
			[]int{1, 2, 3, 4},
			[]time.Duration{0, 5 * m, 10 * m, 15 * m},
			license.Exhausted, 404,
		},
		{
			"gone", func(n int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader([]int{503, 410}[n-1]) },
			[]int{1, 2},
			[]time.Duration{0, 5 * m},
			license.Exhausted, 410,
		},
		{
			"redirect", func(_ int, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://elsewhere/", http.StatusTemporaryRedirect)
			},
			[]int{1, 2, 3, 4},
			[]time.Duration{0, 5 * m, 10 * m, 15 * m},
			license.Exhausted, 307,
		},
		{
			"silent: five minutes from the end of the attempt", func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			[]int{1, 2, 3, 4},
			[]time.Duration{0, 5*m + 10*time.Second, 10*m + 20*time.Second, 15*m + 30*time.Second},
			license.Exhausted, 0,
		},
		{"reset", func(n int, w http.ResponseWriter, _ *http.Request) {
			if n < 3 {
				panic(http.ErrAbortHandler)
			}
		}, []int{1, 2, 3}, []time.Duration{0, 5 * m, 10 * m}, license.Delivered, 200},
		{"a body that drips is acknowledged all the same", func(_ int, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("."))
				_ = http.NewResponseController(w).Flush()
				<-time.After(100 * time.Millisecond)
			}
		}, []int{1}, []time.Duration{0}, license.Delivered, 200},
		{"a body that breaks is acknowledged all the same", func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("{"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, []int{1}, []time.Duration{0}, license.Delivered, 200},
		{"a body without end", func(_ int, w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, []int{1}, []time.Duration{0}, license.Delivered, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, b *bench) {
				b.web.host(t, "elsewhere", func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
				seen := newLog()
				b.listen(t, testAccount, "listener", func(w http.ResponseWriter, r *http.Request, m m2m.CallbackMessage) {
					tt.answer(seen.add(r, m), w, r)
				})
				b.out.add(testAccount, 1)
				b.Wake()
				advance(time.Hour)
				seen.want(t, tt.counts, tt.at)
				if ended, v := b.out.ends(); ended != 1 || v[tt.verdict] != 1 {
					t.Errorf("ended %d, %v, want one %s", ended, v, tt.verdict)
				}
				last := b.out.deliveries()[len(tt.counts)-1]
				if last.Status != tt.status || last.Callback.Attempt != len(tt.counts)-1 {
					t.Errorf("last delivery has status %d, attempt %d, want %d, %d", last.Status, last.Callback.Attempt, tt.status, len(tt.counts)-1)
				}
				if last.Latency > 10*time.Second {
					t.Errorf("the attempt took %s, more than its timeout", last.Latency)
				}
				if i := slices.IndexFunc(seen.ids, func(id string) bool { return id != seen.ids[0] }); i >= 0 {
					t.Errorf("webhook-id of attempt %d is %s, of the first %s", i+1, seen.ids[i], seen.ids[0])
				}
			})
		})
	}
}

func TestListenerSettings(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		seen := newLog()
		b.listen(t, testAccount, "listener", func(_ http.ResponseWriter, r *http.Request, m m2m.CallbackMessage) {
			seen.add(r, m)
			<-r.Context().Done()
		})
		b.out.register(license.Listener{Account: testAccount, URL: "http://listener/", Attempts: 2, Interval: 30 * time.Second, Timeout: 40 * time.Second}, false)
		b.out.add(testAccount, 1)
		b.Wake()
		advance(time.Hour)
		// 40 s are more than the lease of 20 s: the first claim does not know that
		// and lets go, the next is made long enough.
		seen.want(t, []int{1, 2}, []time.Duration{20 * time.Second, 90 * time.Second})
		if seen.most != 2 {
			t.Errorf("maxCallbackThreshold %d, want 2", seen.most)
		}
	})
}

func TestNoListener(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		b.out.add(testAccount, 3)
		advance(time.Second)
		if ended, v := b.out.ends(); ended != 3 || v[license.Unsent] != 3 {
			t.Errorf("ended %d, %v, want 3 unsent", ended, v)
		}
	})
}

func TestShortLease(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		seen := newLog()
		b.listen(t, testAccount, "listener", func(_ http.ResponseWriter, r *http.Request, m m2m.CallbackMessage) { seen.add(r, m) })
		given := b.out.addLeased(testAccount, 1, time.Now().Add(9*time.Second))
		b.Give(testAccount, b.Reserve(testAccount, 1), given)
		advance(8 * time.Second)
		seen.want(t, nil, nil)
		advance(2 * time.Second)
		seen.want(t, []int{1}, []time.Duration{9 * time.Second})
	})
}

func TestGiveWithoutClaim(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		seen := newLog()
		b.listen(t, testAccount, "listener", func(_ http.ResponseWriter, r *http.Request, m m2m.CallbackMessage) { seen.add(r, m) })
		n := b.Reserve(testAccount, 100)
		if n != 100 {
			t.Fatalf("Reserve gave room for %d, want 100", n)
		}
		b.Give(testAccount, n, b.out.addLeased(testAccount, 60, time.Now().Add(20*time.Second)))
		advance(time.Second)
		if ended, v := b.out.ends(); v[license.Delivered] != 60 || len(b.out.claims) != 0 {
			t.Errorf("ended %d, %v after %d claims, want 60 delivered after none", ended, v, len(b.out.claims))
		}
		if n := b.Reserve(testAccount, 10000); n != batch {
			t.Errorf("Reserve gave room for %d afterwards, want %d", n, batch)
		}
	})
}

func TestHangingListenerAlone(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		var now, most atomic.Int32
		b.listen(t, "hangs", "hanging", func(_ http.ResponseWriter, r *http.Request, _ m2m.CallbackMessage) {
			most.Store(max(most.Load(), now.Add(1)))
			<-r.Context().Done()
			now.Add(-1)
		})
		b.listen(t, "good", "good", func(http.ResponseWriter, *http.Request, m2m.CallbackMessage) {})
		b.out.add("hangs", 2000)
		b.out.add("good", 2000)
		b.Wake()
		advance(time.Second)
		if _, v := b.out.ends(); v[license.Delivered] != 2000 {
			t.Errorf("%v within a second, want the good listener's 2000 delivered", v)
		}
		if most.Load() != 32 {
			t.Errorf("%d posts at once to the hanging listener, want 32", most.Load())
		}
		advance(10 * time.Second)
		most.Store(0)
		advance(time.Minute)
		if most.Load() != 1 {
			t.Errorf("%d posts at once to a listener that keeps failing, want 1", most.Load())
		}
		if n := b.Reserve("hangs", 500); n > 1 {
			t.Errorf("Reserve gave room for %d at a listener that hangs, want at most 1", n)
		}
		if last := b.out.claims[len(b.out.claims)-1]; last.Account != "hangs" || last.Limit != 1 {
			t.Errorf("last claim %+v, want one of 1 callback", last)
		}
	})
}

func TestListenerRecovers(t *testing.T) {
	bubble(t, Config{Interval: 5 * time.Second}, func(t *testing.T, b *bench) {
		var broken atomic.Bool
		broken.Store(true)
		var now, most atomic.Int32
		b.listen(t, testAccount, "listener", func(w http.ResponseWriter, _ *http.Request, _ m2m.CallbackMessage) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-time.After(10 * time.Millisecond)
			if broken.Load() {
				w.WriteHeader(500)
			}
		})
		b.out.add(testAccount, 300)
		advance(4 * time.Second)
		if most.Load() != 32 {
			t.Errorf("%d posts at once, want 32", most.Load())
		}
		most.Store(0)
		advance(2 * time.Second)
		if most.Load() != 1 {
			t.Errorf("%d posts at once while it fails, want 1", most.Load())
		}
		broken.Store(false)
		advance(10 * time.Second)
		if ended, v := b.out.ends(); v[license.Delivered] != 300 {
			t.Errorf("%v of %d, want all 300 delivered", v, ended)
		}
		if most.Load() != 32 {
			t.Errorf("%d posts at once after a 2xx, want 32", most.Load())
		}
		for _, d := range b.out.deliveries() {
			if d.Verdict == license.Again && d.Due != d.At.Add(5*time.Second) {
				t.Fatalf("due at %s after an end at %s, want 5 s", d.Due, d.At)
			}
		}
	})
}

// TestPunctual holds retries to their time although polls are rare.
func TestPunctual(t *testing.T) {
	bubble(t, Config{Interval: 5 * time.Second, Poll: time.Minute}, func(t *testing.T, b *bench) {
		var late time.Duration
		var first sync.Map
		b.listen(t, testAccount, "listener", func(w http.ResponseWriter, _ *http.Request, m m2m.CallbackMessage) {
			id := m.DeviceIDs[0].ID
			at, again := first.LoadOrStore(id, time.Now())
			if again {
				late = max(late, time.Since(at.(time.Time))-5*time.Second)
				return
			}
			w.WriteHeader(500)
		})
		for range 9 {
			b.out.add(testAccount, 1)
			b.Wake()
			advance(777 * time.Millisecond)
		}
		advance(6 * time.Second)
		if ended, _ := b.out.ends(); ended != 9 || late > 50*time.Millisecond {
			t.Errorf("%d of 9 delivered, retries up to %s late", ended, late)
		}
	})
}

func TestListenerIsReadWhenSent(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		old, fresh := newLog(), newLog()
		b.listen(t, testAccount, "old", func(_ http.ResponseWriter, r *http.Request, m m2m.CallbackMessage) { old.add(r, m) })
		send := func() {
			b.out.add(testAccount, 1)
			b.Wake()
			synctest.Wait()
		}
		send()
		b.listen(t, testAccount, "new", func(_ http.ResponseWriter, r *http.Request, m m2m.CallbackMessage) { fresh.add(r, m) })
		send() // registered here: at once
		b.out.register(license.Listener{Account: testAccount, URL: "http://old/"}, true)
		send() // registered elsewhere: a second later
		advance(time.Second)
		send()
		old.want(t, []int{1, 1}, []time.Duration{0, time.Second})
		fresh.want(t, []int{1, 1}, []time.Duration{0, 0})
	})
}

func TestHeaders(t *testing.T) {
	const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	bubble(t, Config{UserAgent: "Simlatch/test"}, func(t *testing.T, b *bench) {
		var got http.Header
		var body []byte
		b.web.host(t, "listener", func(_ http.ResponseWriter, r *http.Request) {
			got = r.Header.Clone()
			buf := make([]byte, 4096)
			n, _ := r.Body.Read(buf)
			body = buf[:n]
			if r.Method != http.MethodPost || r.RequestURI != "/cb?x=1" || r.Host != "listener" {
				t.Errorf("got %s %s at %s", r.Method, r.RequestURI, r.Host)
			}
		})
		b.out.register(license.Listener{Account: testAccount, URL: "http://listener/cb?x=1", SigningSecret: secret}, false)
		b.out.add(testAccount, 1) // and anew, for the third time
		b.out.mu.Lock()
		b.out.rows[0].callback.Round = 3
		b.out.mu.Unlock()
		advance(time.Second)
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := wh.Verify(body, got); err != nil {
			t.Errorf("verifying the signature: %v", err)
		}
		got.Del("webhook-signature")
		want := http.Header{
			"Content-Type": {"application/json"}, "User-Agent": {"Simlatch/test"}, "Content-Length": {strconv.Itoa(len(body))},
			"Webhook-Id":        {"msg_0192f0c1-79ff-7b35-82df-94446785b6e0_89148000000000000000"},
			"Webhook-Timestamp": {strconv.FormatInt(b.out.deliveries()[0].At.Unix(), 10)},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("headers (-want +got):\n%s", diff)
		}
	})
}

func TestAnswerIsKeptWithoutSecrets(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		b.listen(t, testAccount, "listener", func(w http.ResponseWriter, _ *http.Request, m m2m.CallbackMessage) {
			w.WriteHeader(500)
			_, _ = w.Write([]byte("wrong: " + m.Username + ":" + m.Password + strings.Repeat(" x", 500)))
		})
		b.out.register(license.Listener{Account: testAccount, URL: "http://listener/", Username: "u", Password: "hunter2"}, false)
		b.out.add(testAccount, 1)
		advance(time.Second)
		answer := string(b.out.deliveries()[0].Answer)
		if len(answer) != answerKept || !strings.HasPrefix(answer, "wrong: u:******** x") {
			t.Errorf("kept answer (%d bytes) %q", len(answer), answer)
		}
	})
}

func TestConfig(t *testing.T) {
	out := newOutbox()
	for name, cfg := range map[string]Config{
		"no outbox":      {},
		"negative":       {Outbox: out, Attempts: -1},
		"negative time":  {Outbox: out, Poll: -1},
		"lease to short": {Outbox: out, Timeout: 30 * time.Second, Lease: 20 * time.Second},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New with %s passed", name)
		}
	}
	s, err := New(Config{Outbox: out, Timeout: 30 * time.Second})
	if err != nil || s.cfg.Lease != time.Minute {
		t.Errorf("New = %v, lease %s, want twice the timeout", err, s.cfg.Lease)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run with an ended context: %v", err)
	}
}
