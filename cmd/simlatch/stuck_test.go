package main

import (
	"bytes"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestStuck has an operator resolve two tasks whose carrier stayed silent.
func TestStuck(t *testing.T) {
	url := "sqlite:" + filepath.Join(t.TempDir(), "stuck.db")
	s, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	sims := storetest.Seed(t, s, storetest.Fixture{SIMs: 2})
	now := storetest.Start()
	r, err := license.NewRequest(license.NewRequestID(now, rand.Reader), storetest.Account, license.SKUFlexible,
		license.Assign, storetest.Devices(sims), now)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Accept(t.Context(), license.AcceptParams{Request: r, Room: 2, LeaseUntil: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	var silent []license.Outcome
	for _, task := range a.Tasks {
		silent = append(silent, license.Outcome{Task: task, Verdict: license.Stuck, Comment: "no answer"})
	}
	if _, err := s.SettleTasks(t.Context(), license.SettleParams{Now: now, Outcomes: silent}); err != nil {
		t.Fatal(err)
	}
	simlatch := func(args ...string) (status int, out, errs string) {
		var stdout, stderr bytes.Buffer
		status = run(append(args, "--database", url), streams{in: strings.NewReader(""), out: &stdout, err: &stderr})
		return status, stdout.String(), stderr.String()
	}
	if _, out, errs := simlatch("stuck", "list", "--output", "csv"); strings.Count(out, "no answer") != 2 {
		t.Errorf("stuck list: %s%s; want two tasks", out, errs)
	}
	resolve := func(how string, sim license.SIM) (int, string) {
		status, _, errs := simlatch("stuck", how, string(a.ID), string(sim.Device.ICCID),
			"--account", string(storetest.Account), "--reason", "seen in the portal")
		return status, errs
	}
	if status, errs := resolve("done", sims[0]); status != exitDone {
		t.Errorf("stuck done: %d, %s", status, errs)
	}
	if status, errs := resolve("done", sims[0]); status == exitDone || !strings.Contains(errs, "is stuck") {
		t.Errorf("stuck done, again: %d, %s; want an error", status, errs)
	}
	if status, errs := resolve("refused", sims[1]); status != exitDone {
		t.Errorf("stuck refused: %d, %s", status, errs)
	}
	if status, out, errs := simlatch("verify"); status != exitDone {
		t.Errorf("verify: %d, %s%s", status, out, errs)
	}
	pools, err := s.Pools(t.Context(), storetest.Account)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pools {
		if p.SKU == license.SKUFlexible && (p.Assigned != 1 || p.Reserved != 0) {
			t.Errorf("pool %+v, want one assigned and none reserved", p)
		}
	}
}
