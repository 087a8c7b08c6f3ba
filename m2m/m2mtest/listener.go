package m2mtest

import (
	"context"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// Listener is a callback listener of a test. It acknowledges every message.
type Listener struct {
	URL string

	mu       sync.Mutex // guards what follows
	messages []m2m.CallbackMessage
	news     chan struct{} // closed when a message has come
}

// patience is how long a test waits for callbacks: much longer than they take,
// for machines that are busy.
const patience = time.Minute

// Listen registers a listener for an account that collects its callbacks, until
// the test ends. It takes the place of one that is registered.
func (s *Server) Listen(t testing.TB, account string) *Listener {
	t.Helper()
	l := &Listener{news: make(chan struct{})}
	srv := httptest.NewServer(m2m.CallbackHandler(l.take, m2m.WithCredentials("listener", "listener-password")))
	t.Cleanup(srv.Close)
	l.URL = srv.URL
	_, err := s.Client.RegisterListener(context.Background(), account, m2m.ListenerRequest{
		Name: m2m.CarrierService, URL: l.URL, Username: "listener", Password: "listener-password",
	})
	if err != nil {
		t.Fatalf("m2mtest: registering the listener: %v", err)
	}
	return l
}

func (l *Listener) take(_ context.Context, m *m2m.CallbackMessage) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, *m)
	close(l.news)
	l.news = make(chan struct{})
	return nil
}

// Messages are all that have come so far, in their order; some may be the same
// message twice.
func (l *Listener) Messages() []m2m.CallbackMessage {
	messages, _ := l.snapshot()
	return messages
}

func (l *Listener) snapshot() ([]m2m.CallbackMessage, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]m2m.CallbackMessage(nil), l.messages...), l.news
}

// Outcomes waits until n devices of a request have ended, and returns their
// messages by ICCID. The test fails when they do not come.
func (l *Listener) Outcomes(t testing.TB, requestID string, n int) map[string]m2m.CallbackMessage {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		messages, news := l.snapshot()
		ended := map[string]m2m.CallbackMessage{}
		for _, m := range messages {
			if m.RequestID == requestID {
				ended[m.ICCID()] = m
			}
		}
		if len(ended) >= n {
			return ended
		}
		select {
		case <-news:
		case <-late.C:
			t.Fatalf("m2mtest: after %s the callbacks of %d of %d devices have come for request %s", patience, len(ended), n, requestID)
			return nil
		}
	}
}
