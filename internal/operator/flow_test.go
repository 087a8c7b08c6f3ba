package operator_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

const csvType = "text/csv"

// TestPurchases buys and withdraws, never below what is held, and once under a key.
func TestPurchases(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		at := account + "/pools/SIMSec-IoT/purchases"
		h.accept(license.Assign, h.sims...)
		var pool client.Pool
		buy := client.NewPurchase{Units: 50, Reference: "PO-1", Reason: "May"}
		r := h.post(at, buy, client.KeyHeader, "one").want(http.StatusCreated, &pool)
		if pool.Purchased != 150 || pool.Reserved != 10 || pool.Available != 140 || r.header.Get("Location") != "/operator/v1"+account+"/pools/SIMSec-IoT" {
			t.Errorf("bought: %+v, %v", pool, r.header)
		}
		r = h.post(at, buy, client.KeyHeader, "one").want(http.StatusCreated, &pool)
		if pool.Purchased != 150 || r.header.Get("Idempotency-Replayed") != "true" || r.header.Get("Location") == "" {
			t.Errorf("again under its key: %+v, %v", pool, r.header)
		}
		h.post(strings.Replace(at, "-", "", 1), buy, client.KeyHeader, "one").want(http.StatusUnprocessableEntity).problem("key-reused")
		h.post(at, client.NewPurchase{Units: 51, Reason: "May"}, client.KeyHeader, "one").want(http.StatusUnprocessableEntity).problem("key-reused")
		h.post(at, client.NewPurchase{Units: -141, Reason: "too many"}, client.KeyHeader, "two").want(http.StatusConflict).problem("insufficient")
		h.post(at, client.NewPurchase{Units: -140, Reason: "all that is free"}, client.KeyHeader, "two").want(http.StatusCreated, &pool)
		if pool.Purchased != 10 || pool.Available != 0 {
			t.Errorf("withdrawn: %+v", pool)
		}
		h.post(at, client.NewPurchase{Units: 1}).want(http.StatusBadRequest).problem("invalid")
		h.post(at, client.NewPurchase{Reason: "none"}).want(http.StatusBadRequest).problem("invalid")
		h.post(account+"/pools/nothing/purchases", buy).want(http.StatusBadRequest).problem("invalid")
		h.post("/accounts/nobody/pools/SIMSec-IoT/purchases", buy).want(http.StatusNotFound).problem("not-found")
		h.post(at, `{"units": 1, "reson": "misspelt"}`).want(http.StatusBadRequest).problem("invalid")
		h.post(at, buy, "Content-Type", "text/plain").want(http.StatusUnsupportedMediaType).problem("media-type")

		var page client.Page[client.Purchase]
		h.get(at+"?limit=2").want(http.StatusOK, &page)
		if len(page.List) != 2 || page.List[0].Units != -140 || page.List[1].Reference != "PO-1" || page.NextCursor == "" {
			t.Errorf("the record: %+v", page)
		}
		h.get(at+"?limit=2&cursor="+page.NextCursor).want(http.StatusOK, &page)
		if len(page.List) != 1 || page.List[0].Number != 1 {
			t.Errorf("the rest of the record: %+v", page)
		}
	})
}

