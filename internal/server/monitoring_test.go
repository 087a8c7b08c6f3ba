package server

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"
)

// alertRule is one alert of monitoring/alerts.yaml.
type alertRule struct {
	Alert, Expr, For string
	Labels           struct{ Severity string }
	Annotations      struct{ Summary, Runbook string }
}

func monitoringFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alertRule } }
	if err := yaml.Unmarshal(monitoringFile(t, "monitoring/alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	var all []alertRule
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// dashboardQueries are the expressions of the dashboard, by panel.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	var board struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(monitoringFile(t, "monitoring/dashboard.json"), &board); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("the panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = target.Expr
		}
	}
	return all
}

// everyFamily is what servers tell that have done something, with each kind of
// carrier.
func everyFamily(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	cfg := sqliteConfig(t)
	cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", goodSeed)
	plain := startServer(t, cfg)
	c := plain.login(t)
	s := c.listen(nil)
	c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", "89148000000000000012"), http.StatusOK, nil)
	s.wait(t, 1)
	plain.gauges.look(t.Context())
	all := plain.families(t)
	late := sqliteConfig(t)
	late.Carrier, late.CarrierToken, late.CarrierSecret = CarrierHTTP+"http://127.0.0.1:1/", carrierToken, carrierSecret
	for _, more := range []Config{late, guardConfig(t, sqliteConfig(t), "http://127.0.0.1:1")} {
		for name, f := range startServer(t, more).families(t) {
			if all[name] == nil {
				all[name] = f
			}
		}
	}
	return all
}

var (
	selector = regexp.MustCompile(`\b((?:simlatch|go|process)_[a-z_]+|up)\b(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)
)

// added are the labels and the metric that Prometheus adds.
var added = []string{"job", "instance", "le"}

// familyOf finds the family of a metric; a histogram has three names.
func familyOf(all map[string]*dto.MetricFamily, name string) *dto.MetricFamily {
	if f := all[name]; f != nil {
		return f
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && all[base].GetType() == dto.MetricType_HISTOGRAM {
			return all[base]
		}
	}
	return nil
}

// labelsOf are the values that each label of a family has.
func labelsOf(f *dto.MetricFamily) map[string][]string {
	values := map[string][]string{}
	for _, m := range f.GetMetric() {
		for _, l := range m.GetLabel() {
			values[l.GetName()] = append(values[l.GetName()], l.GetValue())
		}
	}
	return values
}

// faultsOf are the names in an expression that a server does not know.
func faultsOf(all map[string]*dto.MetricFamily, expr string) (faults []string) {
	found := selector.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		return []string{"it names no metric"}
	}
	known := map[string]bool{}
	for _, m := range found {
		if m[1] == "up" {
			continue
		}
		f := familyOf(all, m[1])
		if f == nil {
			faults = append(faults, "there is no "+m[1])
			continue
		}
		labels := labelsOf(f)
		for name := range labels {
			known[name] = true
		}
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			name, op, want := l[1], l[2], l[3]
			if slices.Contains(added, name) {
				continue
			}
			values, ok := labels[name]
			if !ok {
				faults = append(faults, m[1]+" has no label "+name)
				continue
			}
			// A server that works has no 5xx to show; all other values must be there.
			if name == "status" && strings.HasPrefix(want, "5") || strings.HasPrefix(op, "!") {
				continue
			}
			whole := regexp.MustCompile("^(?:" + map[bool]string{true: want, false: regexp.QuoteMeta(want)}[op == "=~"] + ")$")
			if !slices.ContainsFunc(values, whole.MatchString) {
				faults = append(faults, m[1]+" has no "+l[0])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, name := range strings.Split(g[1], ",") {
			if name = strings.TrimSpace(name); !known[name] && !slices.Contains(added, name) {
				faults = append(faults, "nothing in it has the label "+name)
			}
		}
	}
	return faults
}

// TestMonitoringNamesWhatIs holds each metric, label and value of the alerts and
// of the dashboard against running servers.
func TestMonitoringNamesWhatIs(t *testing.T) {
	all := everyFamily(t)
	exprs := dashboardQueries(t)
	for _, a := range alertRules(t) {
		exprs[a.Alert] = a.Expr
	}
	if len(exprs) < 50 {
		t.Errorf("only %d expressions were found", len(exprs))
	}
	for _, name := range slices.Sorted(maps.Keys(exprs)) {
		for _, fault := range faultsOf(all, exprs[name]) {
			t.Errorf("%s: %s: %s", name, fault, exprs[name])
		}
	}
	for _, wrong := range []string{
		"simlatch_no_such_total", `simlatch_queue_tasks{phase="moon"}`, `simlatch_queue_tasks{moon="carrier"}`,
		"sum by (moon) (simlatch_queue_tasks)", "1", `simlatch_queue_tasks{phase=~"moon|sun"}`, "simlatch_queue_tasks_bucket",
	} {
		if len(faultsOf(all, wrong)) == 0 {
			t.Errorf("nothing wrong was found with %s", wrong)
		}
	}
}

// TestRunbook: each alert has its entry, each entry its alert, and all of them say
// what it means, where to look and what to do.
func TestRunbook(t *testing.T) {
	book := string(monitoringFile(t, "docs/runbook.md"))
	entries := map[string]string{}
	for _, part := range strings.Split(book, "\n## ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		if strings.HasPrefix(name, "Simlatch") {
			entries[name] = text
		}
	}
	rules := alertRules(t)
	if len(rules) < 20 {
		t.Errorf("only %d alerts were found", len(rules))
	}
	for _, a := range rules {
		text, ok := entries[a.Alert]
		if !ok {
			t.Errorf("%s has no entry", a.Alert)
		}
		delete(entries, a.Alert)
		for _, word := range []string{"**Means**", "**Look**", "**Do**"} {
			if strings.Count(text, word) != 1 {
				t.Errorf("%s: the entry has %s %d times", a.Alert, word, strings.Count(text, word))
			}
		}
		if want := "docs/runbook.md#" + strings.ToLower(a.Alert); a.Annotations.Runbook != want {
			t.Errorf("%s: the runbook is %q, want %q", a.Alert, a.Annotations.Runbook, want)
		}
		if s := a.Labels.Severity; s != "page" && s != "ticket" || a.Annotations.Summary == "" {
			t.Errorf("%s: severity %q, summary %q", a.Alert, s, a.Annotations.Summary)
		}
	}
	for name := range entries {
		t.Errorf("the entry %s has no alert", name)
	}
}
