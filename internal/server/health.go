package server

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/simlatch/simlatch/internal/carrier"
	"github.com/simlatch/simlatch/internal/console"
)

// newRegistry makes the registry of the service's own metrics, those of the Go
// runtime and of the process.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// handler is all that the service answers: the API, that of the operators, and
// what those who run it ask. The APIs must see paths as they were sent, so no
// ServeMux stands before them.
func (s *core) handler() http.Handler {
	own, rest := s.own(), s.api.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := own[r.URL.Path]
		switch {
		case s.late != nil && r.URL.Path == carrier.OutcomesPath:
			s.late.ServeHTTP(w, r)
		case s.operator != nil && strings.HasPrefix(r.URL.Path, "/operator/"):
			s.operator.ServeHTTP(w, r)
		case s.console != nil && (r.URL.Path == console.Prefix || strings.HasPrefix(r.URL.Path, console.Prefix+"/")):
			s.console.ServeHTTP(w, r)
		case h == nil:
			rest.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			answer(w, http.StatusMethodNotAllowed, map[string]any{"status": "method not allowed"})
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// own is what anybody who reaches the address may ask.
func (s *core) own() map[string]http.Handler {
	return map[string]http.Handler{
		"/metrics": promhttp.HandlerFor(s.metrics, promhttp.HandlerOpts{Registry: s.metrics}),
		"/healthz": http.HandlerFunc(s.healthz),
		"/readyz":  http.HandlerFunc(s.readyz),
		"/version": http.HandlerFunc(s.showVersion),
	}
}

// healthz says that the process lives.
func (s *core) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{"status": "ok"})
}

// readyz says whether the service should be sent calls.
func (s *core) readyz(w http.ResponseWriter, r *http.Request) {
	if reason := s.unready(r.Context()); reason != "" {
		answer(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready", "reason": reason})
		return
	}
	answer(w, http.StatusOK, map[string]any{"status": "ready"})
}

func (s *core) showVersion(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, s.version())
}

// answer writes v as JSON. Nobody keeps these answers: they are about now.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only when the caller is gone
}

// unready says why the service should be sent no calls; it is empty when it
// should.
func (s *core) unready(ctx context.Context) string {
	if s.draining.Load() {
		return "draining"
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := s.store.Migrated(ctx); err != nil {
		s.log.WarnContext(ctx, "not ready", "error", err)
		return "the database is out of reach or its schema is not current"
	}
	if s.store.ReadOnly() {
		return "the database cannot be written: its disk is full or read-only"
	}
	return ""
}

// Build is what this program was built of.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// ReadBuild reads what the Go tool wrote into the program.
func ReadBuild() Build {
	b := Build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.time":
			b.Time = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}

// versionAnswer answers GET /version.
type versionAnswer struct {
	Build

	Engine string `json:"engine"`
	Node   string `json:"node"`
	// Carrier is who makes licenses real: "simulated", "http:" or "upstream:" and a
	// URL, or "none" on a node that leaves them to others.
	Carrier string `json:"carrier"`
	// LicensesAreReal is false with the simulated carrier, and otherwise absent:
	// only the carrier knows.
	LicensesAreReal *bool  `json:"licensesAreReal,omitempty"`
	Notice          string `json:"notice,omitempty"`
}

func (s *core) version() versionAnswer {
	v := versionAnswer{Build: ReadBuild(), Engine: s.store.Engine(), Node: s.cfg.Node, Carrier: cmp.Or(s.cfg.carrierName(), "none")}
	if s.cfg.simulated() {
		v.LicensesAreReal = new(bool)
		v.Notice = "The carrier is simulated: no SIM is really licensed."
	}
	return v
}
