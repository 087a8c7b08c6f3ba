package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

func TestListeners(t *testing.T) {
	h := newHarness(t)
	const path = "/api/m2m/v1/callbacks/000012345600001"
	if a := h.do("GET", path, ""); strings.TrimSpace(string(a.body)) != "[]" {
		t.Errorf("none: %s", a)
	}
	registered := map[string]any{"accountName": account, "serviceName": "CarrierService"}
	for _, body := range []string{
		`{"name":"CarrierService","url":"http://first.example:28200/x"}`,
		`{"name":"CarrierService","url":"https://second.example/?a=b","username":"u","password":"hush"}`,
	} {
		if a := h.do("POST", path, body); cmp.Diff(registered, a.fields(t)) != "" {
			t.Errorf("%s: %s", body, a)
		}
	}
	h.do("POST", path, `{"name":"QoS","url":"https://third.example"}`)
	a := h.do("GET", path, "")
	want := `[{"accountName":"0000123456-00001","serviceName":"CarrierService","url":"https://second.example/?a=b","username":"u","password":"********"},` +
		`{"accountName":"0000123456-00001","serviceName":"QoS","url":"https://third.example","username":"","password":""}]` + "\n"
	if diff := cmp.Diff(want, string(a.body)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if l := h.listeners.all[0]; l.Password != "hush" || l.Account != account {
		t.Errorf("stored %+v", l)
	}
	if a := h.do("DELETE", path+"/name/CarrierService", ""); cmp.Diff(registered, a.fields(t)) != "" {
		t.Errorf("deregistered: %s", a)
	}
	for _, name := range []string{"CarrierService", "nosuch", "%00", strings.Repeat("x", 5000)} {
		if a := h.do("DELETE", path+"/name/"+name, ""); a.StatusCode != http.StatusBadRequest || a.code(t) != m2m.CodeCallbackNotFound {
			t.Errorf("deregister %s: %s", clip(name), a)
		}
	}
}

func TestListenerRefusals(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.CheckURLHost = func(_ context.Context, host string, _ uint16) error {
			if host == "10.0.0.1" || host == "::1" {
				return errors.New("the address is private; the operator can allow it with --callback-allow 10.0.0.0/8")
			}
			return nil
		}
	})
	long := "https://x.example/" + strings.Repeat("ä", 2048-18)
	for _, tt := range []struct{ body, code, says string }{
		{`{"name":"carrierservice","url":"https://x.example"}`, m2m.CodeCallbackService, `"carrierservice"`},
		{`{"url":"https://x.example"}`, m2m.CodeCallbackService, `""`},
		{`{"serviceName":"CarrierService","url":"https://x.example"}`, m2m.CodeCallbackService, `""`},
		{`{"name":"CarrierService"}`, m2m.CodeCallbackURL, "required"},
		{`{"name":"CarrierService","url":"ftp://x.example"}`, m2m.CodeCallbackURL, "http://"},
		{`{"name":"CarrierService","url":"x.example"}`, m2m.CodeCallbackURL, "http://"},
		{`{"name":"CarrierService","url":"http:x.example"}`, m2m.CodeCallbackURL, "no host"},
		{`{"name":"CarrierService","url":"https://"}`, m2m.CodeCallbackURL, "no host"},
		{`{"name":"CarrierService","url":"https://:443/"}`, m2m.CodeCallbackURL, "no host"},
		{`{"name":"CarrierService","url":"https://u:p@x.example"}`, m2m.CodeCallbackURL, "user name"},
		{`{"name":"CarrierService","url":"https://@x.example"}`, m2m.CodeCallbackURL, "user name"},
		{`{"name":"CarrierService","url":"https://x.example/#"}`, m2m.CodeCallbackURL, "fragment"},
		{`{"name":"CarrierService","url":"https://x.example:0"}`, m2m.CodeCallbackURL, "port"},
		{`{"name":"CarrierService","url":"https://x.example:65536"}`, m2m.CodeCallbackURL, "port"},
		{`{"name":"CarrierService","url":"https://x.example:http"}`, m2m.CodeCallbackURL, "cannot be read"},
		{`{"name":"CarrierService","url":"https://x.example/a b"}`, m2m.CodeCallbackURL, "cannot be read"},
		{`{"name":"CarrierService","url":"https://x.example/\n"}`, m2m.CodeCallbackURL, "cannot be read"},
		{`{"name":"CarrierService","url":"` + long + `x"}`, m2m.CodeCallbackURL, "2048"},
		{`{"name":"CarrierService","url":"http://10.0.0.1/"}`, m2m.CodeCallbackURL, "--callback-allow 10.0.0.0/8."},
		{`{"name":"CarrierService","url":"http://[::1]:80/"}`, m2m.CodeCallbackURL, "--callback-allow"},
		{`{"name":"CarrierService","url":"https://x.example","username":"` + strings.Repeat("u", 41) + `"}`, m2m.CodeCallbackCredentials, "40"},
		{`{"name":"CarrierService","url":"https://x.example","password":"` + strings.Repeat("u", 41) + `"}`, m2m.CodeCallbackCredentials, "40"},
		{`{"name":"CarrierService","url":"https://x.example","password":"a\u0000"}`, m2m.CodeCallbackCredentials, "control"},
		{`{"name":"x","url":"x","password":"` + strings.Repeat("u", 41) + `"}`, m2m.CodeCallbackService, "x"},
	} {
		a := h.do("POST", "/api/m2m/v1/callbacks/"+account, tt.body)
		if message, _ := a.fields(t)["errorMessage"].(string); a.StatusCode != http.StatusBadRequest || a.code(t) != tt.code || !strings.Contains(message, tt.says) {
			t.Errorf("%s: %s, want %s and %q", tt.body, a, tt.code, tt.says)
		}
	}
	for _, body := range []string{
		`{"name":"CarrierService","url":"` + long + `"}`,
		`{"name":"CarrierService","url":"HTTPS://X.example:65535/","username":"` + strings.Repeat("ä", 40) + `","password":null}`,
	} {
		if a := h.do("POST", "/api/m2m/v1/callbacks/"+account, body); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", body, a)
		}
	}
}