// TestImport imports nothing while a line is bad, and names each.
func TestImport(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		good := storetest.SIM(storetest.Account, 700)
		var p client.Problem
		bad := "iccid,imei,account,state\n" +
			"x,990013907835573,,\n" +
			fmt.Sprintf("%s,%s,,\n", good.Device.ICCID, good.Device.IMEI) +
			"89148000000000000012,1,,\n" +
			"89148000000000000012,990013907835573,nobody-1,\n" +
			"89148000000000000012,990013907835573\n"
		in := "/sims/import?account=" + string(storetest.Account)
		h.post(in, bad, "Content-Type", csvType).want(http.StatusUnprocessableEntity, &p).problem("import")
		var lines []int
		for _, l := range p.Lines {
			lines = append(lines, l.Line)
		}
		if !slices.Equal(lines, []int{2, 4, 5, 6}) || p.LineCount != 4 {
			t.Errorf("bad lines: %+v", p)
		}
		// What is good by itself and not beside what is stored.
		clash := fmt.Sprintf("iccid,imei\n%s,%s\n%s,990013907835573\n%s,990013907835573\n",
			good.Device.ICCID, good.Device.IMEI, h.sims[0].Device.ICCID, h.sims[1].Device.ICCID)
		h.post(in, clash, "Content-Type", csvType).want(http.StatusUnprocessableEntity, &p).problem("import")
		if len(p.Lines) != 2 || p.Lines[0].Line != 3 || p.Lines[1].Line != 4 {
			t.Errorf("clashing lines: %+v", p)
		}
		var page client.Page[client.SIM]
		h.get("/sims?iccid="+string(good.Device.ICCID)).want(http.StatusOK, &page)
		if len(page.List) != 0 {
			t.Errorf("something was imported: %+v", page)
		}
		file := fmt.Sprintf("iccid,imei,mdn\n%s,%s,\n%s,%s,%s\n", good.Device.ICCID, good.Device.IMEI, h.sims[0].Device.ICCID, h.sims[0].Device.IMEI, h.sims[0].Device.MDN)
		var got client.Imported
		h.post(in+"&dryRun=true", file, "Content-Type", csvType).want(http.StatusOK, &got)
		if got.Added != 1 || got.Unchanged != 1 || !got.DryRun {
			t.Errorf("a dry run: %+v", got)
		}
		h.post(in, file, "Content-Type", csvType).want(http.StatusOK, &got)
		if got.Added != 1 || got.Unchanged != 1 || got.DryRun {
			t.Errorf("imported: %+v", got)
		}
		h.post("/sims/import", client.NewSIMs{SIMs: append(newSIMs(2).SIMs, client.NewSIM{ICCID: "1"})}, "Content-Type", "application/json").
			want(http.StatusUnprocessableEntity, &p)
		if len(p.Lines) != 1 || p.Lines[0].Line != 3 {
			t.Errorf("in JSON: %+v", p)
		}
		h.post(in, "iccid,what\n", "Content-Type", csvType).want(http.StatusUnprocessableEntity).problem("import")
		h.post(in, "", "Content-Type", csvType).want(http.StatusUnprocessableEntity).problem("import")
		h.post(in, "x", "Content-Type", "image/png").want(http.StatusUnsupportedMediaType).problem("media-type")
		h.post(in+"&dryRun=1", file, "Content-Type", csvType).want(http.StatusBadRequest).problem("invalid")
	})
}

