package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxConnections is the most connections of a listener, where no other number is said.
const maxConnections = 10_000

// defaultConnections is half of what this process may have open, so that the database,
// listeners and carriers have the rest, and maxConnections at most.
func defaultConnections() int {
	if files := openFiles(); files > 0 {
		return int(min(files/2, maxConnections))
	}
	return maxConnections
}

// connections are the metrics of listeners.
type connections struct {
	open    *prometheus.GaugeVec
	refused *prometheus.CounterVec
}

func newConnections(r prometheus.Registerer) (*connections, error) {
	c := &connections{
		open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "simlatch_connections", Help: "Open connections, by listener (api, upstream); --max-connections is the most of each.",
		}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "simlatch_connections_refused_total", Help: "Connections that were closed at once, being more than --max-connections, by listener.",
		}, []string{"listener"}),
	}
	if err := errors.Join(r.Register(c.open), r.Register(c.refused)); err != nil {
		return nil, fmt.Errorf("registering the metrics of connections: %w", err)
	}
	return c, nil
}

// A limitedListener has so many connections at most. A further one is accepted and
// closed at once: whoever made it learns of it and can try another node, those that are
// there lose nothing, and its descriptor is free again.
type limitedListener struct {
	net.Listener

	most    int64
	n       atomic.Int64
	open    prometheus.Gauge
	refused prometheus.Counter
	log     *slog.Logger
	told    time.Time // when refusing was last logged; of Accept, which one goroutine calls
}

// limit makes a limitedListener of one that is named so in metrics.
func (c *connections) limit(l net.Listener, name string, most int, log *slog.Logger) *limitedListener {
	return &limitedListener{Listener: l, most: int64(most), open: c.open.WithLabelValues(name), refused: c.refused.WithLabelValues(name), log: log.With("listener", name)}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	const tellEvery = time.Minute
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err //nolint:wrapcheck // net/http looks at it
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok { // there are no other listeners
			return c, nil
		}
		if l.n.Add(1) <= l.most {
			l.open.Inc()
			return &limitedConn{TCPConn: tcp, from: l}, nil
		}
		l.n.Add(-1)
		l.refused.Inc()
		_ = c.Close() // nobody hears of an error
		if now := time.Now(); now.Sub(l.told) >= tellEvery {
			l.told = now
			l.log.Warn("connections are refused: there are as many as --max-connections allows", "connections", l.most)
		}
	}
}

// A limitedConn counts until it is closed.
type limitedConn struct {
	*net.TCPConn

	from *limitedListener
	once sync.Once
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	c.once.Do(func() {
		c.from.n.Add(-1)
		c.from.open.Dec()
	})
	return c.TCPConn.Close() //nolint:wrapcheck // it is the connection
}

// unwantedBody is how long a client may take to send a body that no handler sets a
// time for: one that nobody reads, or an upstream's callback.
const unwantedBody = 20 * time.Second

// boundBodies has every body end within a time, where that is more than 0. Handlers that
// read one say by when; of one that nobody reads, net/http reads what is small, before
// it answers.
func boundBodies(next http.Handler, within time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if within > 0 && r.Body != http.NoBody {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(within)) // a network's time is real
		}
		next.ServeHTTP(w, r)
	})
}
