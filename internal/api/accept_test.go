package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

type acceptFunc func(context.Context, license.AcceptParams) (license.Accepted, error)

// refuseWith refuses with err, or accepts when it is nil.
func refuseWith(err error) acceptFunc {
	return func(_ context.Context, p license.AcceptParams) (license.Accepted, error) {
		return license.Accepted{ID: p.Request.ID}, err
	}
}

func panicWith(v any) acceptFunc {
	return func(context.Context, license.AcceptParams) (license.Accepted, error) { panic(v) }
}

func TestAccept(t *testing.T) {
	h := newHarness(t)
	h.work.room = 1
	task := license.Task{Request: "r", Device: domainDevice(1)}
	h.licenses.accept = func(_ context.Context, p license.AcceptParams) (license.Accepted, error) {
		return license.Accepted{ID: p.Request.ID, Tasks: []license.Task{task}, More: true}, nil
	}
	body := licenseJSON("TSS-IOT-INTLG-TIERED-SIMSEC", device(2), device(1))
	trace := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	a := h.do("POST", assign, body, header("traceparent", trace), header("Idempotency-Key", "k1"))
	id, _ := a.fields(t)["requestId"].(string)
	if a.StatusCode != http.StatusOK || uuid.Validate(id) != nil {
		t.Fatalf("%s, want a requestId", a)
	}
	p := h.licenses.accepted[0]
	sum := sha256.Sum256([]byte(body))
	want := license.AcceptParams{
		Request: &license.Request{
			ID: license.RequestID(id), Account: account, SKU: license.SKUIntelligence, Action: license.Assign,
			Devices: []license.Device{domainDevice(1), domainDevice(2)}, At: h.clock.Now(),
		},
		Application: "app", User: "demo", Trace: trace, IdempotencyKey: "k1", BodyHash: hex.EncodeToString(sum[:]),
		Room: 1, LeaseUntil: h.clock.Now().Add(20 * time.Second),
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("accept params (-want +got):\n%s", diff)
	}
	if h.work.reserved != 0 || h.work.woken != 1 || !slices.Equal(h.work.tasks, []license.Task{task}) {
		t.Errorf("work: %d reserved, woken %d times, tasks %v", h.work.reserved, h.work.woken, h.work.tasks)
	}
	if n := h.counted("simlatch_api_devices_accepted_total", "assign"); n != 2 {
		t.Errorf("%v devices counted", n)
	}
}

