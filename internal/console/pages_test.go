package console_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/store"
)

// TestEveryPage opens every page, as who may do everything, and checks it.
func TestEveryPage(t *testing.T) {
	b := newTab(t, auth.RoleAdmin)
	for _, p := range b.scene.everyPage(t) {
		b.open(p.path)
		if got := b.text("h1"); got != p.title {
			t.Errorf("%s: the title is %q, want %q", p.path, got, p.title)
		}
	}
}

type shown struct{ name, path, title string }

// everyPage are all the pages there are.
func (s *scene) everyPage(t testing.TB) []shown {
	t.Helper()
	requests, _, _, err := s.store.Requests(t.Context(), store.RequestFilter{Account: fleet, Limit: 100})
	must(t, err)
	request := string(requests[len(requests)-1].ID) // the bundle's
	account := "/accounts/" + fleet
	return []shown{
		{"overview", "/", "Overview"},
		{"pools", "/pools", "Pools"},
		{"pool", account + "/pools/SIMSec-IoT", "SIMSec-IoT of " + fleet},
		{"requests", "/requests", "Requests"},
		{"request", account + "/requests/" + request, "Request " + request},
		{"task", account + "/requests/" + request + "/tasks/" + iccid(1, 70), "SIM " + iccid(1, 70) + " in a request"},
		{"sims", "/sims", "SIMs"},
		{"sim", account + "/sims/" + iccid(1, 3), "SIM " + iccid(1, 3)},
		{"callbacks", "/callbacks", "Callbacks"},
		{"listeners", "/listeners", "Listeners"},
		{"listener", account + "/listeners/CarrierService", "CarrierService of " + fleet},
		{"stuck", "/stuck", "Stuck tasks"},
		{"import", "/import", "Import SIMs"},
		{"assign", "/assign", "Assign or unassign"},
		{"accounts", "/accounts", "Accounts"},
		{"account", account, "Account " + fleet},
		{"access", "/access", "Access"},
		{"audit", "/audit", "Audit"},
		{"verify", "/verify", "Verify"},
	}
}

// TestScreenshots takes the pictures of docs/console.md: "make screenshots".
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		t.Skip("SCREENSHOTS names no directory")
	}
	b := newTab(t, auth.RoleAdmin)
	b.do(chromedp.EmulateViewport(1280, 860))
	for _, p := range b.scene.everyPage(t) {
		for _, dark := range []bool{false, true} {
			b.do(chromedp.Navigate(b.scene.url + "/console" + p.path))
			b.dark(dark)
			name := p.name + ".png"
			if dark {
				name = p.name + "-dark.png"
			}
			picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, name), picture, 0o644)) //nolint:gosec // pictures of the documents
		}
	}
}
