package callback

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// TestYield: an account with many callbacks lets others go first before each, until
// few are left; one with few never does.
func TestYield(t *testing.T) {
	const quiet = license.AccountName("0000654321-00001")
	var yields atomic.Int64
	var wrong atomic.Bool
	cfg := Config{Yield: func(_ context.Context, account license.AccountName) {
		yields.Add(1)
		if account != testAccount {
			wrong.Store(true)
		}
	}}
	bubble(t, cfg, func(t *testing.T, b *bench) {
		for _, account := range []license.AccountName{testAccount, quiet} {
			b.listen(t, account, "listener", func(http.ResponseWriter, *http.Request, m2m.CallbackMessage) {})
		}
		for account, n := range map[license.AccountName]int{testAccount: 400, quiet: muchQueued} {
			given := b.out.addLeased(account, n, time.Now().Add(20*time.Second))
			b.Give(account, b.Reserve(account, n), given)
		}
		advance(10 * time.Second)
		if _, v := b.out.ends(); v[license.Delivered] != 400+muchQueued {
			t.Errorf("%v, want all delivered", v)
		}
	})
	if n := yields.Load(); n != 400-muchQueued || wrong.Load() {
		t.Errorf("yielded %d times, of another account: %t; want %d", n, wrong.Load(), 400-muchQueued)
	}
}

// slow is an outbox in which looking for what is due takes a while.
type slow struct {
	*outbox

	looks int
}

const slowness = 10 * time.Millisecond

func (o *slow) DueAccounts(ctx context.Context, phase license.Phase, now time.Time) ([]license.Due, error) {
	o.looks++
	time.Sleep(slowness)
	return o.outbox.DueAccounts(ctx, phase, now)
}

// TestShareOfLooks: what is due is counted no more often than for a share of the
// time, and claimed from what was found meanwhile.
func TestShareOfLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &slow{outbox: newOutbox()}
		s, err := New(Config{Outbox: out})
		if err != nil {
			t.Fatal(err)
		}
		s.open(func(*lane) {}) // nobody sends them
		s.lane(testAccount).pace = time.Millisecond
		out.add(testAccount, 4*batch+1)
		var c claims
		for i, want := range []struct {
			wait                  time.Duration
			more                  bool
			looks, claims, remain int
		}{
			{0, true, 1, 1, 3*batch + 1},
			{0, true, 1, 2, 2*batch + 1},
			{(lookShare-1)*slowness - 1, true, 1, 3, batch + 1},
			{1, true, 2, 4, 1},
			{0, false, 2, 5, 0},
			{0, false, 2, 5, 0},
		} {
			time.Sleep(want.wait)
			more, err := s.round(t.Context(), &c)
			remain := 0
			for _, due := range c.found {
				remain += due.Count
			}
			if err != nil || more != want.more || out.looks != want.looks || len(out.claims) != want.claims || remain != want.remain {
				t.Errorf("round %d: more %t, %v, %d looks, %d claims, %d remain; want %+v", i, more, err, out.looks, len(out.claims), remain, want)
			}
		}
		// Whoever is woken when it is too early to look, looks when it is time to.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.claim(ctx)
		claims := func() int {
			out.mu.Lock()
			defer out.mu.Unlock()
			return len(out.claims)
		}
		advance(2 * slowness)
		before := claims()
		out.add(testAccount, 1)
		s.Wake()
		advance((lookShare-2)*slowness - 1)
		if claims() != before {
			t.Error("looked too early")
		}
		advance(slowness + 1)
		if claims() != before+1 {
			t.Errorf("%d claims when it was time to look, want 1", claims()-before)
		}
	})
}