// TestSpellings sends the same request in every way that means the same.
func TestSpellings(t *testing.T) {
	plain := licenseJSON("SIMSec-IoT", device(1))
	reversed := licenseJSON("SIMSec-IoT", `{"deviceIds":[{"kind":"ICCID","id":"`+string(domainDevice(1).ICCID)+`"},{"kind":"Imei","id":"`+string(domainDevice(1).IMEI)+`"}]}`)
	chunked := func(r *http.Request) { r.ContentLength = -1 }
	tests := []struct {
		name, method, path, body string
		change                   change
		action                   license.Action
	}{
		{"plain", "POST", assign, plain, nil, license.Assign},
		{"short prefix", "POST", "/m2m/v1/devices/license/actions/assign", plain, nil, license.Assign},
		{"plural", "POST", "/api/m2m/v1/devices/licenses/actions/assign", plain, nil, license.Assign},
		{"chunked", "POST", assign, plain, chunked, license.Assign},
		{"DELETE", "DELETE", assign, plain, nil, license.Unassign},
		{"DELETE plural", "DELETE", "/m2m/v1/devices/licenses/actions/assign", plain, nil, license.Unassign},
		{"DELETE chunked", "DELETE", assign, plain, chunked, license.Unassign},
		{"unassign", "POST", "/api/m2m/v1/devices/license/actions/unassign", plain, nil, license.Unassign},
		{"order and case of kinds", "POST", assign, reversed, nil, license.Assign},
		{"no content type", "POST", assign, plain, func(r *http.Request) { r.Header.Del("Content-Type") }, license.Assign},
		{"charset", "POST", assign, plain, header("Content-Type", "Application/JSON; charset=UTF-8"), license.Assign},
		{"account without hyphen", "POST", assign, strings.Replace(plain, account, "000012345600001", 1), nil, license.Assign},
		{"account null", "POST", assign, strings.Replace(plain, `"`+account+`"`, "null", 1), nil, license.Assign},
		{"account empty", "POST", assign, strings.Replace(plain, account, "", 1), nil, license.Assign},
		{"unknown members", "POST", assign, strings.Replace(plain, "{", `{"X":{"devices":[1,{}]},"SKU":1,"groupName":null,`, 1), nil, license.Assign},
		{"escaped names", "POST", assign, strings.Replace(strings.Replace(plain, `"skuNumber"`, `"sku\u004eumber"`, 1), "SIMSec", `\u0053IMSec`, 1), nil, license.Assign},
		{"spaces", "POST", assign, "\r\n\t " + plain + " \n", nil, license.Assign},
		{"percent in the path", "POST", "/api/m2m/v1/devices/%6cicense/actions/assign", plain, nil, license.Assign},
		{"bearer in any case", "POST", assign, plain, func(r *http.Request) {
			r.Header.Set("Authorization", "bearer  "+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		}, license.Assign},
		{"session in upper case", "POST", assign, plain, func(r *http.Request) {
			r.Header.Set("VZ-M2M-Token", strings.ToUpper(r.Header.Get("VZ-M2M-Token")))
		}, license.Assign},
		{"an odd request id", "POST", assign, plain, header("X-Request-ID", "X-Request-ID2"), license.Assign},
		{"a query", "POST", assign + "?a=b&%zz", plain, nil, license.Assign},
		{"another host", "POST", assign, plain, func(r *http.Request) { r.Host = "thingspace.verizon.com" }, license.Assign},
	}
	h := newHarness(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.t, h.licenses.accepted = t, nil
			var changes []change
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			a := h.do(tt.method, tt.path, tt.body, changes...)
			if a.StatusCode != http.StatusOK || len(h.licenses.accepted) != 1 {
				t.Fatalf("%s, want it accepted", a)
			}
			r := h.licenses.accepted[0].Request
			if r.Action != tt.action || r.Account != account || r.SKU != license.SKUFlexible || !slices.Equal(r.Devices, []license.Device{domainDevice(1)}) {
				t.Errorf("accepted %+v", r)
			}
		})
	}
}