// TestSIMs looks SIMs up, changes one on a condition, and tells its history.
func TestSIMs(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		sim := h.sims[3]
		at := account + "/sims/" + string(sim.Device.ICCID)
		for _, query := range []string{
			"iccid=" + string(sim.Device.ICCID), "imei=" + string(sim.Device.IMEI), "mdn=" + string(sim.Device.MDN), "imei=" + string(sim.Device.IMEI) + "&account=000012345600001",
		} {
			var page client.Page[client.SIM]
			h.get("/sims?"+query).want(http.StatusOK, &page)
			if len(page.List) != 1 || page.List[0].ICCID != string(sim.Device.ICCID) || page.List[0].License != nil {
				t.Errorf("%s: %+v", query, page)
			}
		}
		h.get("/sims?iccid=12").want(http.StatusBadRequest).problem("invalid")
		h.get("/sims?icid=12").want(http.StatusBadRequest).problem("invalid")
		h.get(account + "/sims/89148000000000999999").want(http.StatusNotFound).problem("not-found")

		h.accept(license.Assign, sim)
		var got client.SIM
		r := h.get(at).want(http.StatusOK, &got)
		if got.License == nil || got.License.State != client.LicensePending || got.License.SKU != "SIMSec-IoT" {
			t.Errorf("while it is pending: %+v", got)
		}
		h.carry(license.Done)
		h.get(at).want(http.StatusOK, &got)
		if got.License.State != client.LicenseAssigned {
			t.Errorf("assigned: %+v", got.License)
		}
		etag := r.header.Get("ETag")
		patch := func(state, etag string) reply {
			return h.call(auth.RoleOperator, "PATCH", at, client.SIMChange{State: state}, "If-Match", etag)
		}
		patch("suspend", `"stale"`).want(http.StatusPreconditionFailed).problem("precondition")
		if r := patch("suspend", etag).want(http.StatusOK, &got); got.State != "suspend" || r.header.Get("ETag") == etag {
			t.Errorf("suspended: %+v", got)
		}
		patch("active", etag).want(http.StatusPreconditionFailed).problem("precondition")
		patch("asleep", "*").want(http.StatusBadRequest).problem("invalid")
		patch("active", `"stale", `+r.header.Get("ETag")+`, *`).want(http.StatusOK, &got)

		h.clock.pass(time.Hour)
		h.accept(license.Unassign, sim)
		h.get(at).want(http.StatusOK, &got)
		if got.License.State != client.LicenseLeaving {
			t.Errorf("leaving: %+v", got.License)
		}
		h.carry(license.Done)
		var history client.Page[client.Task]
		h.get(at+"/history?limit=1").want(http.StatusOK, &history)
		first := history.List[0]
		h.get(at+"/history?limit=1&cursor="+history.NextCursor).want(http.StatusOK, &history)
		if first.Action != "unassign" || first.Outcome != "done" || history.List[0].Action != "assign" || history.NextCursor != "" {
			t.Errorf("the history: %+v, then %+v", first, history)
		}
		var changed client.Changed
		h.post(account+"/sims/state", client.SIMsChange{State: "suspend", ICCIDs: []string{string(h.sims[0].Device.ICCID), string(h.sims[1].Device.ICCID)}}).
			want(http.StatusOK, &changed)
		if changed.Changed != 2 {
			t.Errorf("changed %d", changed.Changed)
		}
		h.post(account+"/sims/state", client.SIMsChange{State: "active", ICCIDs: []string{string(h.sims[0].Device.ICCID), "89148000000000999999"}}).
			want(http.StatusNotFound).problem("not-found")
		var page client.Page[client.SIM]
		h.get("/sims?state=suspend").want(http.StatusOK, &page)
		if len(page.List) != 2 {
			t.Errorf("%d are suspended", len(page.List))
		}
	})
}

