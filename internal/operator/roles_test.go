package operator_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// cell is a call that succeeds for those who may make it.
type cell struct {
	path string // with what is there
	body any
	need auth.Role
}

// matrix has a call for each operation that is described.
func (h *harness) matrix() map[string]cell {
	const viewer, daily, admin = auth.RoleViewer, auth.RoleOperator, auth.RoleAdmin
	yes, state := true, "suspend"
	sim, stuck := account+"/sims/"+string(h.sims[9].Device.ICCID), h.accept(license.Assign, h.sims[0])
	h.carry(license.Stuck)
	h.listen()
	ended := h.accept(license.Assign, h.sims[1])
	h.carry(license.Done)
	free := client.NewRequest{Action: "assign", SKU: string(license.SKUFlexible), ICCIDs: []string{string(h.sims[2].Device.ICCID)}}
	request := account + "/requests/" + string(stuck)
	task := request + "/tasks/" + string(h.sims[0].Device.ICCID)
	h.must(h.s.AddApplication(h.t.Context(), "app", "hash", h.clock.Now()))
	h.must(h.s.RotateApplication(h.t.Context(), "app", "newer", h.clock.Now().Add(time.Hour)))
	h.must(h.s.AddUser(h.t.Context(), auth.User{Name: "ada"}, h.clock.Now()))
	h.must(h.s.AddOperator(h.t.Context(), auth.OperatorRecord{Operator: auth.Operator{Name: "olga", Role: viewer}}, h.clock.Now()))
	pool, listener := account+"/pools/SIMSec-IoT", account+"/listeners/CarrierService"
	return map[string]cell{
		"GET /self":                         {"/self", nil, viewer},
		"GET /accounts":                     {"/accounts", nil, viewer},
		"GET /overview":                     {"/overview", nil, viewer},
		"POST /accounts/{account}/plan":     {account + "/plan", free, daily},
		"POST /accounts/{account}/requests": {account + "/requests", free, daily},
		"GET /accounts/{account}/requests/{request}/exchange":               {request + "/exchange", nil, viewer},
		"GET /accounts/{account}/requests/{request}/tasks/{iccid}/exchange": {account + "/requests/" + string(ended) + "/tasks/" + string(h.sims[1].Device.ICCID) + "/exchange", nil, viewer},
		"POST /operators/{name}/password":                                   {"/operators/olga/password", client.NewSecret{}, admin},
		"DELETE /operators/{name}/password":                                 {"/operators/olga/password", nil, admin},
		"POST /accounts":                                                    {"/accounts", client.NewAccount{Name: "another-1"}, admin},
		"GET /accounts/{account}":                                           {account, nil, viewer},
		"GET /accounts/{account}/policy":                                    {account + "/policy", nil, viewer},
		"PUT /accounts/{account}/policy":                                    {account + "/policy", client.NewPolicy{DailyDevices: 7}, admin},
		"GET /audit":                                                        {"/audit", nil, viewer},
		"GET /applications":                                                 {"/applications", nil, viewer},
		"POST /applications":                                                {"/applications", client.NewApplication{Key: "new"}, admin},
		"GET /applications/{key}":                                           {"/applications/app", nil, viewer},
		"PATCH /applications/{key}":                                         {"/applications/app", client.ApplicationChange{Disabled: &yes}, admin},
		"POST /applications/{key}/rotate":                                   {"/applications/app/rotate", client.Rotation{Overlap: "24h"}, admin},
		"POST /applications/{key}/end-old-secret":                           {"/applications/app/end-old-secret", nil, admin},
		"POST /applications/{key}/unlock":                                   {"/applications/app/unlock", nil, daily},
		"GET /users":                                                        {"/users", nil, viewer},
		"POST /users":                                                       {"/users", client.NewUser{Name: "bob"}, admin},
		"GET /users/{name}":                                                 {"/users/ada", nil, viewer},
		"PATCH /users/{name}":                                               {"/users/ada", client.UserChange{Disabled: &yes}, admin},
		"POST /users/{name}/rotate":                                         {"/users/ada/rotate", client.NewSecret{}, admin},
		"POST /users/{name}/unlock":                                         {"/users/ada/unlock", nil, daily},
		"GET /operators":                                                    {"/operators", nil, admin},
		"POST /operators":                                                   {"/operators", client.NewOperator{Name: "oscar", Role: "admin"}, admin},
		"GET /operators/{name}":                                             {"/operators/olga", nil, admin},
		"PATCH /operators/{name}":                                           {"/operators/olga", client.OperatorChange{Disabled: &yes}, admin},
		"POST /operators/{name}/rotate":                                     {"/operators/olga/rotate", nil, admin},
		"GET /pools":                                                        {"/pools", nil, viewer},
		"GET /accounts/{account}/pools/{sku}":                               {pool, nil, viewer},
		"PATCH /accounts/{account}/pools/{sku}":                             {pool, client.PoolChange{Threshold: 5}, daily},
		"GET /accounts/{account}/pools/{sku}/purchases":                     {pool + "/purchases", nil, viewer},
		"POST /accounts/{account}/pools/{sku}/purchases":                    {pool + "/purchases", client.NewPurchase{Units: 5, Reason: "more"}, daily},
		"GET /sims":                                                         {"/sims", nil, viewer},
		"POST /sims/import":                                                 {"/sims/import", newSIMs(1), daily},
		"POST /accounts/{account}/sims/state":                               {account + "/sims/state", client.SIMsChange{State: state, ICCIDs: []string{string(h.sims[8].Device.ICCID)}}, daily},
		"GET /accounts/{account}/sims/{iccid}":                              {sim, nil, viewer},
		"PATCH /accounts/{account}/sims/{iccid}":                            {sim, client.SIMChange{State: state}, daily},
		"GET /accounts/{account}/sims/{iccid}/history":                      {sim + "/history", nil, viewer},
		"GET /requests":                                                     {"/requests", nil, viewer},
		"GET /accounts/{account}/requests/{request}":                        {request, nil, viewer},
		"GET /accounts/{account}/requests/{request}/tasks":                  {request + "/tasks", nil, viewer},
		"GET /accounts/{account}/requests/{request}/tasks/{iccid}":          {task, nil, viewer},
		"POST /accounts/{account}/requests/{request}/tasks/{iccid}/decide":  {task + "/decide", client.Decision{Decision: "done", Reason: "seen"}, daily},
		"GET /stuck":                                                        {"/stuck", nil, viewer},
		"GET /callbacks":                                                    {"/callbacks", nil, viewer},
		"POST /accounts/{account}/callbacks/send":                           {account + "/callbacks/send", client.SendCallbacks{Since: storetest.Start()}, daily},
		"GET /listeners":                                                    {"/listeners", nil, viewer},
		"GET /accounts/{account}/listeners/{service}":                       {listener, nil, viewer},
		"PATCH /accounts/{account}/listeners/{service}":                     {listener, client.ListenerChange{Timeout: &[]string{"3s"}[0]}, daily},
		"POST /accounts/{account}/listeners/{service}/secret":               {listener + "/secret", nil, daily},
		"POST /accounts/{account}/listeners/{service}/test":                 {listener + "/test", nil, daily},
		"POST /verify":                                                      {"/verify", nil, daily},
		stream:                                                              {"/events", nil, viewer},
		removal:                                                             {listener, nil, daily},
	}
}

