package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// arrival is a callback that came, and when.
type arrival struct {
	message m2m.CallbackMessage
	at      time.Time
}

// key tells apart which callbacks are the same message come again.
func (a arrival) key() string { return a.message.RequestID + "/" + a.iccid() }

func (a arrival) iccid() string { return deviceID(a.message.DeviceIDs, m2m.KindICCID) }

func (a arrival) ok() bool { return a.message.Status == m2m.CallbackSuccess }

func deviceID(ids []m2m.DeviceID, kind string) string {
	for _, id := range ids {
		if id.Kind == kind {
			return id.ID
		}
	}
	return ""
}

// demoListener is the demonstration's own callback listener.
type demoListener struct {
	url string
	srv *http.Server
	end chan error
	ch  chan struct{} // one element for news, so that nobody need poll

	mu       sync.Mutex // guards arrivals
	arrivals []arrival
}

func startDemoListener(ctx context.Context) (*demoListener, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for callbacks: %w", err)
	}
	l := &demoListener{url: "http://" + ln.Addr().String() + "/callbacks", end: make(chan error, 1), ch: make(chan struct{}, 1)}
	l.srv = &http.Server{Handler: l, ReadHeaderTimeout: 5 * time.Second}
	go func() { l.end <- l.srv.Serve(ln) }()
	return l, nil
}

func (l *demoListener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	var m m2m.CallbackMessage
	if err := json.NewDecoder(io.LimitReader(r.Body, maxCallback)).Decode(&m); err != nil {
		http.Error(w, "not a callback message", http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	l.arrivals = append(l.arrivals, arrival{message: m, at: now})
	l.mu.Unlock()
	select {
	case l.ch <- struct{}{}:
	default: // there is news already
	}
}

// since returns the arrivals after the first n.
func (l *demoListener) since(n int) []arrival {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.arrivals[n:len(l.arrivals):len(l.arrivals)]
}

func (l *demoListener) close() {
	_ = l.srv.Close()
	<-l.end //nolint:errcheck // that it was closed
}
