package bulk_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
	"github.com/simlatch/simlatch/m2m/m2mtest"
)

// pace is how fast runs of tests ask again.
const pace = 20 * time.Millisecond

// plan makes a plan for devices and writes it.
func plan(t *testing.T, c *m2m.Client, s *m2mtest.Server, action license.Action, sku string, devices []m2m.Device) (*bulk.Plan, string) {
	t.Helper()
	var args []string
	for _, d := range devices {
		args = append(args, d.IMEI()+","+d.ICCID())
	}
	p, err := bulk.Make(t.Context(), bulk.MakeParams{
		Client: c, Server: s.URL, Account: s.Account, Action: action, SKU: sku, Fleet: bulk.Devices(args), Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "fleet.plan")
	if err := p.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	p, err = bulk.ReadPlan(path)
	if err != nil {
		t.Fatal(err)
	}
	return p, path
}

// apply applies a plan and returns what it ended with.
func apply(t *testing.T, p *bulk.Plan, path string, cfg bulk.Config) ([]bulk.Result, error) {
	t.Helper()
	run, err := bulk.Open(p, path)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Pace == 0 {
		cfg.Pace = pace
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	cfg.Notice = func(s string) { t.Log(s) }
	err = run.Apply(t.Context(), cfg)
	results := run.Results()
	if err := run.Close(); err != nil {
		t.Error(err)
	}
	return results, err
}

func listen(t *testing.T, cfg bulk.Config) bulk.Config {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	cfg.Listener, cfg.ListenerURL = ln, "http://"+ln.Addr().String()
	return cfg
}

// statuses counts results by how they ended.
func statuses(results []bulk.Result) map[bulk.Status]int { return bulk.Summarize(results).ByStatus }

func wantStatuses(t *testing.T, results []bulk.Result, want map[bulk.Status]int) {
	t.Helper()
	if got := statuses(results); !maps.Equal(got, want) {
		t.Errorf("the rows ended as %v, want %v\n%+v", got, want, results)
	}
}

// assigned is how many licenses the account's SIMs hold.
func assigned(t *testing.T, s *m2mtest.Server, sku string) int64 {
	t.Helper()
	list, err := s.Client.Subscriptions(t.Context(), s.Account, sku)
	if err != nil || len(list.SubscriptionList) != 1 {
		t.Fatalf("Subscriptions = %+v, %v", list, err)
	}
	return list.SubscriptionList[0].LicenseAssigned
}

// TestApply: a plan is carried out, by asking and with a listener, and a second
// time does nothing.
func TestApply(t *testing.T) {
	for _, withListener := range []bool{false, true} {
		t.Run(fmt.Sprintf("listener=%v", withListener), func(t *testing.T) {
			s := m2mtest.NewServer(t, m2mtest.WithDevices(30))
			s.Refuse(s.Devices[4])
			p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
			cfg := bulk.Config{Client: s.Client, Batch: 7}
			if withListener {
				cfg = listen(t, cfg)
			}
			results, err := apply(t, p, path, cfg)
			if err != nil {
				t.Fatal(err)
			}
			wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 29, bulk.StatusFailed: 1})
			failed := results[4]
			if failed.Status != bulk.StatusFailed || failed.Code != m2m.CodeCarrierRequestUnsuccessful || failed.RequestID == "" ||
				strings.Contains(failed.Message, "--listen") == withListener {
				t.Errorf("the refused device ended as %+v", failed)
			}
			again, err := apply(t, p, path, bulk.Config{Client: s.Client})
			if err != nil || !slices.Equal(again, results) {
				t.Errorf("applied again: %+v, %v", again, err)
			}
			if left, err := s.Client.Listeners(t.Context(), s.Account); err != nil || len(left) > 0 {
				t.Errorf("Listeners = %+v, %v; want none left behind", left, err)
			}
		})
	}
}

// TestApplyNarrows: a device that would be refused only since the plan was made
// does not keep the others from going.
func TestApplyNarrows(t *testing.T) {
	for _, name := range []string{"simlatch", "other"} {
		t.Run(name, func(t *testing.T) {
			s := m2mtest.NewServer(t, m2mtest.WithDevices(12), m2mtest.WithMaxDevices(8))
			c := s.Client
			if name == "other" {
				c = newOther(t, s, nil).client
			}
			p, path := plan(t, c, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
			id, err := s.Client.Assign(t.Context(), m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKUBundle, Devices: s.Devices[3:5]})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Client.Wait(t.Context(), s.Account, id); err != nil {
				t.Fatal(err)
			}
			results, err := apply(t, p, path, bulk.Config{Client: c, Batch: 12}) // more than the server takes
			if err != nil {
				t.Fatal(err)
			}
			wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 10, bulk.StatusFailed: 2})
			for _, r := range results[3:5] {
				if bulk.Verdict(r.Code, r.Message) != "licensed already, or on the way" {
					t.Errorf("a device that got a license since ended as %+v", r)
				}
			}
			if got := assigned(t, s, m2mtest.SKUFlexible); got != 10 {
				t.Errorf("%d are assigned, want 10", got)
			}
		})
	}
}

