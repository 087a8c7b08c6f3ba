package callback

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
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

// TestSharesOfALook: what is due is counted once for several claims.
func TestSharesOfALook(t *testing.T) {
	out, looks := newOutbox(), 0
	out.setFault(func(op string) error {
		if op == "due" {
			looks++
		}
		return nil
	})
	s, err := New(Config{Outbox: out})
	if err != nil {
		t.Fatal(err)
	}
	steps, err := s.Steps(t.Context(), func(func()) {}) // nobody sends them
	if err != nil {
		t.Fatal(err)
	}
	s.lane(testAccount).pace = time.Millisecond
	out.add(testAccount, passes*batch+1)
	for i, want := range []struct {
		more   bool
		claims int
	}{{true, passes}, {false, passes + 1}} {
		more, err := steps.Claim(t.Context())
		if err != nil || more != want.more || looks != i+1 || len(out.claims) != want.claims {
			t.Errorf("look %d: more %t, %v, %d claims; want %+v", looks, more, err, len(out.claims), want)
		}
	}
}
