package callback

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

// metrics counts what the sender does. Labels are verdicts only: accounts and
// listeners would have no bound.
type metrics struct {
	attempts [license.Unsent + 1]prometheus.Counter
	dropped  prometheus.Counter
	local    prometheus.Counter
	seconds  prometheus.Histogram
	delivery prometheus.Histogram
	answers  map[string]prometheus.Counter
	inFlight prometheus.Gauge
	failing  prometheus.Gauge
}

// newMetrics makes the metrics and registers them where r is not nil. inMemory
// tells how many callbacks are.
func newMetrics(r prometheus.Registerer, inMemory func() int) (*metrics, error) {
	answers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_callback_answers_total",
		Help: "Answers of listeners: 2xx, 3xx, 4xx, 410, 429, 5xx, other, or none.",
	}, []string{"status"})
	held := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "simlatch_callback_in_memory",
		Help: "Callbacks held in memory, or room set aside for them.",
	}, func() float64 { return float64(inMemory()) })
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_callback_attempts_total",
		Help: "Attempts to deliver a callback, by how they ended.",
	}, []string{"verdict"})
	m := &metrics{
		answers: map[string]prometheus.Counter{},
		delivery: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "simlatch_delivery_seconds",
			Help:    "Time from the acceptance of a request to the acknowledged callback of a device.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400},
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "simlatch_callback_dropped_total",
			Help: "Callbacks let go unsent, because their lease could not cover an attempt or the service stopped; they fall due again.",
		}),
		local: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "simlatch_callback_local_failures_total",
			Help: "Times that a callback could not be sent for a lack of descriptors, ports or buffers on this machine; no attempt is counted.",
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
	for _, status := range []string{"2xx", "3xx", "4xx", "410", "429", "5xx", "other", "none"} {
		m.answers[status] = answers.WithLabelValues(status)
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{attempts, answers, held, m.dropped, m.local, m.seconds, m.delivery, m.inFlight, m.failing} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering the callback metrics: %w", err)
		}
	}
	return m, nil
}

// ended counts an attempt.
func (m *metrics) ended(d *license.Delivery) {
	m.attempts[d.Verdict].Inc()
	if d.Verdict == license.Unsent {
		return
	}
	m.answers[statusClass(d.Status)].Inc()
	if d.Verdict == license.Delivered {
		m.delivery.Observe(max(0, d.At.Sub(d.Callback.Request.Time()).Seconds()))
	}
}

func statusClass(status int) string {
	switch {
	case status == 0:
		return "none"
	case status == http.StatusGone:
		return "410"
	case status == http.StatusTooManyRequests:
		return "429"
	case status >= 200 && status < 600:
		return strconv.Itoa(status/100) + "xx"
	}
	return "other"
}
