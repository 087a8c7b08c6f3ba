package operator_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestOverview sees requests, callbacks, stuck tasks and a listener in trouble come
// to be in the overview.
func TestOverview(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		look := func() (o client.Overview) {
			h.clock.pass(2 * time.Second) // the last look no longer counts
			h.get("/overview").want(http.StatusOK, &o)
			return o
		}
		h.listen()
		h.accept(license.Assign, h.sims[0], h.sims[1])
		o := look()
		hour := o.Hours[len(o.Hours)-1]
		if len(o.Hours) != 24 || hour.Requests != 1 || hour.Devices != 2 || hour.Succeeded != 0 || o.Queues[0].Due != 2 || o.Queues[0].Oldest.IsZero() {
			t.Errorf("accepted: %+v", o)
		}
		h.carry(license.Done)
		h.deliver(http.StatusInternalServerError)
		h.accept(license.Assign, h.sims[2])
		h.carry(license.Stuck)
		h.clock.pass(time.Hour)
		h.accept(license.Assign, h.sims[3])
		h.carry(license.Refused)
		h.deliver(http.StatusOK)
		o = look()
		before, last := o.Hours[22], o.Hours[23]
		if before.Succeeded != 2 || before.Undelivered != 2 || before.Delivered != 0 || last.Failed != 1 || last.Delivered != 1 || last.Undelivered != 0 {
			t.Errorf("the hours: %+v, %+v", before, last)
		}
		if o.Stuck != 1 || len(o.Trouble) != 1 || o.Trouble[0].Undelivered != 2 || o.Trouble[0].Status != http.StatusInternalServerError || o.Trouble[0].URL == "" {
			t.Errorf("stuck %d, trouble %+v", o.Stuck, o.Trouble)
		}
		if o.PoolCount == 0 || len(o.Pools) == 0 || o.Bounded || len(o.Audit) == 0 {
			t.Errorf("the rest: %+v", o)
		}
		// What is sent again is no longer unacknowledged, until it is again.
		h.post(account+"/callbacks/send", client.SendCallbacks{Since: storetest.Start().Add(-time.Hour)}).want(http.StatusOK)
		if o = look(); len(o.Trouble) != 0 || o.Queues[1].Due != 2 {
			t.Errorf("sent again: %+v, %+v", o.Trouble, o.Queues)
		}
		h.deliver(http.StatusOK)
		if o = look(); o.Hours[22].Delivered != 2 {
			t.Errorf("delivered: %+v", o.Hours[22])
		}
	})
}

// TestPlace plans a request, has it accepted as planned, and sees it as one of the
// operator's, with its exchange.
func TestPlace(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		h.listen()
		held := h.accept(license.Assign, h.sims[0])
		iccids := func(from, to int) (list []string) {
			for _, s := range h.sims[from:to] {
				list = append(list, string(s.Device.ICCID))
			}
			return list
		}
		in := client.NewRequest{Action: "assign", SKU: string(license.SKUFlexible), ICCIDs: iccids(0, 3)}
		var p client.Planned
		h.post(account+"/plan", in).want(http.StatusOK, &p)
		if p.Fit != 2 || p.Unfit != 1 || p.Refusal != "" || len(p.Devices) != 3 || p.Devices[0].OK || p.Devices[0].Reason == "" || p.Pool.SKU != in.SKU {
			t.Errorf("the plan: %+v", p)
		}
		h.post(account+"/requests", in).want(http.StatusConflict).problem("devices")
		in.ICCIDs = iccids(1, 3)
		var r, again client.Request
		h.post(account+"/requests", in, client.KeyHeader, "k1").want(http.StatusCreated, &r)
		h.post(account+"/requests", in, client.KeyHeader, "k1").want(http.StatusCreated, &again)
		if r.ID != again.ID || r.Devices != 2 || r.User != "the-admin" || r.Application != "operator" {
			t.Errorf("the request: %+v, and again %+v", r, again)
		}
		h.carry(license.Done)
		var e client.Exchange
		h.get(account+"/requests/"+r.ID+"/exchange").want(http.StatusOK, &e)
		if !strings.Contains(e.Request, in.ICCIDs[1]) || !strings.Contains(e.Answer, r.ID) || !strings.Contains(e.Request, "Bearer ••") {
			t.Errorf("the exchange: %+v", e)
		}
		h.get(account+"/requests/"+r.ID+"/tasks/"+in.ICCIDs[0]+"/exchange").want(http.StatusOK, &e)
		if !strings.Contains(e.Request, r.ID) || strings.Contains(e.Request, "secret") || !strings.Contains(e.Note, "not sent yet") {
			t.Errorf("the callback: %+v", e)
		}
		for outcome, want := range map[string]int{"done": 2, "refused": 0} {
			var page client.Page[client.Task]
			h.get(account+"/requests/"+r.ID+"/tasks?outcome="+outcome).want(http.StatusOK, &page)
			if len(page.List) != want {
				t.Errorf("of the outcome %s are %+v", outcome, page.List)
			}
		}
		h.deliver(http.StatusOK)
		h.get(account+"/requests/"+string(held)+"/tasks/"+string(h.sims[0].Device.ICCID)+"/exchange").want(http.StatusOK, &e)
		if !strings.Contains(e.Request, `"callbackCount": 1`) || !strings.Contains(e.Answer, "200") {
			t.Errorf("the callback that was sent: %+v", e)
		}
		for name, bad := range map[string]client.NewRequest{
			"action": {Action: "give", SKU: in.SKU, ICCIDs: in.ICCIDs}, "SKU": {Action: "assign", SKU: "x", ICCIDs: in.ICCIDs},
			"ICCID": {Action: "assign", SKU: in.SKU, ICCIDs: []string{"12"}}, "none": {Action: "assign", SKU: in.SKU},
			"twice": {Action: "assign", SKU: in.SKU, ICCIDs: []string{in.ICCIDs[0], in.ICCIDs[0]}},
		} {
			if got := h.post(account+"/requests", bad); got.status != http.StatusBadRequest {
				t.Errorf("%s: %d %s", name, got.status, got.body)
			}
		}
		in.SKU, in.ICCIDs = string(license.SKULifetime), iccids(4, 5)
		h.call(auth.RoleAdmin, "PUT", account+"/policy", client.NewPolicy{RefuseLifetime: true}).want(http.StatusOK)
		h.post(account+"/requests", in).want(http.StatusConflict).problem("policy")
		h.post(account+"/plan", in).want(http.StatusOK, &p)
		if p.Refusal == "" {
			t.Errorf("the policy refuses, and the plan says %+v", p)
		}
	})
}

