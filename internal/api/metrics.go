package api

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/simlatch/simlatch/internal/license"
)

// metrics counts calls. Its labels come from fixed sets: paths are patterns, an
// unknown method is "other".
type metrics struct {
	calls   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	devices *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, a *admission) (metrics, error) {
	m := metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "simlatch_api_requests_total",
			Help: "Calls of the compatible API, by method, path pattern, HTTP status and errorCode (empty on success).",
		}, []string{"method", "path", "status", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "simlatch_api_request_seconds",
			Help:    "Time from the headers of a call to the end of its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method", "path"}),
		devices: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "simlatch_api_devices_accepted_total",
			Help: "Devices of accepted requests, by action.",
		}, []string{"action"}),
	}
	for _, action := range []license.Action{license.Assign, license.Unassign} {
		m.devices.WithLabelValues(string(action))
	}
	if r == nil {
		return m, nil
	}
	inFlight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "simlatch_api_calls_in_flight", Help: "Calls of the compatible API that are worked on; --max-calls is the most.",
	}, func() float64 { return float64(a.now().calls) })
	bodies := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "simlatch_api_bodies_bytes", Help: "Bytes of bodies that calls of the compatible API hold; --max-bodies is the most.",
	}, func() float64 { return float64(a.now().bytes) })
	for _, c := range []prometheus.Collector{m.calls, m.seconds, m.devices, inFlight, bodies} {
		if err := r.Register(c); err != nil {
			return m, fmt.Errorf("registering the metrics of the API: %w", err)
		}
	}
	return m, nil
}

func (m metrics) count(method, path string, status int, code string, took time.Duration) {
	method = methodLabel(method)
	m.calls.WithLabelValues(method, path, strconv.Itoa(status), code).Inc()
	m.seconds.WithLabelValues(method, path).Observe(took.Seconds())
}

// methodLabel is a method of HTTP, or "other".
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead, http.MethodOptions, http.MethodPatch:
		return method
	}
	return "other"
}

func (m metrics) accepted(action license.Action, devices int) {
	m.devices.WithLabelValues(string(action)).Add(float64(devices))
}
