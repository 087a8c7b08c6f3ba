package console_test

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// confirmed waits until a page says that something was done, and checks the page.
func (b *tab) confirmed(text string) {
	b.Helper()
	b.sees(".notice", text)
	b.check()
}

// did waits until the audit has an action on a target by the console.
func (b *tab) did(role auth.Role, action, target string) {
	b.Helper()
	b.scene.until(b, action+" of "+target+" is in the audit", func() bool {
		list, err := b.scene.store.Audit(b.Context(), store.AuditFilter{Who: operatorOf(role), Action: action, Limit: 100})
		must(b, err)
		return slices.ContainsFunc(list, func(e license.AuditEntry) bool {
			return (e.Target == target || string(e.Account) == target) && e.Via == license.ViaConsole && e.From == "127.0.0.1"
		})
	})
}

func (s *scene) pools(t testing.TB, account license.AccountName) []license.Pool {
	t.Helper()
	pools, err := s.store.Pools(t.Context(), account)
	must(t, err)
	return pools
}

// pool reads a pool from the database.
func (s *scene) pool(t testing.TB, account license.AccountName, sku license.SKU) license.Pool {
	t.Helper()
	for _, p := range s.pools(t, account) {
		if p.SKU == sku {
			return p
		}
	}
	t.Fatalf("%s has no pool of %s", account, sku)
	return license.Pool{}
}

// TestPool adds licenses and withdraws them, and says when the pool is low.
func TestPool(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	before := b.scene.pool(t, metered, license.SKUFlexible).Purchased
	b.open("/pools")
	b.press("SIMSec-IoT")
	b.open("/accounts/" + metered + "/pools/SIMSec-IoT")
	b.unfold("Add licenses")
	b.fill("units", "500")
	b.fill("reference", "PO-4711")
	b.fill("reason", "the summer order")
	b.press("Add licenses")
	b.confirmed("500 licenses were added")
	b.sees("#purchases", "PO-4711")
	b.unfold("Withdraw licenses")
	b.fill("units", "100000")
	b.fill("reason", "too many")
	b.press("Withdraw licenses")
	b.sees(".alert", "fewer are available")
	b.check()
	if got := eval[string](b, visible(`[name=reason]`)+".value"); got != "too many" {
		t.Errorf("the reason that was typed is %q", got)
	}
	b.fill("units", "100")
	b.press("Withdraw licenses")
	b.confirmed("100 licenses were withdrawn")
	if got := b.scene.pool(t, metered, license.SKUFlexible).Purchased; got != before+400 {
		t.Errorf("purchased: %d, want %d more than %d", got, 400, before)
	}
	b.unfold("Say when it is low")
	b.fill("threshold", "1000000")
	b.press("Set the threshold")
	b.confirmed("The threshold is 1000000")
	b.sees("#pool .badge", "low")
	b.did(auth.RoleOperator, "pool.purchase", "SIMSec-IoT")
	b.unfold("Say when it is low")
	b.fill("threshold", "0")
	b.press("Set the threshold")
	b.confirmed("The threshold is 0")
}

// TestAssign pastes ICCIDs, sees the plan, confirms, and watches the request end.
func TestAssign(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	b.open("/assign")
	b.fill("account", fleet)
	b.fill("sku", "SIMSec-IoT")
	b.fill("iccids", "of the delivery:\n"+iccid(1, 101)+";\n"+iccid(1, 102)+" and "+iccid(1, 3)+"\n"+iccid(1, 101))
	b.press("Show the plan")
	b.sees("h1", "The plan")
	b.check()
	b.sees("#plan", "2 of 3 SIMs can be assigned SIMSec-IoT")
	b.sees("#plan-sims", "refused")
	plan := eval[string](b, `(() => { const f = document.querySelector("[data-stay]").form, q = new URLSearchParams(new FormData(f)); q.set("format", "csv");
		return fetch(f.getAttribute("action"), { method: "POST", body: q }).then((a) => a.text()); })()`)
	if strings.Count(plan, "\n") != 4 || !strings.Contains(plan, iccid(1, 102)+",assigned,") {
		t.Errorf("the plan as CSV: %q", plan)
	}
	b.press("Assign the other 2")
	b.confirmed("The request is accepted: 2 SIMs.")
	b.sees("#request .badge", "success")
	b.sees("#request", "olga with operator")
	b.sees("#tasks", "delivered")
	b.unfold("The raw exchange")
	b.sees("#exchange pre", iccid(1, 102))
	b.lacks("#exchange pre", "listener-password")

	b.open("/assign")
	b.fill("account", fleet)
	b.fill("iccids", "no number")
	b.press("Show the plan")
	b.sees(".alert", "Among what was sent is none")
	b.check()
	b.fill("sku", "SIMSec-IoT-Lt")
	b.fill("iccids", iccid(1, 110))
	b.press("Show the plan")
	b.sees("#plan", "cannot be taken off a SIM again")
	b.check()
}