// TestRequests follows a request to its last callback, and sends that again.
func TestRequests(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		id := h.accept(license.Assign, h.sims[:3]...)
		at := account + "/requests/" + string(id)
		send := account + "/callbacks/send"
		h.listen()
		h.clock.pass(time.Second)
		h.carry(license.Done)
		h.clock.pass(time.Second)
		h.deliver(http.StatusInternalServerError)

		var list client.Page[client.Request]
		h.get("/requests?status=Success&action=assign&sku=SIMSec-IoT&since=2026-01-01T00:00:00Z").want(http.StatusOK, &list)
		if len(list.List) != 1 || list.List[0].ID != string(id) || list.List[0].Succeeded != 3 || list.List[0].Ended != 3 || list.List[0].User != "ada" {
			t.Errorf("requests: %+v", list)
		}
		h.get("/requests?status=Pending").want(http.StatusOK, &list)
		if len(list.List) != 0 {
			t.Errorf("pending requests: %+v", list)
		}
		h.get("/requests?request="+string(id)).want(http.StatusOK, &list)
		if len(list.List) != 1 {
			t.Errorf("by id: %+v", list)
		}
		var detail client.RequestDetail
		h.get(at).want(http.StatusOK, &detail)
		if got := moments(detail.Timeline); got != "accepted 3, reserve 3, post 3" {
			t.Errorf("the course of the request: %s", got)
		}
		var tasks client.Page[client.Task]
		h.get(at+"/tasks?limit=2").want(http.StatusOK, &tasks)
		first := tasks.List
		h.get(at+"/tasks?limit=2&cursor="+tasks.NextCursor).want(http.StatusOK, &tasks)
		if len(first) != 2 || len(tasks.List) != 1 || tasks.List[0].State != "undelivered" || tasks.NextCursor != "" {
			t.Errorf("tasks: %+v, then %+v", first, tasks)
		}
		var task client.TaskDetail
		h.get(at+"/tasks/"+first[0].ICCID).want(http.StatusOK, &task)
		if got := moments(task.Timeline); got != "accepted, done, attempt-failed, undelivered" {
			t.Errorf("the course of the task: %s", got)
		}
		if f := task.Failures; len(f) != 1 || f[0].Status != 500 || f[0].LatencyMS != 1.5 || f[0].Answer != "sorry" {
			t.Errorf("failures: %+v", f)
		}
		h.get(at + "/tasks/89148000000000999999").want(http.StatusNotFound).problem("not-found")
		h.get("/callbacks?state=nothing").want(http.StatusBadRequest).problem("invalid")
		h.get("/callbacks?limit=2").want(http.StatusOK, &tasks)
		h.get("/callbacks?limit=2&cursor="+tasks.NextCursor).want(http.StatusOK, &tasks)
		if len(tasks.List) != 1 || tasks.NextCursor != "" {
			t.Errorf("callbacks: %+v", tasks)
		}

		var sent client.SentCallbacks
		h.post(send, client.SendCallbacks{Request: string(id), ICCID: first[0].ICCID}).want(http.StatusOK, &sent)
		if sent.Queued != 1 {
			t.Errorf("sent one: %+v", sent)
		}
		h.post(send, client.SendCallbacks{Since: storetest.Start()}).want(http.StatusOK, &sent)
		if sent.Queued != 2 || sent.NextCursor != "" {
			t.Errorf("sent those of a time: %+v", sent)
		}
		h.post(send, client.SendCallbacks{Request: string(id)}).want(http.StatusOK, &sent)
		if sent.Queued != 0 || sent.Left["waiting"] != 3 {
			t.Errorf("sent a request again at once: %+v", sent)
		}
		for _, wrong := range []client.SendCallbacks{{}, {ICCID: first[0].ICCID}, {Request: "x"}, {Request: string(id), Since: storetest.Start()}, {Since: storetest.Start(), Cursor: "?"}} {
			h.post(send, wrong).want(http.StatusBadRequest).problem("invalid")
		}
		h.must(h.s.DeleteListener(t.Context(), storetest.Account, license.CarrierService))
		unsent := h.accept(license.Assign, h.sims[5])
		h.carry(license.Done)
		h.post(send, client.SendCallbacks{Request: string(unsent), DryRun: true}).want(http.StatusConflict).problem("no-listener")
	})
}

// moments are those of a timeline, in words.
func moments(list []client.Moment) string {
	var words []string
	for _, m := range list {
		if m.Units != 0 {
			words = append(words, fmt.Sprintf("%s %d", m.What, m.Units))
		} else {
			words = append(words, m.What)
		}
	}
	return strings.Join(words, ", ")
}