func TestOneIdentifier(t *testing.T) {
	h := newHarness(t)
	h.do("POST", assign, licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"864508030109877","kind":"IMEI"}],"ipAddress":"ipAddress4"}`))
	want := []license.Device{{IMEI: "864508030109877"}}
	if len(h.licenses.accepted) != 1 || !slices.Equal(h.licenses.accepted[0].Request.Devices, want) {
		t.Errorf("accepted %+v", h.licenses.accepted)
	}
}

func TestIdempotency(t *testing.T) {
	h := newHarness(t)
	var asked []string
	h.licenses.replay = func(key, _ string) (license.RequestID, error) {
		asked = append(asked, key)
		if key == "unassign known" {
			return "c3f3d17c-79ff-4b35-82df-94446785b6e0", nil
		}
		if key == "assign reused" {
			return "", license.ErrKeyReused
		}
		return "", license.ErrNotFound
	}
	// A replay is answered before the SKU is looked at.
	a := h.do("DELETE", assign, `{"skuNumber":"none such"}`, header("Idempotency-Key", "known"))
	if a.fields(t)["requestId"] != "c3f3d17c-79ff-4b35-82df-94446785b6e0" || len(h.licenses.accepted) != 0 {
		t.Errorf("replay: %s", a)
	}
	a = h.do("POST", assign, `{"skuNumber":"none such"}`, header("Idempotency-Key", "reused"))
	if a.code(t) != m2m.CodeKeyReused {
		t.Errorf("reused: %s", a)
	}
	// What no database can hold stands in as its hash.
	h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)), header("Idempotency-Key", "\xff"+strings.Repeat("k", 300)))
	if p := h.licenses.accepted[0]; !strings.HasPrefix(p.IdempotencyKey, "sha256:") || len(p.IdempotencyKey) != 71 || p.BodyHash == "" {
		t.Errorf("odd key: %+v", p)
	}
	h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)))
	if p := h.licenses.accepted[1]; p.IdempotencyKey != "" || p.BodyHash != "" || len(asked) != 3 {
		t.Errorf("no key: %+v, asked %q", p, asked)
	}
}

func TestReplayIsNotCounted(t *testing.T) {
	h := newHarness(t)
	h.licenses.accept = func(context.Context, license.AcceptParams) (license.Accepted, error) {
		return license.Accepted{ID: "c3f3d17c-79ff-4b35-82df-94446785b6e0", Replay: true}, nil
	}
	a := h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)), header("Idempotency-Key", "k"))
	if a.fields(t)["requestId"] != "c3f3d17c-79ff-4b35-82df-94446785b6e0" {
		t.Errorf("%s, want the first answer", a)
	}
	if n := h.counted("simlatch_api_devices_accepted_total", "assign"); n != 0 || h.work.reserved != 0 {
		t.Errorf("%v devices counted, room for %d not given back", n, h.work.reserved)
	}
}

func TestUnavailable(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		after string
	}{
		{"out of reach", &license.UnavailableError{Err: errors.New("no route"), After: 2500 * time.Millisecond}, "3"},
		{"no hint", &license.UnavailableError{Err: errors.New("busy")}, "1"},
		{"deadline", context.DeadlineExceeded, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHarness(t)
			fails(h, tt.err)
			a := h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)))
			if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != tt.after || a.code(t) != codeUnavailable {
				t.Errorf("%s, Retry-After %q", a, a.Header.Get("Retry-After"))
			}
		})
	}
}

// TestNoCallHangs has the store answer never.
func TestNoCallHangs(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.Timeout = 50 * time.Millisecond })
	h.licenses.accept = func(ctx context.Context, _ license.AcceptParams) (license.Accepted, error) {
		<-ctx.Done()
		return license.Accepted{}, ctx.Err()
	}
	a := h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)))
	if a.StatusCode != http.StatusServiceUnavailable || h.work.reserved != 0 {
		t.Errorf("%s, room for %d not given back", a, h.work.reserved)
	}
}

func TestDryRun(t *testing.T) {
	h := newHarness(t)
	h.licenses.replay = func(string, string) (license.RequestID, error) { panic("a dry run repeats nothing") }
	h.licenses.accept = panicWith("a dry run accepts nothing")
	h.licenses.plan = func(r *license.Request) (license.Plan, error) {
		p := license.Plan{Pool: license.Pool{Account: r.Account, SKU: r.SKU, Purchased: 10, Assigned: 3, Reserved: 2}, Devices: make([]error, len(r.Devices))}
		for i, d := range r.Devices {
			if d == domainDevice(3) {
				p.Devices[i] = license.ErrNotActive
			}
		}
		return p, nil
	}
	dry := []change{header("Simlatch-Dry-Run", "true"), header("Idempotency-Key", "k")}
	get := func(body string) m2m.Plan {
		t.Helper()
		a := h.do("POST", assign, body, dry...)
		p, err := decodeJSON[m2m.Plan](a.body)
		if err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v", a, err)
		}
		return p
	}

	p := get(licenseJSON("SIMSec-IoT", device(5), device(3), device(4)))
	before := m2m.Subscription{SKUNumber: "SIMSec-IoT", LicenseType: "Flexible", LicensePurchased: 10, LicenseAssigned: 3, LicenseAvailable: 5}
	ids := func(n int) []m2m.DeviceID {
		d := domainDevice(n)
		return []m2m.DeviceID{{ID: string(d.IMEI), Kind: "imei"}, {ID: string(d.ICCID), Kind: "iccid"}}
	}
	want := m2m.Plan{
		DryRun: true, AccountName: account, SKUNumber: "SIMSec-IoT", Action: "assign",
		Pool: m2m.PlanPool{Before: before, After: before},
		Devices: []m2m.PlanDevice{
			{DeviceIDs: ids(5), Outcome: "ok"},
			{DeviceIDs: ids(3), Outcome: "refused", ErrorCode: m2m.CodeDeviceState, ErrorMessage: "The device is not active: " + string(domainDevice(3).ICCID) + "."},
			{DeviceIDs: ids(4), Outcome: "ok"},
		},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}

	p = get(licenseJSON("SIMSec-IoT", device(5), device(4)))
	after := before
	after.LicenseAssigned, after.LicenseAvailable = 5, 3
	if !p.Accepted || p.Pool.Before != before || p.Pool.After != after {
		t.Errorf("accepted: %+v", p)
	}
}

func TestDryRunRefusals(t *testing.T) {
	h := newHarness(t)
	h.inventory.pools = []license.Pool{{Account: account, SKU: license.SKULifetime, Purchased: 4, Assigned: 4}}
	h.licenses.accept = panicWith("a dry run accepts nothing")
	a := h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1), device(1)), header("Simlatch-Dry-Run", "true"))
	if a.code(t) != m2m.CodeDeviceDuplicate {
		t.Errorf("duplicates answer as usual: %s", a)
	}
	for _, values := range [][]string{{"false"}, {""}, {"TRUE"}, {"1"}, {"true", "false"}, {"true, true"}} {
		a := h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)), header("Simlatch-Dry-Run", values...))
		if a.StatusCode != http.StatusBadRequest || a.code(t) != codeDryRun {
			t.Errorf("%q: %s", values, a)
		}
	}
	// The lifetime rule comes after the count: it is part of the plan.
	a = h.do("DELETE", assign, licenseJSON("SIMSec-IoT-Lt", device(1)), header("Simlatch-Dry-Run", "true"))
	p, err := decodeJSON[m2m.Plan](a.body)
	if err != nil || a.StatusCode != http.StatusOK || p.Accepted || p.Action != "unassign" || p.Pool.Before.LicenseAssigned != 4 ||
		p.Devices[0].ErrorCode != m2m.ErrUnassignLifetime.Code || p.Devices[0].ErrorMessage != m2m.ErrUnassignLifetime.Message {
		t.Errorf("lifetime: %s", a)
	}
	// Too few licenses: every device is well, the request is not.
	h.licenses.plan = func(r *license.Request) (license.Plan, error) {
		return license.Plan{Pool: license.Pool{Account: r.Account, SKU: r.SKU}, Devices: make([]error, 1), Err: license.ErrInsufficient}, nil
	}
	a = h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)), header("Simlatch-Dry-Run", "true"))
	if p, err := decodeJSON[m2m.Plan](a.body); err != nil || p.Accepted || p.Devices[0].Outcome != "ok" {
		t.Errorf("insufficient: %s", a)
	}
}

// The policy comes before what is wrong with devices: all are refused by it.
func TestDryRunByPolicy(t *testing.T) {
	h := newHarness(t)
	h.licenses.plan = func(r *license.Request) (license.Plan, error) {
		refused := &license.PolicyError{Rule: license.RuleDaily, Limit: 5, Accepted: 4, Devices: 2}
		return license.Plan{Devices: []error{license.ErrUnknownDevice, nil}, Err: refused}, nil
	}
	a := h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1), device(2)), header("Simlatch-Dry-Run", "true"))
	p, err := decodeJSON[m2m.Plan](a.body)
	if err != nil || p.Accepted || len(p.Devices) != 2 {
		t.Fatalf("a plan that the policy refuses: %s", a)
	}
	for _, d := range p.Devices {
		const want = "At most 5 devices may be assigned on this account in a day (UTC): 4 have been, and 2 more are asked for."
		if d.Outcome != "refused" || d.ErrorCode != m2m.CodePolicy || d.ErrorMessage != want {
			t.Errorf("a device of it: %+v", d)
		}
	}
}

// acceptAfter accepts when after comes, or says in gone why the call ended
// before.
func acceptAfter(after <-chan time.Time, gone *error) acceptFunc {
	return func(ctx context.Context, p license.AcceptParams) (license.Accepted, error) {
		select {
		case <-after:
		case <-ctx.Done():
			*gone = ctx.Err()
		}
		return license.Accepted{ID: p.Request.ID}, nil
	}
}