func sim(n int) license.SIM {
	d := domainDevice(n)
	d.MDN = "5551230001"
	return license.SIM{
		Account: account, Device: d, State: license.StateActive, Number: int64(n),
		Added: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)),
	}
}

func TestDevices(t *testing.T) {
	h := newHarness(t)
	const path = "/api/m2m/v1/devices/actions/list"
	bare := sim(2)
	bare.Device.MDN, bare.IMSI = "", "310150123456789"
	h.inventory.sims = []license.SIM{sim(1), bare, sim(3)}
	a := h.do("POST", path, `{"maxNumberOfDevices":2,"largestDeviceIdSeen":7}`)
	if a.StatusCode != http.StatusAccepted {
		t.Errorf("status %d while there are more", a.StatusCode)
	}
	list, err := decodeJSON[m2m.DeviceList](a.body)
	want := m2m.DeviceInfo{
		AccountName: account, CreatedAt: "2026-01-02T02:04:05Z", CustomFields: []m2m.Attribute{}, GroupNames: []string{"Unassigned Devices"},
		CarrierInformations: []m2m.CarrierInformation{{CarrierName: "Verizon Wireless", State: "active"}},
		DeviceIDs:           []m2m.DeviceID{{ID: "5551230001", Kind: "mdn"}, {ID: string(sim(1).Device.IMEI), Kind: "imei"}, {ID: string(sim(1).Device.ICCID), Kind: "iccId"}},
		ExtendedAttributes:  []m2m.Attribute{{Key: "DeviceId", Value: "1"}},
	}
	if err != nil || !list.HasMoreData || len(list.Devices) != 2 || cmp.Diff(want, list.Devices[0]) != "" {
		t.Errorf("%s: %v", a, err)
	}
	wantIDs := []m2m.DeviceID{{ID: string(bare.Device.IMEI), Kind: "imei"}, {ID: string(bare.Device.ICCID), Kind: "iccId"}, {ID: bare.IMSI, Kind: "imsi"}}
	if diff := cmp.Diff(wantIDs, list.Devices[1].DeviceIDs); diff != "" {
		t.Errorf("without a number (-want +got):\n%s", diff)
	}
	if f := h.inventory.asked; f.After != 7 || f.Limit != 3 {
		t.Errorf("asked %+v", f)
	}
	a = h.do("POST", path, `{"largestDeviceIdSeen":null}`)
	if list, err := decodeJSON[m2m.DeviceList](a.body); err != nil || a.StatusCode != http.StatusOK || list.HasMoreData || len(list.Devices) != 3 {
		t.Errorf("%s: %v", a, err)
	}
	h.inventory.sims = nil
	if a := h.do("POST", path, `{}`); string(a.body) != `{"hasMoreData":false,"devices":[]}`+"\n" {
		t.Errorf("none: %s", a)
	}
}

