package provision

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

// metrics are what a Worker counts.
type metrics struct {
	tasks          [license.Stuck + 1]map[license.Action]prometheus.Counter
	answered       prometheus.Observer // calls, by how they ended
	failed         prometheus.Observer
	batches        prometheus.Histogram
	seconds        prometheus.Histogram
	refused        map[string]prometheus.Counter // by code
	stuck          prometheus.Counter
	lost           prometheus.Counter
	dropped        prometheus.Counter
	settleFailures prometheus.Counter
}

// newMetrics registers the metrics with r, if there is one. inMemory tells how
// many tasks are, failures how many calls in a row failed.
func newMetrics(r prometheus.Registerer, inMemory, failures func() int) (*metrics, error) {
	tasks := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_provision_tasks_total",
		Help: "Outcomes settled, by what the carrier said.",
	}, []string{"verdict", "action"})
	calls := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "simlatch_provision_call_seconds",
		Help:    "Time a call of the carrier took, by whether it was answered.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 3, 11),
	}, []string{"result"})
	refused, byCode := newRefused()
	m := &metrics{
		refused: byCode,
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "simlatch_settle_seconds",
			Help:    "Time from the acceptance of a request to the settled outcome of a device.",
			Buckets: latencies(),
		}),
		answered: calls.WithLabelValues("answered"),
		failed:   calls.WithLabelValues("failed"),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "simlatch_provision_settle_batch_size",
			Help: "Outcomes settled in one transaction.", Buckets: []float64{1, 2, 5, 10, 25, 50, 100, 250, batchSize},
		}),
		stuck: counter("stuck_total", "Tasks left to an operator because the carrier stayed silent."),
		lost:  counter("lost_leases_total", "Outcomes that changed nothing: another worker had taken the task over."),
		dropped: counter("dropped_tasks_total",
			"Tasks that waited too long for the carrier to be asked within their lease."),
		settleFailures: counter("settle_failures_total", "Batches the store did not settle; they are tried again."),
	}
	for v := range m.tasks {
		m.tasks[v] = map[license.Action]prometheus.Counter{}
		for _, a := range []license.Action{license.Assign, license.Unassign} {
			m.tasks[v][a] = tasks.WithLabelValues(license.Verdict(v).String(), string(a))
		}
	}
	if r == nil {
		return m, nil
	}
	memory := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "simlatch_provision_tasks_in_memory",
		Help: "Tasks held in memory, or room set aside for them.",
	}, func() float64 { return float64(inMemory()) })
	failing := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "simlatch_provision_consecutive_failures",
		Help: "Calls of the carrier in a row that failed; 0 while it answers.",
	}, func() float64 { return float64(failures()) })
	for _, c := range []prometheus.Collector{tasks, calls, m.batches, m.seconds, refused, m.stuck, m.lost, m.dropped, m.settleFailures, memory, failing} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return m, nil
}

// The codes of refusals that are no words of ours.
const (
	codeOther = "other"
	codeNone  = "none"
)

// newRefused counts refusals; by code are those it has.
func newRefused() (refused *prometheus.CounterVec, byCode map[string]prometheus.Counter) {
	refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "simlatch_provision_refused_total",
		Help: "Refusals settled, by the carrier's code: already-licensed, other (its own), none.",
	}, []string{"code"})
	byCode = map[string]prometheus.Counter{}
	for _, code := range []string{license.CodeAlreadyLicensed, codeOther, codeNone} {
		byCode[code] = refused.WithLabelValues(code)
	}
	return refused, byCode
}

// latencies are from what a carrier in the next room takes to the day after which
// a task is stuck.
func latencies() []float64 {
	return []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "simlatch_provision_" + name, Help: help})
}

// call counts one call of the carrier.
func (m *metrics) call(took time.Duration, err error) {
	if err != nil {
		m.failed.Observe(took.Seconds())
		return
	}
	m.answered.Observe(took.Seconds())
}

// settled counts a batch settled at now, of whose outcomes so many changed
// something.
func (m *metrics) settled(now time.Time, batch []license.Outcome, counted int) {
	m.batches.Observe(float64(len(batch)))
	m.lost.Add(float64(max(0, len(batch)-counted)))
	var n [license.Stuck + 1]map[license.Action]int
	for i := range batch {
		v := batch[i].Verdict
		if n[v] == nil {
			n[v] = map[license.Action]int{}
		}
		n[v][batch[i].Task.Action]++
		if v == license.Done || v == license.Refused {
			m.seconds.Observe(max(0, now.Sub(batch[i].Task.At).Seconds()))
		}
		if v == license.Refused {
			m.refusal(batch[i].Code)
		}
	}
	for v, actions := range n {
		for a, n := range actions {
			if c := m.tasks[v][a]; c != nil {
				c.Add(float64(n))
			}
		}
	}
	for _, n := range n[license.Stuck] {
		m.stuck.Add(float64(n))
	}
}

func (m *metrics) refusal(code string) {
	switch code {
	case license.CodeAlreadyLicensed:
	case "":
		code = codeNone
	default:
		code = codeOther
	}
	m.refused[code].Inc()
}
