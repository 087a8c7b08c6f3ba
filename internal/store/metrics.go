package store

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"modernc.org/sqlite"
)

// The kinds of errors of the database.
const (
	errorAgain       = "again"       // a lost race, or an outcome that is not known; tried again
	errorUnavailable = "unavailable" // it could not be had for now; callers hear 503
	errorTimeout     = "timeout"     // it did not answer within the caller's time
	errorRefused     = "refused"     // it refused a statement that should have worked
)

// metrics are what a store counts.
type metrics struct {
	group     prometheus.Histogram
	combined  prometheus.Histogram
	seconds   prometheus.Histogram
	takeovers prometheus.Counter
	errors    map[string]prometheus.Counter
}

// newMetrics makes the metrics and registers them where r is not nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	sizes := []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_store_errors_total",
		Help: "Errors of the database, by kind: again (a lost race; tried again), unavailable (callers hear 503), timeout, refused (a fault of ours).",
	}, []string{"kind"})
	m := &metrics{
		group: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "simlatch_store_group_writes", Help: "Writes that shared one commit of SQLite's writer.", Buckets: sizes,
		}),
		combined: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "simlatch_store_accept_requests", Help: "Requests that were accepted in one transaction.", Buckets: sizes,
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "simlatch_store_write_seconds", Help: "Time from the wish to write to the end of the commit, waiting for others included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		takeovers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "simlatch_store_lease_takeovers_total",
			Help: "Tasks and callbacks whose lease ended before their work did, made due for whoever claims them.",
		}),
		errors: map[string]prometheus.Counter{},
	}
	for _, kind := range []string{errorAgain, errorUnavailable, errorTimeout, errorRefused} {
		m.errors[kind] = failures.WithLabelValues(kind)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.group, m.combined, m.seconds, m.takeovers, failures} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of the store: %w", err)
		}
	}
	return m, nil
}

// watch registers what the pool of connections knows of itself.
func (m *metrics) watch(r prometheus.Registerer, s *Store) error {
	if r == nil {
		return nil
	}
	if err := r.Register(collectors.NewDBStatsCollector(s.db, "simlatch")); err != nil {
		return fmt.Errorf("registering the metrics of the database's connections: %w", err)
	}
	return nil
}

// failed counts an error that a caller hears of, if it is the database's.
func (m *metrics) failed(err error, unavailable bool) {
	var lite *sqlite.Error
	var pg *pgconn.PgError
	switch {
	case unavailable:
		m.errors[errorUnavailable].Inc()
	case timedOut(err):
		m.errors[errorTimeout].Inc()
	case errors.As(err, &lite), errors.As(err, &pg):
		m.errors[errorRefused].Inc()
	}
}
