package api_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/api"
	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

// tray takes tasks and lets them lie.
type tray struct {
	mu    sync.Mutex
	tasks []license.Task
}

func (w *tray) Reserve(_ license.AccountName, n int) int { return n }
func (w *tray) Wake()                                    {}

func (w *tray) Give(_ license.AccountName, _ int, tasks []license.Task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tasks = append(w.tasks, tasks...)
}

// take empties the tray.
func (w *tray) take() []license.Task {
	w.mu.Lock()
	defer w.mu.Unlock()
	tasks := w.tasks
	w.tasks = nil
	return tasks
}

// service is the API on a real store, and a client of it.
type service struct {
	t       *testing.T
	store   *store.Store
	work    *tray
	handler http.Handler
	headers http.Header
}

func newService(t *testing.T, s *store.Store) *service {
	t.Helper()
	ctx := t.Context()
	storetest.Seed(t, s, storetest.Fixture{Pools: map[license.SKU]int64{license.SKUFlexible: 5, license.SKULifetime: 1}})
	user := auth.User{Name: "demo", PasswordHash: auth.HashPassword("pw"), Accounts: []license.AccountName{storetest.Account}}
	if err := s.AddApplication(ctx, "app", auth.HashSecret("secret"), storetest.Start()); err != nil {
		t.Fatal(err)
	}
	if err := s.AddUser(ctx, user, storetest.Start()); err != nil {
		t.Fatal(err)
	}
	svc := &service{t: t, store: s, work: &tray{}, headers: http.Header{}}
	a, err := api.New(api.Config{
		Auth:     auth.New(auth.Config{Records: s, Clock: license.SystemClock{}, Random: rand.Reader}),
		Licenses: s, Inventory: s, Listeners: s, Work: svc.work,
	})
	if err != nil {
		t.Fatal(err)
	}
	svc.handler = a.Handler()
	return svc
}

// do sends a request and decodes its answer into out.
func (s *service) do(method, path, body string, out any) int {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	for name, values := range s.headers {
		r.Header[name] = values
	}
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, r)
	dec := json.NewDecoder(bytes.NewReader(rec.Body.Bytes()))
	if err := dec.Decode(out); err != nil {
		s.t.Fatalf("%s %s = %d %s: %v", method, path, rec.Code, rec.Body, err)
	}
	return rec.Code
}

// logIn gets both tokens.
func (s *service) logIn() {
	s.t.Helper()
	s.headers.Set("Authorization", "Basic YXBwOnNlY3JldA==")
	s.headers.Set("Content-Type", "application/x-www-form-urlencoded")
	var token m2m.TokenAnswer
	s.do("POST", "/api/ts/v1/oauth2/token", "grant_type=client_credentials&scope=", &token)
	s.headers.Del("Content-Type")
	s.headers.Set("Authorization", "Bearer "+token.AccessToken)
	var session m2m.SessionAnswer
	if status := s.do("POST", "/api/m2m/v1/session/login", `{"username":"demo","password":"pw"}`, &session); status != http.StatusOK {
		s.t.Fatalf("login: %d", status)
	}
	s.headers.Set(m2m.SessionHeader, session.SessionToken)
}

func (s *service) license(method, sku string, sims ...license.SIM) (id string, refusal *m2m.Error) {
	s.t.Helper()
	req := m2m.LicenseRequest{SKUNumber: sku}
	for _, sim := range sims {
		req.Devices = append(req.Devices, m2m.Device{DeviceIDs: []m2m.DeviceID{
			{ID: string(sim.Device.IMEI), Kind: "imei"}, {ID: string(sim.Device.ICCID), Kind: "iccid"},
		}})
	}
	body, err := json.Marshal(req)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer struct{ RequestID, ErrorCode, ErrorMessage string }
	if status := s.do(method, "/api/m2m/v1/devices/license/actions/assign", string(body), &answer); status != http.StatusOK {
		return "", &m2m.Error{Status: status, Code: answer.ErrorCode, Message: answer.ErrorMessage}
	}
	return answer.RequestID, nil
}

