package carrier

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

// How a call of an HTTP ends.
const (
	callAnswered     = "answered"
	callUnauthorized = "unauthorized" // 401 or 403
	callUnavailable  = "unavailable"  // 429 or 503
	callStatus       = "status"       // any other
	callGarbage      = "garbage"      // no JSON, or not this
	callTooLarge     = "too_large"
	callTimeout      = "timeout"
	callNetwork      = "network"
	callHeldBack     = "held_back" // not made, since the carrier asked for quiet
)

// httpMetrics are what an HTTP counts.
type httpMetrics struct {
	calls map[string]prometheus.Counter
	odds  map[string]prometheus.Counter
}

func newHTTPMetrics(r prometheus.Registerer) (*httpMetrics, error) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_carrier_calls_total",
		Help: "Calls of the carrier by HTTP, by how they ended.",
	}, []string{"result"})
	odds := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_carrier_odd_outcomes_total",
		Help: "Outcomes that a carrier's answers lacked, or that meant nothing.",
	}, []string{"kind"})
	m := &httpMetrics{calls: map[string]prometheus.Counter{}, odds: map[string]prometheus.Counter{}}
	for _, kind := range []string{
		callAnswered, callUnauthorized, callUnavailable, callStatus, callGarbage, callTooLarge, callTimeout, callNetwork, callHeldBack,
	} {
		m.calls[kind] = calls.WithLabelValues(kind)
	}
	for _, kind := range []string{"missing", "unknown", "contradictory", "invalid"} {
		m.odds[kind] = odds.WithLabelValues(kind)
	}
	return m, register(r, calls, odds)
}

func register(r prometheus.Registerer, collectors ...prometheus.Collector) error {
	if r == nil {
		return nil
	}
	for _, c := range collectors {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// call counts a call.
func (m *httpMetrics) call(err error) {
	kind := callAnswered
	var failed *callError
	switch {
	case errors.As(err, &failed):
		kind = failed.kind
	case err != nil:
		kind = callNetwork
	}
	m.calls[kind].Inc()
}

func (m *httpMetrics) odd(o oddities) {
	m.odds["missing"].Add(float64(o.missing))
	m.odds["unknown"].Add(float64(o.unknown))
	m.odds["contradictory"].Add(float64(o.contradictory))
	m.odds["invalid"].Add(float64(o.invalid))
}

// lateMetrics are what a Receiver counts.
type lateMetrics struct {
	outcomes map[string]prometheus.Counter
	refused  prometheus.Counter
}

// resultInvalid is of a late outcome that ends no task.
const resultInvalid = "invalid"

func newLateMetrics(r prometheus.Registerer) (*lateMetrics, error) {
	outcomes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_carrier_late_outcomes_total",
		Help: "Outcomes that a carrier brought by itself, by what became of them.",
	}, []string{"result"})
	m := &lateMetrics{outcomes: map[string]prometheus.Counter{}, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "simlatch_carrier_late_calls_refused_total",
		Help: "Calls with late outcomes that were not signed, or not in form.",
	})}
	for _, result := range license.LateResults {
		m.outcomes[result.String()] = outcomes.WithLabelValues(result.String())
	}
	m.outcomes[resultInvalid] = outcomes.WithLabelValues(resultInvalid)
	return m, register(r, outcomes, m.refused)
}
