package operator_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// TestPolicy sets what an account may do, on a condition.
func TestPolicy(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		var p client.Policy
		etag := h.get(account+"/policy").want(http.StatusOK, &p).header.Get("ETag")
		if p.RefuseLifetime || p.DailyDevices != 0 {
			t.Errorf("at first: %+v", p)
		}
		put := func(body any, etag string) reply {
			return h.call(auth.RoleAdmin, "PUT", account+"/policy", body, "If-Match", etag)
		}
		put(client.NewPolicy{RefuseLifetime: true, DailyDevices: 5}, etag).want(http.StatusOK, &p)
		if !p.RefuseLifetime || p.DailyDevices != 5 {
			t.Errorf("set: %+v", p)
		}
		put(client.NewPolicy{}, etag).want(http.StatusPreconditionFailed).problem("precondition")
		put(client.NewPolicy{DailyDevices: -1}, "*").want(http.StatusBadRequest).problem("invalid")
	})
}

// TestAudit finds what each call changed, by whom, and no secret.
func TestAudit(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		var app client.ApplicationSecret
		yes := true
		h.post("/applications", client.NewApplication{Key: "app"}).want(http.StatusCreated, &app)
		h.call(auth.RoleAdmin, "PATCH", "/applications/app", client.ApplicationChange{Disabled: &yes}).want(http.StatusOK)
		h.call(auth.RoleOperator, "POST", account+"/pools/SIMSec-IoT/purchases", client.NewPurchase{Units: 3, Reason: "May"}).want(http.StatusCreated)
		h.call(auth.RoleOperator, "PATCH", account+"/sims/"+string(h.sims[0].Device.ICCID), client.SIMChange{State: "suspend"}).want(http.StatusOK)
		var got []string
		for cursor := ""; ; {
			var page client.Page[client.AuditEntry]
			r := h.get("/audit?limit=2&cursor="+cursor).want(http.StatusOK, &page)
			if strings.Contains(string(r.body), app.Secret) {
				t.Errorf("a secret: %s", r.body)
			}
			for _, e := range page.List {
				if e.Via == "api" {
					got = append(got, fmt.Sprintf("%s %s %s", e.Who, e.Action, e.From))
				}
			}
			if cursor = page.NextCursor; cursor == "" {
				break
			}
		}
		want := "the-operator sim.state 127.0.0.1, the-operator pool.purchase 127.0.0.1, the-admin application.change 127.0.0.1, the-admin application.add 127.0.0.1"
		// Those of one moment are in the order of their ids, which are random there.
		for entry := range strings.SplitSeq(want, ", ") {
			if !strings.Contains(strings.Join(got, ", "), entry) || len(got) != 4 {
				t.Errorf("the audit has %v, want %s", got, want)
			}
		}
		var page client.Page[client.AuditEntry]
		h.get("/audit?who=the-operator&action=pool&account=000012345600001").want(http.StatusOK, &page)
		if len(page.List) != 1 || fmt.Sprint(page.List[0].After) != "map[purchased:103 reason:May reference: units:3]" {
			t.Errorf("found %+v", page.List)
		}
	})
}
