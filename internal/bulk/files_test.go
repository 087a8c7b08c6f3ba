package bulk_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m/m2mtest"
)

// TestPlanFile: a plan that was changed is refused, and so is one whose journal
// is another's or damaged; a torn end is not.
func TestPlanFile(t *testing.T) {
	s := m2mtest.NewServer(t)
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices[:3])
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	changed := filepath.Join(t.TempDir(), "changed.plan")
	for _, c := range []struct{ from, to, want string }{
		{`"sku": "SIMSec-IoT"`, `"sku": "SIMSec-IoT-Lt"`, "has been changed since it was made"},
		{`"action": "assign"`, `"action":  "assign"`, "has been changed since it was made"},
		{`"digest": "sha256:`, `"digest": "sha256:0`, "has been changed since it was made"},
		{`"simlatchPlan": 1`, `"simlatchPlan": 2`, "it was made by a newer one"},
		{"{", "[", "is no plan"},
	} {
		write(changed, strings.Replace(string(text), c.from, c.to, 1))
		if _, err := bulk.ReadPlan(changed); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ReadPlan with %s = %v, want %q", c.to, err, c.want)
		}
	}
	if _, err := apply(t, p, path, bulk.Config{Client: s.Client, Batch: 2}); err != nil {
		t.Fatal(err)
	}
	if err := p.WriteFile(path); err == nil || !strings.Contains(err.Error(), "has been applied") {
		t.Errorf("WriteFile over a plan that was applied = %v", err)
	}
	journal, err := os.ReadFile(bulk.JournalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ journal, want string }{
		{string(journal) + `{"kind":"outc`, ""},
		{strings.Replace(string(journal), "sha256:", "sha256:f", 1), "this is the journal of another plan"},
		{strings.Replace(string(journal), `"kind"`, `kind`, 1), "the journal is damaged"},
		{strings.Replace(string(journal), `"request":1`, `"request":9`, 1), "the journal is damaged"},
		{string(journal) + "{\"kind\":\"news\"}\n", "written by a newer simlatch"},
	} {
		write(bulk.JournalPath(path), c.journal)
		run, err := bulk.Open(p, path)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Open = %v, want %q", err, c.want)
		}
		if err == nil {
			if _, err := bulk.Open(p, path); err == nil || !strings.Contains(err.Error(), "another process is applying this plan") {
				t.Errorf("Open of a plan that is open = %v", err)
			}
			if err := run.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestJournalCut: a run can end after any entry of its journal, and the next one
// comes to the same end.
func TestJournalCut(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(6))
	s.Refuse(s.Devices[1])
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
	want, err := apply(t, p, path, bulk.Config{Client: s.Client, Batch: 2})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(bulk.JournalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	for n := range len(lines) - 1 {
		whole := strings.Join(lines[:n], "")
		if strings.Count(whole, `"send"`) < 3 {
			continue // a request that was sent is always in it
		}
		cut := whole + lines[n][:len(lines[n])/2]
		if err := os.WriteFile(bulk.JournalPath(path), []byte(cut), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := apply(t, p, path, bulk.Config{Client: s.Client})
		if err != nil {
			t.Fatalf("after %d entries: %v", n, err)
		}
		for i := range got {
			got[i].Time = want[i].Time
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %d entries: %+v\nwant %+v", n, got, want)
		}
	}
	if got := assigned(t, s, m2mtest.SKUFlexible); got != 5 {
		t.Errorf("%d are assigned, want 5", got)
	}
}
