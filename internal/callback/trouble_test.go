package callback

import (
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

func TestFinisherKeepsTheBatch(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		b.listen(t, testAccount, "listener", func(http.ResponseWriter, *http.Request, m2m.CallbackMessage) {})
		b.out.setFault(func(op string) error {
			if op == "finish" || op == "due" {
				return &license.UnavailableError{Err: errors.New("away")}
			}
			return nil
		})
		given := b.out.addLeased(testAccount, 400, time.Now().Add(20*time.Second))
		b.Give(testAccount, b.Reserve(testAccount, 400), given)
		advance(10 * time.Second)
		if n := b.Reserve(testAccount, 500); n > 2000-400 {
			t.Errorf("Reserve gave room for %d beside 400 that are not written down", n)
		}
		b.out.setFault(nil)
		advance(6 * time.Second)
		if _, v := b.out.ends(); v[license.Delivered] != 400 || len(b.out.deliveries()) != 400 {
			t.Errorf("%v from %d deliveries, want 400 delivered, each once", v, len(b.out.deliveries()))
		}
		if most := slices.Max(b.out.batches); most > batch {
			t.Errorf("a batch of %d", most)
		}
	})
}

func TestOutboxAway(t *testing.T) {
	for _, op := range []string{"due", "claim", "listener"} {
		t.Run(op, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, b *bench) {
				seen := newLog()
				b.listen(t, testAccount, "listener", func(_ http.ResponseWriter, r *http.Request, m m2m.CallbackMessage) { seen.add(r, m) })
				b.out.setFault(func(o string) error {
					if o == op {
						return errors.New("away")
					}
					return nil
				})
				b.out.add(testAccount, 5)
				advance(8 * time.Second)
				seen.want(t, nil, nil)
				b.out.setFault(nil)
				advance(25 * time.Second)
				if ended, v := b.out.ends(); v[license.Delivered] != 5 || len(seen.counts) != 5 {
					t.Errorf("%d ended, %v, %d posts, want 5 delivered once", ended, v, len(seen.counts))
				}
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	bubble(t, Config{Grace: 3 * time.Second, PerListener: 2}, func(t *testing.T, b *bench) {
		var begun atomic.Int32
		b.listen(t, testAccount, "listener", func(w http.ResponseWriter, r *http.Request, _ m2m.CallbackMessage) {
			wait := 2 * time.Second // one ends within the grace period
			if begun.Add(1) == 2 {
				wait = 9 * time.Second // and one does not
			}
			select {
			case <-time.After(wait):
			case <-r.Context().Done():
			}
		})
		b.out.add(testAccount, 10)
		advance(time.Second)
		start := time.Now()
		b.stop()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("shutdown took %s, want the grace period of 3s", took)
		}
		if n := begun.Load(); n != 2 {
			t.Errorf("%d posts begun, want 2", n)
		}
		if d := b.out.deliveries(); len(d) != 1 || d[0].Verdict != license.Delivered {
			t.Errorf("deliveries %v, want the one that ended in time", d)
		}
		if n := b.Reserve(testAccount, 1); n != 0 {
			t.Errorf("Reserve gave room for %d after the end", n)
		}
		if back := b.out.back(); len(back) != 9 || back[7].Sub(start) != 0 || back[8].Sub(start) != 3*time.Second {
			t.Errorf("given back at %v, want eight at once, at %v, and the one that was cut off after the grace period", back, start)
		}
		b.Give(testAccount, 0, b.out.addLeased(testAccount, 1, time.Now().Add(time.Hour)))
	})
}

// TestGiveAtTheEnd has callbacks come, for room that was reserved before, when
// the sender is told to end.
func TestGiveAtTheEnd(t *testing.T) {
	for name, away := range map[string]error{"": nil, "while the store is away": errors.New("away")} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, b *bench) {
				b.out.setFault(func(op string) error {
					if op == "give back" {
						return away
					}
					return nil
				})
				n := b.Reserve(testAccount, 5)
				start := time.Now()
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					b.stop()
				}()
				advance(time.Second)
				b.Give(testAccount, n, b.out.addLeased(testAccount, 5, time.Now().Add(20*time.Second)))
				<-ended
				if took := time.Since(start); took != time.Second {
					t.Errorf("shutdown took %s, want until the callbacks came", took)
				}
				want := 5
				if away != nil {
					want = 0
				}
				if back := b.out.back(); len(back) != want {
					t.Errorf("%d callbacks were given back, want %d", len(back), want)
				}
			})
		})
	}
}

// TestGiveNeverComes has room reserved for callbacks that do not come.
func TestGiveNeverComes(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		b.Reserve(testAccount, 5)
		start := time.Now()
		b.stop()
		if took := time.Since(start); took != lastFlush {
			t.Errorf("shutdown took %s, want %s", took, lastFlush)
		}
	})
}

func TestShutdownWhileTheStoreIsAway(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		b.listen(t, testAccount, "listener", func(http.ResponseWriter, *http.Request, m2m.CallbackMessage) {})
		b.out.setFault(func(op string) error {
			if op == "finish" {
				return errors.New("away")
			}
			return nil
		})
		b.out.add(testAccount, 1)
		advance(time.Second)
		start := time.Now()
		b.stop()
		if took := time.Since(start); took > lastFlush {
			t.Errorf("shutdown took %s, want at most %s", took, lastFlush)
		}
	})
}