func newSIMs(n int) client.NewSIMs {
	var in client.NewSIMs
	for i := range n {
		s := storetest.SIM(storetest.Account, 5000+i)
		in.SIMs = append(in.SIMs, client.NewSIM{Account: string(s.Account), ICCID: string(s.Device.ICCID), IMEI: string(s.Device.IMEI)})
	}
	return in
}

// TestRoles makes every call as everybody: what is not allowed is refused and
// changes nothing, and what is allowed succeeds.
func TestRoles(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		cells := h.matrix()
		before := h.everything()
		for _, op := range theContract().Operations() {
			cell, known := cells[op]
			if !known {
				t.Errorf("%s is not in the matrix", op)
				continue
			}
			h.refused(op, cell)
			if !describesRole(op, cell.need) {
				t.Errorf("%s: the description does not say that it takes the role %s", op, cell.need)
			}
		}
		if after := h.everything(); after != before {
			t.Errorf("what was refused changed something: before\n%s\nafter\n%s", before, after)
		}
		for _, op := range theContract().Operations() {
			if op != stream && op != removal {
				h.allowed(op, cells[op])
			}
		}
		h.allowed(removal, cells[removal])
	})
}

// Operations that are not like others: one whose answer does not end, and one
// that takes away what others need.
const (
	stream  = "GET /events"
	removal = "DELETE /accounts/{account}/listeners/{service}"
)

// refused makes a call as everybody who may not.
func (h *harness) refused(op string, c cell) {
	h.t.Helper()
	method, _, _ := strings.Cut(op, " ")
	h.call("", method, c.path, c.body).want(http.StatusUnauthorized).problem("token")
	for _, role := range auth.Roles() {
		if !role.May(c.need) {
			h.call(role, method, c.path, c.body).want(http.StatusForbidden).problem("role")
		}
	}
}

// allowed makes a call as the least of those who may.
func (h *harness) allowed(op string, c cell) {
	h.t.Helper()
	method, _, _ := strings.Cut(op, " ")
	if r := h.call(c.need, method, c.path, c.body, "Content-Type", "application/json"); r.status >= http.StatusMultipleChoices {
		h.t.Errorf("%s as %s: %d %s", op, c.need, r.status, r.body)
	}
}

// describesRole reports whether an operation's description names the role.
func describesRole(op string, need auth.Role) bool {
	method, path, _ := strings.Cut(op, " ")
	_, item, _ := strings.Cut(string(operator.OpenAPI()), "\n  "+path+":\n")
	_, part, _ := strings.Cut(item, "    "+strings.ToLower(method)+":\n")
	part, _, _ = strings.Cut(part, "responses:")
	return strings.Contains(part, fmt.Sprintf("Takes a %s.", need)) || strings.Contains(part, fmt.Sprintf("Takes an %s.", need))
}

// everything is all that a call could change, in words.
func (h *harness) everything() string {
	ctx := h.t.Context()
	var b strings.Builder
	note := func(v any, err error) {
		h.must(err)
		fmt.Fprintf(&b, "%+v\n", v)
	}
	names, err := h.s.Accounts(ctx)
	note(names, err)
	applications, err := h.s.Applications(ctx)
	note(applications, err)
	users, err := h.s.Users(ctx)
	note(users, err)
	operators, err := h.s.Operators(ctx)
	for i := range operators { // a call is a use
		operators[i].Used = storetest.Start()
	}
	note(operators, err)
	for _, name := range names {
		pools, err := h.s.Pools(ctx, name)
		note(pools, err)
		sims, err := h.s.Devices(ctx, license.DeviceFilter{Accounts: names, Limit: 1000})
		note(sims, err)
		listeners, err := h.s.Listeners(ctx, name)
		note(listeners, err)
		policy, _, err := h.s.Policy(ctx, name, storetest.Start())
		note(policy, err)
		stuck, err := h.s.StuckTasks(ctx, name)
		note(stuck, err)
	}
	return b.String()
}