// TestListenerRestored: the listener that was there gets what is not the run's
// while that lasts, and its place afterwards; also when the run was killed.
func TestListenerRestored(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(20), m2mtest.WithCarrierDelay(300*time.Millisecond))
	got := make(chan m2m.CallbackMessage, 100)
	before := httptest.NewServer(m2m.CallbackHandler(func(_ context.Context, m *m2m.CallbackMessage) error {
		got <- *m
		return nil
	}))
	t.Cleanup(before.Close)
	register := m2m.ListenerRequest{Name: m2m.CarrierService, URL: before.URL}
	if _, err := s.Client.RegisterListener(t.Context(), s.Account, register); err != nil {
		t.Fatal(err)
	}
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices[:10])
	foreign, err := s.Client.Assign(t.Context(), m2m.LicenseRequest{AccountName: s.Account, SKUNumber: m2mtest.SKUFlexible, Devices: s.Devices[10:]})
	if err != nil {
		t.Fatal(err)
	}
	results, err := apply(t, p, path, listen(t, bulk.Config{Client: s.Client}))
	if err != nil {
		t.Fatal(err)
	}
	wantStatuses(t, results, map[bulk.Status]int{bulk.StatusSuccess: 10})
	for range 10 {
		select {
		case m := <-got:
			if m.RequestID != foreign {
				t.Errorf("the former listener was told of %s", m.RequestID)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the former listener was not told of what is not the run's")
		}
	}
	now, err := s.Client.Listeners(t.Context(), s.Account)
	if err != nil || len(now) != 1 || now[0].URL != before.URL {
		t.Errorf("Listeners = %+v, %v; want %s back", now, err, before.URL)
	}

	// What was killed before it could restore is caught up on.
	journal, err := os.ReadFile(bulk.JournalPath(path))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSpace(string(journal)), "\n")
	if err := os.WriteFile(bulk.JournalPath(path), []byte(strings.Join(lines[:len(lines)-1], "")), 0o600); err != nil {
		t.Fatal(err)
	}
	mine := "http://127.0.0.1:1/"
	for _, line := range lines {
		if _, rest, ok := strings.Cut(line, `"url":"`); ok {
			mine, _, _ = strings.Cut(rest, `"`)
			break
		}
	}
	if _, err := s.Client.RegisterListener(t.Context(), s.Account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: mine}); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(t, p, path, bulk.Config{Client: s.Client}); err != nil {
		t.Fatal(err)
	}
	now, err = s.Client.Listeners(t.Context(), s.Account)
	if err != nil || len(now) != 1 || now[0].URL != before.URL {
		t.Errorf("after the run was killed: Listeners = %+v, %v; want %s back", now, err, before.URL)
	}

	// A password that is not shown could not be put back.
	register.Username, register.Password = "me", "secret"
	if _, err := s.Client.RegisterListener(t.Context(), s.Account, register); err != nil {
		t.Fatal(err)
	}
	p, path = plan(t, s.Client, s, license.Unassign, m2mtest.SKUFlexible, s.Devices[:10])
	if _, err := apply(t, p, path, listen(t, bulk.Config{Client: s.Client})); err == nil || !strings.Contains(err.Error(), "leave --listen out") {
		t.Errorf("Apply in place of a listener with a password = %v", err)
	}
}

// TestShort: a plan for which there are too few licenses sends nothing.
func TestShort(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(10), m2mtest.WithPool(m2mtest.SKUFlexible, 7))
	p, path := plan(t, s.Client, s, license.Assign, m2mtest.SKUFlexible, s.Devices)
	if p.Short() != 3 || p.After.LicenseAvailable != 0 {
		t.Errorf("the plan is short of %d, and leaves %d", p.Short(), p.After.LicenseAvailable)
	}
	if _, err := apply(t, p, path, bulk.Config{Client: s.Client}); !errors.Is(err, bulk.ErrShort) {
		t.Errorf("Apply = %v, want ErrShort", err)
	}
}
