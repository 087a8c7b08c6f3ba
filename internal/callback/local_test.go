package callback

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// lacking has each dial fail until some time has passed.
func (b *bench) lacking(fault error, until time.Time) {
	b.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if time.Now().Before(until) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: fault}
		}
		return b.web.dial(ctx, network, addr)
	}
}

// TestLocalFailures has this machine lack what it takes to send, for less and for more
// time than a lease has: each message is delivered soon after, as its first attempt, and
// nothing is held against the listener.
func TestLocalFailures(t *testing.T) {
	for name, fault := range map[string]error{
		"EMFILE": os.NewSyscallError("socket", syscall.EMFILE), "ENFILE": os.NewSyscallError("socket", syscall.ENFILE),
		"ENOBUFS": os.NewSyscallError("connect", syscall.ENOBUFS), "EADDRNOTAVAIL": os.NewSyscallError("connect", syscall.EADDRNOTAVAIL),
		"a lookup": &net.DNSError{Err: "dial udp 192.0.2.53:53: " + os.NewSyscallError("socket", syscall.EMFILE).Error(), Name: "listener"},
	} {
		for _, lack := range []time.Duration{3 * time.Second, 90 * time.Second} {
			t.Run(fmt.Sprint(name, " for ", lack), func(t *testing.T) {
				bubble(t, Config{}, func(t *testing.T, b *bench) {
					var wrong atomic.Int64
					b.listen(t, testAccount, "listener", func(_ http.ResponseWriter, _ *http.Request, m m2m.CallbackMessage) {
						if m.CallbackCount != 1 {
							wrong.Add(1)
						}
					})
					b.lacking(fault, time.Now().Add(lack))
					const messages = 30
					b.out.add(testAccount, messages)
					advance(lack - time.Second)
					if n := len(b.out.deliveries()); n > 0 {
						t.Errorf("%d attempts were counted", n)
					}
					b.mu.Lock()
					failures := b.lane(testAccount).failures
					b.mu.Unlock()
					if failures > 0 {
						t.Errorf("%d failures are held against the listener", failures)
					}
					advance(25 * time.Second) // the rest of a lease at most
					if _, v := b.out.ends(); v[license.Delivered] != messages || wrong.Load() > 0 {
						t.Errorf("%v, want %d delivered; %d came as another attempt than the first", v, messages, wrong.Load())
					}
				})
			})
		}
	}
}

// TestLocalFailuresEnd: what fails so for a day is an attempt like any other, and what
// the network or the listener fails by always is.
func TestLocalFailuresEnd(t *testing.T) {
	for name, test := range map[string]struct {
		fault error
		age   time.Duration
	}{
		"a day old": {os.NewSyscallError("connect", syscall.EADDRNOTAVAIL), localFor + time.Minute},
		"refused":   {os.NewSyscallError("connect", syscall.ECONNREFUSED), 0},
		"no route":  {os.NewSyscallError("connect", syscall.EHOSTUNREACH), 0},
		"no name":   {&net.DNSError{Err: "no such host", Name: "listener", IsNotFound: true}, 0},
		"others":    {errors.New("x"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, func(t *testing.T, b *bench) {
				b.listen(t, testAccount, "listener", func(http.ResponseWriter, *http.Request, m2m.CallbackMessage) {})
				b.lacking(test.fault, time.Now().Add(time.Hour))
				b.out.add(testAccount, 1)
				b.out.mu.Lock()
				b.out.rows[0].callback.Request = license.NewRequestID(time.Now().Add(-test.age), rand.Reader)
				b.out.mu.Unlock()
				advance(2 * time.Second)
				if n := len(b.out.deliveries()); n != 1 {
					t.Errorf("%d attempts were counted, want one", n)
				}
			})
		})
	}
}

// TestLeaseCoversTheEnd: an attempt is not begun whose end could not be written down
// within the lease.
func TestLeaseCoversTheEnd(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, b *bench) {
		var posts atomic.Int64
		b.listen(t, testAccount, "listener", func(http.ResponseWriter, *http.Request, m2m.CallbackMessage) { posts.Add(1) })
		for _, lease := range []time.Duration{b.cfg.Timeout, b.cfg.Timeout + writeTime/2, b.cfg.Timeout + writeTime} {
			given := b.out.addLeased(testAccount, 1, time.Now().Add(lease))
			before := posts.Load()
			b.Give(testAccount, b.Reserve(testAccount, 1), given)
			advance(time.Millisecond)
			if begun, want := posts.Load() > before, lease >= b.cfg.Timeout+writeTime; begun != want {
				t.Errorf("with %s left, begun: %t, want %t", lease, begun, want)
			}
			advance(time.Minute) // what was let go is claimed again
		}
		if _, v := b.out.ends(); v[license.Delivered] != 3 {
			t.Errorf("%v, want 3 delivered", v)
		}
	})
}