// TestStuck decides stuck tasks each way.
func TestStuck(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		id := h.accept(license.Assign, h.sims[:3]...)
		h.carry(license.Stuck)
		var page client.Page[client.StuckTask]
		h.get("/stuck?limit=2").want(http.StatusOK, &page)
		first := page.List
		h.get("/stuck?limit=2&cursor="+page.NextCursor).want(http.StatusOK, &page)
		if len(first) != 2 || len(page.List) != 1 || page.NextCursor != "" {
			t.Errorf("stuck: %+v, then %+v", first, page)
		}
		at := account + "/requests/" + string(id) + "/tasks/"
		for i, decision := range []string{client.DecideDone, client.DecideRefused, client.DecideRetry} {
			path := at + string(h.sims[i].Device.ICCID) + "/decide"
			h.post(path, client.Decision{Decision: "perhaps", Reason: "?"}).want(http.StatusBadRequest).problem("invalid")
			h.post(path, client.Decision{Decision: decision}).want(http.StatusBadRequest).problem("invalid")
			h.post(path, client.Decision{Decision: decision, Reason: "seen"}, client.KeyHeader, decision).want(http.StatusOK)
			h.post(path, client.Decision{Decision: decision, Reason: "seen"}, client.KeyHeader, decision).want(http.StatusOK)
			h.post(path, client.Decision{Decision: decision, Reason: "seen"}).want(http.StatusConflict).problem("not-stuck")
		}
		h.post(at+"89148000000000999999/decide", client.Decision{Decision: "done", Reason: "seen"}).want(http.StatusNotFound).problem("not-found")
		var pool client.Pool
		h.get(account+"/pools/SIMSec-IoT").want(http.StatusOK, &pool)
		if pool.Assigned != 1 || pool.Reserved != 1 {
			t.Errorf("the pool: %+v", pool)
		}
		var verified client.Verified
		h.post("/verify", nil).want(http.StatusOK, &verified)
		if !verified.OK || verified.SIMs != 10 || verified.Drifts != 0 {
			t.Errorf("verified: %+v", verified)
		}
	})
}

// TestListeners tunes, tests and removes a listener.
func TestListeners(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		at := account + "/listeners/CarrierService"
		h.get(at).want(http.StatusNotFound).problem("not-found")
		h.post(at+"/test", nil).want(http.StatusNotFound).problem("not-found")
		h.listen()
		var l client.Listener
		r := h.get(at).want(http.StatusOK, &l)
		if l.Signed || l.Interval != "" || l.Username != "user" || strings.Contains(string(r.body), "secret") {
			t.Errorf("as it was registered: %s", r.body)
		}
		six, wait, much := 6, "30s", "25h"
		change := func(c client.ListenerChange, etag string) reply {
			return h.call(auth.RoleOperator, "PATCH", at, c, "If-Match", etag)
		}
		change(client.ListenerChange{Attempts: &six}, `"stale"`).want(http.StatusPreconditionFailed)
		change(client.ListenerChange{Attempts: &six, Interval: &wait}, r.header.Get("ETag")).want(http.StatusOK, &l)
		if l.Attempts != 6 || l.Interval != "30s" || l.Timeout != "" {
			t.Errorf("tuned: %+v", l)
		}
		change(client.ListenerChange{Interval: &much}, "*").want(http.StatusBadRequest).problem("invalid")
		change(client.ListenerChange{SigningSecret: &much}, "*").want(http.StatusBadRequest).problem("invalid")
		var secret client.SigningSecret
		h.post(at+"/secret", nil, client.KeyHeader, "k").want(http.StatusOK, &secret)
		again := secret
		h.post(at+"/secret", nil, client.KeyHeader, "k").want(http.StatusOK, &again)
		stored, err := h.s.Listener(t.Context(), storetest.Account, license.CarrierService)
		if err != nil || stored.SigningSecret != secret.Secret || again != secret || !strings.HasPrefix(secret.Secret, "whsec_") {
			t.Errorf("the signing secret: %+v, %+v, %v", secret, stored, err)
		}
		var tested client.Tested
		h.post(at+"/test", nil).want(http.StatusOK, &tested)
		if !tested.OK || tested.Status != 200 || tested.LatencyMS != 1 {
			t.Errorf("tested: %+v", tested)
		}
		h.call(auth.RoleOperator, "DELETE", at, nil, "If-Match", r.header.Get("ETag")).want(http.StatusPreconditionFailed)
		h.call(auth.RoleOperator, "DELETE", at, nil).want(http.StatusOK)
		h.call(auth.RoleOperator, "DELETE", at, nil).want(http.StatusNotFound)
	})
}