// TestUnassignFile drops a file with ICCIDs, and takes licenses off SIMs.
func TestUnassignFile(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	b.scene.assign(t, fleet, license.SKUFlexible, 1, 131, 133)
	b.scene.settle(t, fleet)
	file := filepath.Join(t.TempDir(), "off.csv")
	must(t, os.WriteFile(file, []byte("iccid,note\n"+iccid(1, 131)+",a\n"+iccid(1, 132)+",b\n"), 0o600))
	b.open("/assign")
	b.fill("account", fleet)
	b.fill("action", "unassign")
	b.fill("sku", "SIMSec-IoT")
	b.do(chromedp.SetUploadFiles("#file", []string{file}))
	b.press("Show the plan")
	b.sees("#plan", "2 of 2 SIMs can give SIMSec-IoT back")
	b.press("Unassign 2 SIMs")
	b.confirmed("The request is accepted: 2 SIMs.")
	b.sees("#request .badge", "success")
	b.open("/accounts/" + fleet + "/sims/" + iccid(1, 131))
	b.sees("#sim", "none")
	b.sees("#history", "unassign")
}

// TestLive sees a request that a client makes appear, and end, without anybody
// touching the page.
func TestLive(t *testing.T) {
	b := newTab(t, auth.RoleViewer)
	b.open("/requests")
	b.waits(`document.documentElement.dataset.stream === "open"`, "the page is kept up to date")
	rows := eval[int](b, `document.querySelectorAll("#list tbody tr").length`)
	request := b.scene.assign(t, fleet, license.SKUFlexible, 1, 141, 143)
	b.waits(fmt.Sprintf(`document.querySelector("#list a[title='%s']") !== null`, request), "the request appears")
	b.waits(fmt.Sprintf(`document.querySelectorAll("#list tbody tr").length > %d`, rows), "there is one more")
	b.waits(fmt.Sprintf(`document.querySelector("#list a[title='%s']").closest("tr").innerText.includes("success")`, request), "it ends")
	b.check()

	b.open("/accounts/" + fleet + "/requests/" + b.scene.assign(t, fleet, license.SKUFlexible, 1, 151, 153))
	b.waits(`document.querySelector("#request").innerText.includes("success")`, "one request's page shows its end")
	b.waits(`[...document.querySelectorAll("#tasks .badge")].filter((e) => e.innerText === "delivered").length === 3`, "and its callbacks")
}

// TestImport checks a file with a bad line, mends it, and writes it.
func TestImport(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	b.open("/import")
	var lines []string
	for n := 501; n <= 540; n++ {
		lines = append(lines, iccid(1, n)+","+imei(1, n))
	}
	bad := slices.Clone(lines)
	bad[7] = "8914800,12"
	text := func(lines []string) string { return "iccid,imei\n" + strings.Join(lines, "\n") + "\n" }
	b.fill("text", text(bad))
	b.fill("account", fleet)
	b.press("Check")
	b.sees(".alert", "line 9")
	b.check()
	file := filepath.Join(t.TempDir(), "delivery.csv")
	must(t, os.WriteFile(file, []byte(text(lines)), 0o600))
	b.do(chromedp.SetUploadFiles("#file", []string{file}))
	b.press("Check")
	b.sees("h1", "Import delivery.csv")
	b.sees("#upload", "40 SIMs would be added")
	b.check()
	if sims, err := b.scene.store.Devices(t.Context(), license.DeviceFilter{Accounts: []license.AccountName{fleet}, Device: license.Device{ICCID: license.ICCID(iccid(1, 501))}, Limit: 1}); err != nil || len(sims) != 0 {
		t.Errorf("before it is confirmed: %v, %v", sims, err)
	}
	b.press("Write 40 SIMs")
	b.sees("#upload", "40 SIMs were added")
	b.check()
	b.open("/sims?find=" + iccid(1, 501))
	b.sees("h1", "SIM "+iccid(1, 501))
}

