package carrier

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// upstreamMetrics counts what an Upstream does.
type upstreamMetrics struct {
	requests  *prometheus.CounterVec // by answer
	callbacks *prometheus.CounterVec // by what they meant
	unclear   prometheus.Counter
	barred    prometheus.Gauge
}

func newUpstreamMetrics(r prometheus.Registerer) (*upstreamMetrics, error) {
	m := &upstreamMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "simlatch_upstream_requests_total",
			Help: "Requests for licenses made upstream, by what the answer meant.",
		}, []string{"answer"}),
		callbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "simlatch_upstream_callbacks_total",
			Help: "Callbacks of the upstream, by what they meant.",
		}, []string{"meaning"}),
		unclear: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "simlatch_upstream_unclear_total",
			Help: "Looks at tasks of which nobody knows whether the upstream did them.",
		}),
		barred: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "simlatch_upstream_credentials_refused",
			Help: "1 while the upstream refuses our credentials.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.callbacks, m.unclear, m.barred} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering a metric: %w", err)
		}
	}
	return m, nil
}
