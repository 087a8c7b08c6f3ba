package callback

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

// metrics counts what the sender does. Labels are verdicts only: accounts and
// listeners would have no bound.
type metrics struct {
	attempts [license.Unsent + 1]prometheus.Counter
	dropped  prometheus.Counter
	seconds  prometheus.Histogram
	inFlight prometheus.Gauge
	failing  prometheus.Gauge
}

// newMetrics makes the metrics and registers them where r is not nil.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_callback_attempts_total",
		Help: "Attempts to deliver a callback, by how they ended.",
	}, []string{"verdict"})
	m := &metrics{
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "simlatch_callback_dropped_total",
			Help: "Callbacks let go unsent, because their lease could not cover an attempt or the service stopped; they fall due again.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "simlatch_callback_attempt_seconds",
			Help:    "Time from the start of an attempt to its end.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "simlatch_callback_in_flight",
			Help: "Callbacks being posted now.",
		}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "simlatch_callback_listeners_failing",
			Help: "Listeners that keep failing and get one attempt at a time.",
		}),
	}
	for v := range m.attempts {
		m.attempts[v] = attempts.WithLabelValues(license.DeliveryVerdict(v).String())
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{attempts, m.dropped, m.seconds, m.inFlight, m.failing} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the callback metrics: %w", err)
		}
	}
	return m, nil
}