// TestSIM looks a SIM up, and changes its state.
func TestSIM(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	for _, find := range []string{iccid(1, 5), imei(1, 5), "555-1-000005"} {
		b.open("/sims")
		b.fill("find", find)
		b.press("Show")
		b.sees("h1", "SIM "+iccid(1, 5))
	}
	b.sees("#sim", "SIMSec-IoT")
	b.sees("#history", "delivered")
	b.open("/accounts/" + fleet + "/sims/" + iccid(1, 120))
	b.sees("#history", "Nothing was done with this SIM yet")
	b.unfold("Change the state")
	b.fill("state", "suspend")
	b.press("Change the state")
	b.confirmed("The SIM is suspend")
	b.did(auth.RoleOperator, "sim.state", iccid(1, 120))
}

// TestCallbacks sends callbacks again that failed: one, those that were picked, a
// request's, and those of a time.
func TestCallbacks(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	b.open("/callbacks?account=" + fleet)
	b.sees("#list", "undelivered")
	b.lacks("#list tbody .badge", "delivered ")
	b.scene.mu.Lock()
	clear(b.scene.fails) // the portal is up again
	b.scene.mu.Unlock()
	b.press("Send the picked again")
	b.sees(".alert", "Pick the callbacks")
	if got := eval[string](b, `document.querySelector("a.csv").getAttribute("href")`); !strings.HasPrefix(got, "/console/callbacks?") {
		t.Errorf("after a form that was not taken, the table leads to %s", got)
	}
	_ = eval[bool](b, `document.querySelector("#list tbody input").checked = true`)
	b.press("Send the picked again")
	b.confirmed("One callback is sent again.")
	b.open("/callbacks?account=" + fleet)
	b.press("inspect")
	b.sees("h1", "in a request")
	b.sees("#attempts", "the fleet portal is being updated")
	b.sees("#attempts", "503")
	b.press("Send the callback again")
	b.confirmed("One callback is sent again.")
	b.sees("#task .badge", "delivered")

	b.open("/callbacks")
	b.unfold("Send a time range again")
	b.fill("account", metered)
	b.fill("since", "2020-01-01T00:00")
	b.press("Send again")
	b.confirmed("22 callbacks are sent again.")
	b.scene.settle(t, metered)

	requests, _, _, err := b.scene.store.Requests(t.Context(), store.RequestFilter{Account: fleet, SKU: license.SKULifetime, Limit: 1})
	must(t, err)
	b.open("/accounts/" + fleet + "/requests/" + string(requests[0].ID))
	b.unfold("Send callbacks again")
	b.press("Send again")
	b.confirmed("Nothing was to be sent again. Left alone: 20 delivered.")
	b.unfold("Send callbacks again")
	b.fill("delivered", "true")
	b.press("Send again")
	b.confirmed("20 callbacks are sent again.")
}

// TestListener tests a listener, tunes it, gives it a secret and removes it.
func TestListener(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	path := "/accounts/" + metered + "/listeners/CarrierService"
	b.open("/listeners")
	b.sees("#list", "/hooks/licenses")
	b.open(path)
	b.press("Send a test message")
	b.sees("#tested", "did not acknowledge")
	b.sees("#tested", "database connection lost")
	b.check()
	b.unfold("Settings")
	b.fill("attempts", "3")
	b.fill("interval", "no time")
	b.press("Change the settings")
	b.sees(".alert", "interval")
	b.check()
	b.fill("attempts", "3")
	b.fill("interval", "1s")
	b.press("Change the settings")
	b.confirmed("settings are changed")
	b.sees("#listener", "1s")
	b.unfold("New signing secret")
	b.press("Make a new signing secret")
	b.sees(".secret", "whsec_")
	b.check()
	b.open(path)
	b.lacks("main", "whsec_")
	b.sees("#listener", "signed")
	b.unfold("Remove")
	b.press("Remove the listener")
	b.sees(".alert", "Say that you are sure")
	b.unfold("Remove")
	b.fill("sure", "true")
	b.press("Remove the listener")
	b.confirmed("The listener is removed.")
	b.did(auth.RoleOperator, "listener.deregister", "CarrierService")
	b.open("/accounts/" + fleet + "/listeners/CarrierService")
	b.press("Send a test message")
	b.sees("#tested", "The listener acknowledged the test")
	b.did(auth.RoleOperator, "listener.tune", "CarrierService")
}

