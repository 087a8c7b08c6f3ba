package console_test

import (
	"os"
	"path/filepath"
	"slices"
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

// TestDescriptions opens the pages that describe the APIs: what they need is allowed
// by the policy they are sent with.
func TestDescriptions(t *testing.T) {
	b := newTab(t, "")
	for path, text := range map[string]string{"/docs": "/devices/license/actions/assign", "/operator/docs": "/overview"} {
		b.do(chromedp.Navigate(b.scene.url + path))
		b.waits(`document.body.innerText.includes(`+quoted(text)+`)`, path+" names "+text)
		b.mu.Lock()
		if len(b.said) > 0 {
			t.Errorf("%s: the browser complains: %q", path, b.said)
		}
		b.mu.Unlock()
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
	take := func(name string) {
		picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644))
	}
	pictured := []string{"overview", "pool", "request", "task", "sim", "callbacks", "access", "audit"}
	for _, p := range b.scene.everyPage(t) {
		if slices.Contains(pictured, p.name) || os.Getenv("SCREENSHOTS_ALL") != "" {
			b.do(chromedp.Navigate(b.scene.url + "/console" + p.path))
			b.dark(false)
			take(p.name)
		}
	}
	b.do(chromedp.Navigate(b.scene.url + "/console/"))
	b.dark(true)
	take("overview-dark")
	b.dark(false)
	b.open("/assign")
	b.fill("account", fleet)
	b.fill("iccids", iccid(1, 101)+"\n"+iccid(1, 102)+"\n"+iccid(1, 3)+"\n"+iccid(1, 104))
	b.press("Show the plan")
	b.sees("h1", "The plan")
	take("plan")
	b.open("/import")
	b.fill("account", fleet)
	b.fill("text", "iccid,imei\n"+iccid(1, 900)+","+imei(1, 900)+"\n8914800,12\n"+iccid(1, 901)+",350000000000000\n")
	b.press("Check")
	b.sees(".alert", "line 3")
	take("import")
	b.do(chromedp.EmulateViewport(390, 800))
	b.open("/")
	take("narrow")
}
