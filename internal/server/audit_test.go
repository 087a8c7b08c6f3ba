package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// TestAudited starts a server with a seed, registers a listener by the API, and
// reads who did what; within a few seconds all of it is sealed.
func TestAudited(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		dir := t.TempDir()
		writeFile(t, dir, "fleet.csv", moreSIMs(0, 10))
		cfg.Seed, cfg.Node = writeFile(t, dir, "seed.yaml", goodSeed+"deviceFiles: [fleet.csv]\n"), "node-1"
		r := startServer(t, cfg)
		r.login(t).listen(nil)
		entries, err := r.store.Audit(t.Context(), store.AuditFilter{})
		if err != nil {
			t.Fatal(err)
		}
		var seeded []string
		for _, e := range entries {
			if strings.Contains(e.Before+e.After, "canary") {
				t.Errorf("a secret is in the audit: %+v", e)
			}
			switch {
			case e.Actor == license.Actor{Name: "seed", Via: license.ViaSystem, From: "node-1"}:
				seeded = append(seeded, e.Action)
			case e.Actor == license.Actor{Name: "demo", Via: license.ViaAPI, From: "127.0.0.1"} && e.Action == "listener.register":
			default:
				t.Errorf("an entry of somebody else: %+v", e)
			}
		}
		slices.Sort(seeded)
		want := []string{"account.add", "application.add", "pool.purchase", "sim.import", "user.add"}
		if got := slices.Compact(seeded); !slices.Equal(got, want) {
			t.Errorf("the seed did %v, want %v", got, want)
		}
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
			c, err := r.store.VerifyAudit(t.Context(), func(finding string) { t.Error(finding) })
			if err != nil {
				t.Fatal(err)
			}
			if c.Unsealed == 0 && c.Sealed == int64(len(entries)) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the audit was not sealed: %+v", c)
			}
		}
	})
}