// settle has the carrier do all that lies on the tray.
func (s *service) settle() {
	s.t.Helper()
	var done []license.Outcome
	for _, task := range s.work.take() {
		done = append(done, license.Outcome{Task: task, Verdict: license.Done})
	}
	if _, err := s.store.SettleTasks(s.t.Context(), license.SettleParams{Now: time.Now(), Outcomes: done}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) status(id string) string {
	s.t.Helper()
	var out m2m.RequestStatus
	s.do("GET", "/api/m2m/v1/accounts/"+string(storetest.Account)+"/requests/"+id+"/status", "", &out)
	return out.Status
}

// pool is an account's pool of flexible licenses.
func (s *service) pool() m2m.Subscription {
	s.t.Helper()
	var out m2m.Subscriptions
	s.do("POST", "/api/m2m/v1/accounts/subscriptions/actions/list", `{"skuNumber":"SIMSec-IoT"}`, &out)
	if len(out.SubscriptionList) != 1 || out.AccountName != string(storetest.Account) {
		s.t.Fatalf("subscriptions: %+v", out)
	}
	return out.SubscriptionList[0]
}

func sims(n int) []license.SIM {
	var list []license.SIM
	for i := range n {
		list = append(list, storetest.SIM(storetest.Account, i))
	}
	return list
}

// TestLifeOfALicense goes from the token to the unassignment on a real store.
func TestLifeOfALicense(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := newService(t, st)
		s.logIn()
		all := sims(10)

		id, refusal := s.license("POST", "SIMSec-IoT", all[0], all[1])
		if refusal != nil || s.status(id) != "Pending" {
			t.Fatalf("assign: %v, then %s", refusal, s.status(id))
		}
		want := m2m.Subscription{SKUNumber: "SIMSec-IoT", LicenseType: "Flexible", LicensePurchased: 5, LicenseAvailable: 3}
		if diff := cmp.Diff(want, s.pool()); diff != "" {
			t.Errorf("the pool while pending (-want +got):\n%s", diff)
		}
		if _, err := s.license("POST", "SIMSec-IoT-Lt", all[1]); err == nil || *err != *m2m.ErrLicenseHeld {
			t.Errorf("assign what is pending: %v", err)
		}
		s.settle()
		want.LicenseAssigned = 2
		if diff := cmp.Diff(want, s.pool()); diff != "" || s.status(id) != "Success" {
			t.Errorf("status %s, the pool (-want +got):\n%s", s.status(id), diff)
		}

		for _, tt := range []struct {
			name, method, sku string
			sims              []license.SIM
			want              *m2m.Error
		}{
			{"held", "POST", "SIMSec-IoT", all[1:3], m2m.ErrLicenseHeld},
			{"too few licenses", "POST", "SIMSec-IoT", all[2:6], m2m.ErrInsufficientLicense},
			{"no pool", "POST", "TS-BUNDLE-KTO-SIMSEC-MRC", all[2:3], m2m.ErrInsufficientLicense},
			{"unknown", "POST", "SIMSec-IoT", sims(11)[10:], m2m.ErrDevicesNotFound},
			{"lifetime", "DELETE", "SIMSec-IoT-Lt", all[:1], m2m.ErrUnassignLifetime},
			{"not held", "DELETE", "SIMSec-IoT", all[2:3], &m2m.Error{
				Status: 400, Code: m2m.CodeNotAssigned,
				Message: "The device has no license of this SKU: " + string(all[2].Device.ICCID) + ".",
			}},
		} {
			if _, err := s.license(tt.method, tt.sku, tt.sims...); err == nil || *err != *tt.want {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		if diff := cmp.Diff(want, s.pool()); diff != "" {
			t.Errorf("the pool after refusals (-want +got):\n%s", diff)
		}

		id, refusal = s.license("DELETE", "SIMSec-IoT", all[0])
		if refusal != nil {
			t.Fatal(refusal)
		}
		s.settle()
		want.LicenseAssigned, want.LicenseAvailable = 1, 4
		if diff := cmp.Diff(want, s.pool()); diff != "" || s.status(id) != "Success" {
			t.Errorf("unassigned: status %s, the pool (-want +got):\n%s", s.status(id), diff)
		}
	})
}

// TestRepeats sends one request twice under one key, and another under the
// same.
func TestRepeats(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := newService(t, st)
		s.logIn()
		all := sims(2)
		s.headers.Set("Idempotency-Key", "one\xff")
		first, err := s.license("POST", "SIMSec-IoT", all[0])
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.license("POST", "SIMSec-IoT", all[0]); err != nil || again != first {
			t.Errorf("again: %q, %v, want %q", again, err, first)
		}
		if _, err := s.license("POST", "SIMSec-IoT", all[1]); err == nil || err.Code != m2m.CodeKeyReused {
			t.Errorf("another body: %v", err)
		}
		if p := s.pool(); p.LicenseAvailable != 4 {
			t.Errorf("pool %+v, want one license taken", p)
		}
	})
}