// TestStuck decides tasks that are stuck: one was done, one was not, one is asked
// for again.
func TestStuck(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	for n, decision := range map[int]string{70: "done", 71: "refused"} {
		b.open("/stuck")
		b.sees("#list", iccid(1, n))
		_ = eval[bool](b, fmt.Sprintf(`!!setTimeout(() => [...document.querySelectorAll("#list tr")].find((r) => r.innerText.includes(%q)).querySelector("a[href$='/tasks/%s']").click())`, iccid(1, n), iccid(1, n)))
		b.sees("h1", iccid(1, n))
		b.fill("decision", decision)
		b.fill("reason", "the carrier's support says so")
		b.press("Decide")
		b.confirmed("Decided")
		b.sees("#task .badge", decision)
		b.did(auth.RoleOperator, "stuck."+decision, fleet)
	}
	b.open("/stuck")
	b.lacks("#list", iccid(1, 70))
}

// TestOutcomes shows of a request's devices those that were refused.
func TestOutcomes(t *testing.T) {
	b := newTab(t, auth.RoleViewer)
	requests, _, _, err := b.scene.store.Requests(t.Context(), store.RequestFilter{Account: fleet, SKU: license.SKULifetime, Limit: 1})
	must(t, err)
	b.open("/accounts/" + fleet + "/requests/" + string(requests[0].ID))
	b.fill("outcome", "refused")
	b.press("Show")
	b.waits(`location.search.includes("outcome=refused") && document.querySelectorAll("#tasks tbody tr").length === 2`, "two devices are left")
	b.sees("#tasks", "the SIM is barred in the network")
	b.check()
}

// TestOwnTime shows the reader's own time beside UTC.
func TestOwnTime(t *testing.T) {
	b := newTab(t, auth.RoleViewer)
	_, err := cdp.Call(b.ctx, chromedp.FromContext(b.ctx).Target, emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Kolkata"})
	must(t, err)
	b.open("/accounts/" + fleet)
	utc := eval[string](b, `document.querySelector("time").dateTime`)
	at, err := time.Parse(time.RFC3339, utc)
	must(t, err)
	b.sees("time", at.Format("2006-01-02 15:04:05"))
	b.sees("time .local", at.In(time.FixedZone("", 5*3600+1800)).Format("04:05"))
	b.sees("time .local", "GMT+5:30")
}

// TestDrop drops a file on the form, as a mouse would.
func TestDrop(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	b.open("/import")
	_ = eval[bool](b, `(() => { const d = new DataTransfer(); d.items.add(new File([`+quoted("iccid,imei\n"+iccid(1, 601)+","+imei(1, 601)+"\n")+`], "dropped.csv", { type: "text/csv" }));
		for (const type of ["dragover", "drop"]) document.querySelector("[data-drop]").dispatchEvent(new DragEvent(type, { dataTransfer: d, bubbles: true, cancelable: true }));
		return true; })()`)
	b.fill("account", fleet)
	b.press("Check")
	b.sees("h1", "Import dropped.csv")
	b.sees("#upload", "1 SIMs would be added")
}

// TestVerify verifies the ledger.
func TestVerify(t *testing.T) {
	b := newTab(t, auth.RoleOperator)
	b.open("/verify")
	b.press("Verify now")
	b.sees("#verified", "The ledger is right")
	b.check()
}

// TestExport has tables as CSV: all of their pages, and nothing that a sheet would
// take for a formula.
func TestExport(t *testing.T) {
	b := newTab(t, auth.RoleAdmin)
	for _, p := range b.scene.everyPage(t) {
		b.open(p.path)
		for _, href := range eval[[]string](b, `[...document.querySelectorAll("a.csv")].map((a) => a.href)`) {
			text := eval[string](b, fmt.Sprintf(`fetch(%s).then((a) => a.ok && a.headers.get("Content-Type").startsWith("text/csv") ? a.text() : "wrong: " + a.status)`, quoted(href)))
			rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
			if err != nil || len(rows) < 2 || strings.HasPrefix(text, "wrong") {
				t.Errorf("%s: %.80q, %v", href, text, err)
			}
			for _, row := range rows {
				for _, c := range row {
					if c != "" && strings.Contains("=+@", c[:1]) {
						t.Errorf("%s: %q", href, c)
					}
				}
			}
		}
	}
	text := eval[string](b, `fetch("/console/sims?format=csv&account=`+fleet+`").then((a) => a.text())`)
	if n := strings.Count(text, "\n"); n < 201 {
		t.Errorf("the SIMs have %d lines", n)
	}
}