func TestDeviceFilter(t *testing.T) {
	h := newHarness(t)
	h.session = h.login(h.bearer, "two")
	both := []license.AccountName{account, other}
	for _, tt := range []struct {
		body string
		want license.DeviceFilter
	}{
		{`{}`, license.DeviceFilter{Accounts: both, Limit: 2001}},
		{`{"accountName":"000012345600002"}`, license.DeviceFilter{Accounts: []license.AccountName{other}, Limit: 2001}},
		{`{"maxNumberOfDevices":100000}`, license.DeviceFilter{Accounts: both, Limit: 2001}},
		{`{"deviceId":{"id":"89148000000000000012","kind":"iccId"}}`, license.DeviceFilter{Accounts: both, Limit: 2001, Device: license.Device{ICCID: "89148000000000000012"}}},
		{`{"deviceId":{},"deviceList":[],"filter":{},"customFields":[],"servicePlan":"","earliest":null}`, license.DeviceFilter{Accounts: both, Limit: 2001}},
		{
			`{"deviceList":[{"id":"490154203237518","kind":"IMEI"},{"id":"5551230001","kind":"mdn"}]}`,
			license.DeviceFilter{Accounts: both, Limit: 2001, Devices: []license.Device{{IMEI: "490154203237518"}, {MDN: "5551230001"}}},
		},
		{
			`{"currentState":"Suspended","groupName":"Unassigned Devices","carrierNameFilter":"verizon wireless"}`,
			license.DeviceFilter{Accounts: both, Limit: 2001, State: license.StateSuspended},
		},
		{
			`{"filter":{"deviceIdentifierFilters":[{"kind":"imei","contains":"1","startswith":"49","endswith":"8"}]},"earliest":"2026-01-01T00:00:00Z","latest":"2026-01-02T00:00:00.5+01:00"}`,
			license.DeviceFilter{
				Accounts: both, Limit: 2001, Match: []license.IdentifierMatch{{Kind: license.KindIMEI, Contains: "1", Prefix: "49", Suffix: "8"}},
				Earliest: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Latest: time.Date(2026, 1, 1, 23, 0, 0, 5e8, time.UTC),
			},
		},
	} {
		a := h.do("POST", "/m2m/v1/devices/actions/list", tt.body)
		if diff := cmp.Diff(tt.want, h.inventory.asked); diff != "" || a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s; filter (-want +got):\n%s", tt.body, a, diff)
		}
	}
}

func TestDeviceFilterRefusals(t *testing.T) {
	h := newHarness(t)
	many := strings.Repeat(`{"kind":"imei"},`, 10) + `{"kind":"imei"}`
	for _, tt := range []struct{ body, code, says string }{
		{`{"accountName":"` + foreign + `"}`, m2m.CodeAccountNotFound, ""},
		{`{"groupName":"southwest"}`, codeFilterNotSupported, "groupName"},
		{`{"servicePlan":"m2m4G"}`, codeFilterNotSupported, "servicePlan"},
		{`{"customFields":[{"key":"CustomField1","value":"x"}]}`, codeFilterNotSupported, "customFields"},
		{`{"carrierNameFilter":"Other"}`, codeFilterNotSupported, "Verizon Wireless"},
		{`{"maxNumberOfDevices":-1}`, codeFilterInvalid, "maxNumberOfDevices"},
		{`{"largestDeviceIdSeen":-1}`, codeFilterInvalid, "largestDeviceIdSeen"},
		{`{"currentState":"asleep"}`, m2m.CodeDeviceState, `"asleep"`},
		{`{"deviceId":{"id":"1","kind":"esn"}}`, m2m.CodeKindInvalid, `"esn"`},
		{`{"deviceId":{"id":"1","kind":"imei"}}`, m2m.CodeIdentifierInvalid, `"1"`},
		{`{"deviceList":[{"id":"","kind":"mdn"}]}`, m2m.CodeIdentifierInvalid, `""`},
		{`{"deviceList":[` + strings.Repeat(`{"id":"1","kind":"mdn"},`, 100) + `{"id":"1","kind":"mdn"}]}`, m2m.CodeMaxRequestsExceeded, "100"},
		{`{"filter":{"deviceIdentifierFilters":[{"kind":"eid"}]}}`, m2m.CodeKindInvalid, `"eid"`},
		{`{"filter":{"deviceIdentifierFilters":[{"kind":"imei","contains":"4%"}]}}`, m2m.CodeIdentifierInvalid, `"4%"`},
		{`{"filter":{"deviceIdentifierFilters":[` + many + `]}}`, codeFilterInvalid, "10"},
		{`{"earliest":"yesterday"}`, codeFilterInvalid, `"yesterday"`},
		{`{"latest":"2026-13-01T00:00:00Z"}`, codeFilterInvalid, "latest"},
		{`{"largestDeviceIdSeen":9223372036854775808}`, m2m.CodeDeserialization, "largestDeviceIdSeen"},
		{`{"maxNumberOfDevices":"5"}`, m2m.CodeDeserialization, "an integer"},
	} {
		a := h.do("POST", "/api/m2m/v1/devices/actions/list", tt.body)
		if message, _ := a.fields(t)["errorMessage"].(string); a.StatusCode != http.StatusBadRequest || a.code(t) != tt.code || !strings.Contains(message, tt.says) {
			t.Errorf("%s: %s, want %s and %q", clip(tt.body), a, tt.code, tt.says)
		}
	}
}
