package server

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// families are the metrics of a running server, by name.
func (r *running) families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	answer, err := fetch(t, http.DefaultClient, r.URL()+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(answer.body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value is the value of the metric with some labels, or how often a histogram
// was observed; -1 where there is none.
func value(family *dto.MetricFamily, labels map[string]string) float64 {
	for _, m := range family.GetMetric() {
		has := 0
		for _, l := range m.GetLabel() {
			if want, asked := labels[l.GetName()]; asked && want == l.GetValue() {
				has++
			}
		}
		if has == len(labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return -1
}

// TestMetricsTell has each thing happen that an operator asks the metrics about.
func TestMetricsTell(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		r := startServer(t, cfg)
		c := r.login(t)
		s := c.listen(nil)
		c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, nil)
		s.wait(t, 1)
		eventually(t, "the delivery is counted", func() bool {
			return value(r.families(t)["simlatch_delivery_seconds"], nil) == 1
		})
		r.gauges.look(t.Context())
		families := r.families(t)
		sqlite := r.store.Engine() == "sqlite"
		for _, want := range []struct {
			name   string
			labels map[string]string
			least  float64
		}{
			{"simlatch_settle_seconds", nil, 1},
			{"simlatch_callback_answers_total", map[string]string{"status": "2xx"}, 1},
			{"simlatch_queue_tasks", map[string]string{"phase": "carrier", "state": "due"}, 0},
			{"simlatch_queue_tasks", map[string]string{"phase": "listener", "state": "later"}, 0},
			{"simlatch_queue_oldest_seconds", map[string]string{"phase": "listener"}, 0},
			{"simlatch_pool_licenses", map[string]string{"sku": "SIMSec-IoT", "state": "assigned"}, 1},
			{"simlatch_pool_licenses", map[string]string{"sku": "SIMSec-IoT", "state": "available"}, 1},
			{"simlatch_pools", map[string]string{"sku": "SIMSec-IoT"}, 1},
			{"simlatch_pools_empty", map[string]string{"sku": "SIMSec-IoT"}, 0},
			{"simlatch_store_accept_requests", nil, 1},
			{"simlatch_store_write_seconds", nil, 3},
			{"simlatch_store_errors_total", map[string]string{"kind": "unavailable"}, 0},
			{"simlatch_store_lease_takeovers_total", nil, 0},
			{"simlatch_provision_refused_total", map[string]string{"code": "already-licensed"}, 0},
			{"simlatch_nodes", nil, 1},
			{"simlatch_build_info", map[string]string{"engine": r.store.Engine()}, 1},
			{"simlatch_gauges_updated_timestamp_seconds", nil, 1},
			{"go_sql_open_connections", map[string]string{"db_name": "simlatch"}, 1},
		} {
			if got := value(families[want.name], want.labels); got < want.least {
				t.Errorf("%s%v = %v, want at least %v", want.name, want.labels, got, want.least)
			}
		}
		if got := value(families["simlatch_store_group_writes"], nil); sqlite != (got > 0) {
			t.Errorf("%v groups were committed", got)
		}
	})
}

// TestCallbackCarriesTheTrace of whoever made the request, where the server itself
// traces nothing; and none that is no trace context.
func TestCallbackCarriesTheTrace(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
		r := startServer(t, cfg)
		c := r.login(t)
		heard := make(chan http.Header, 10)
		listener := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { heard <- q.Header }))
		t.Cleanup(listener.Close)
		c.call(http.MethodPost, "/callbacks/"+testAccount, map[string]string{"name": "CarrierService", "url": listener.URL}, http.StatusOK, nil)
		for _, step := range []struct{ action, sent, want string }{
			{"assign", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
			{"unassign", "words", ""},
		} {
			c.traceparent = step.sent
			c.call(http.MethodPost, "/devices/license/actions/"+step.action, licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, nil)
			if got := (<-heard).Get("Traceparent"); got != step.want {
				t.Errorf("%s: the callback carried %q, want %q", step.action, got, step.want)
			}
		}
	})
}