// TestOperatorPassword gives an operator a password by the API, and takes it away.
func TestOperatorPassword(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		var made client.OperatorPassword
		h.post("/operators/the-viewer/password", client.NewSecret{}).want(http.StatusOK, &made)
		o, err := h.s.Operator(t.Context(), "the-viewer")
		h.must(err)
		if len(made.Password) < 16 || o.PasswordHash == "" || strings.Contains(o.PasswordHash, made.Password) {
			t.Errorf("made %+v, kept %q", made, o.PasswordHash)
		}
		h.post("/operators/the-viewer/password", client.NewSecret{Secret: "short"}).want(http.StatusBadRequest)
		h.call(auth.RoleAdmin, "DELETE", "/operators/the-viewer/password", nil).want(http.StatusOK)
		if o, err = h.s.Operator(t.Context(), "the-viewer"); err != nil || o.PasswordHash != "" {
			t.Errorf("taken away: %+v, %v", o, err)
		}
		h.post("/operators/nobody/password", client.NewSecret{}).want(http.StatusNotFound)
	})
}

// TestTags: what was changed since it was read is not changed.
func TestTags(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		off := true
		for path, change := range map[string][2]any{
			account + "/pools/SIMSec-IoT": {client.PoolChange{Threshold: 3}, client.PoolChange{Threshold: 4}},
			"/operators/the-viewer":       {client.OperatorChange{Disabled: &off}, client.OperatorChange{Role: &[]string{"admin"}[0]}},
		} {
			read := h.call(auth.RoleAdmin, "GET", path, nil).want(http.StatusOK).header.Get("ETag")
			first := h.call(auth.RoleAdmin, "PATCH", path, change[0], "If-Match", read).want(http.StatusOK).header.Get("ETag")
			if first == "" || first == read {
				t.Errorf("%s: the tags are %s and %s", path, read, first)
			}
			h.call(auth.RoleAdmin, "PATCH", path, change[1], "If-Match", read).want(http.StatusPreconditionFailed).problem("precondition")
			h.call(auth.RoleAdmin, "PATCH", path, change[1], "If-Match", first).want(http.StatusOK)
		}
	})
}

// TestContentEncoding: a body that is said to be encoded is refused, whatever it holds.
func TestContentEncoding(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		h.post("/accounts", client.NewAccount{Name: "0999000222-00001"}, "Content-Encoding", "gzip").want(http.StatusUnsupportedMediaType).problem("media-type")
		h.get("/accounts/0999000222-00001").want(http.StatusNotFound)
	})
}