// TestPlanOnStore asks, on a real store, what would become of devices of all
// sorts, in an order of our own.
func TestPlanOnStore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := newService(t, st)
		s.logIn()
		all := sims(11)
		if _, err := s.license("POST", "SIMSec-IoT", all[3]); err != nil {
			t.Fatal(err)
		}
		if _, err := st.SetState(t.Context(), storetest.Account, []license.ICCID{all[1].Device.ICCID}, license.StateSuspended); err != nil {
			t.Fatal(err)
		}
		id := func(kind, id string) string { return `{"deviceIds":[{"kind":"` + kind + `","id":"` + id + `"}]}` }
		body := `{"skuNumber":"SIMSec-IoT","devices":[` + strings.Join([]string{
			id("imei", string(all[10].Device.IMEI)), id("iccid", string(all[3].Device.ICCID)), id("imei", string(all[2].Device.IMEI)), id("iccid", string(all[1].Device.ICCID)),
		}, ",") + `]}`
		s.headers.Set(m2m.DryRunHeader, "true")
		var plan m2m.Plan
		s.do("POST", "/m2m/v1/devices/licenses/actions/assign", body, &plan)
		var got []string
		for _, d := range plan.Devices {
			got = append(got, d.Outcome+" "+d.ErrorMessage)
		}
		want := []string{
			"refused " + m2m.ErrDevicesNotFound.Message, "refused " + m2m.ErrLicenseHeld.Message, "ok ",
			"refused The device is not active: " + string(all[1].Device.ICCID) + ".",
		}
		if diff := cmp.Diff(want, got); diff != "" || plan.Accepted || plan.Pool.Before.LicenseAvailable != 4 || plan.Pool.After != plan.Pool.Before {
			t.Errorf("plan %+v; outcomes (-want +got):\n%s", plan, diff)
		}
	})
}

// TestPagingOnStore walks through the devices, page by page.
func TestPagingOnStore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := newService(t, st)
		s.logIn()
		seen, largest := map[string]bool{}, "0"
		for page, status := 0, http.StatusAccepted; status == http.StatusAccepted; page++ {
			var list m2m.DeviceList
			status = s.do("POST", "/api/m2m/v1/devices/actions/list", `{"maxNumberOfDevices":4,"largestDeviceIdSeen":`+largest+`}`, &list)
			if list.HasMoreData != (status == http.StatusAccepted) || page > 3 {
				t.Fatalf("page %d: status %d, %+v", page, status, list)
			}
			for _, d := range list.Devices {
				seen[d.DeviceIDs[len(d.DeviceIDs)-1].ID] = true
				largest = d.ExtendedAttributes[0].Value
			}
		}
		if len(seen) != 10 {
			t.Errorf("%d devices seen, want 10", len(seen))
		}
		one := sims(4)[3].Device
		for kind, id := range map[string]string{"mdn": string(one.MDN), "imei": string(one.IMEI), "iccId": string(one.ICCID)} {
			var list m2m.DeviceList
			s.do("POST", "/api/m2m/v1/devices/actions/list", `{"deviceId":{"kind":"`+kind+`","id":"`+id+`"}}`, &list)
			if len(list.Devices) != 1 || list.Devices[0].ExtendedAttributes[0].Value != strconv.Itoa(4) {
				t.Errorf("by %s: %+v", kind, list)
			}
		}
	})
}

// TestListenersOnStore registers a listener whose secrets the store seals.
func TestListenersOnStore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := newService(t, st)
		s.logIn()
		const path = "/api/m2m/v1/callbacks/0000123456-00001"
		var answer m2m.ListenerAnswer
		if status := s.do("POST", path, `{"name":"CarrierService","url":"https://x.example/","username":"u","password":"p"}`, &answer); status != http.StatusOK {
			t.Fatalf("register: %d", status)
		}
		var list []m2m.Listener
		s.do("GET", path, "", &list)
		want := []m2m.Listener{{AccountName: string(storetest.Account), ServiceName: "CarrierService", URL: "https://x.example/", Username: "u", Password: "********"}}
		if diff := cmp.Diff(want, list); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
	})
}
