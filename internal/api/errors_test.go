package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// fails makes Accept fail.
func fails(h *harness, err error) {
	h.licenses.accept = refuseWith(err)
}

// TestDocumentedErrors goes through the table of the reference, to the letter.
func TestDocumentedErrors(t *testing.T) {
	one := []license.Device{domainDevice(1)}
	tests := []struct {
		name, method, path, body string
		fails                    error
		code, message            string
	}{
		{
			"held", "POST", assign, licenseJSON("SIMSec-IoT", device(1)), &license.DevicesError{Err: license.ErrHeld, Devices: one},
			"UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful",
			"REQUEST_FAILED: At least one device exists with Assigned or Pending Assignment or Pending UnAssignment license status.",
		},
		{
			"no SKU", "POST", assign, `{"devices":[` + device(1) + `]}`, nil,
			"Carrier.Service.INPUT_INVALID.SKUNumber.NotDefined", "skuNumber is a required field.",
		},
		{
			"no action", "POST", strings.TrimSuffix(assign, "/assign"), licenseJSON("SIMSec-IoT", device(1)), nil,
			"Carrier.Service.INPUT_INVALID.Action.NotDefined", "Action is required.",
		},
		{
			"no action after the slash", "POST", strings.TrimSuffix(assign, "assign"), licenseJSON("SIMSec-IoT", device(1)), nil,
			"Carrier.Service.INPUT_INVALID.Action.NotDefined", "Action is required.",
		},
		{
			"no action, plural", "DELETE", "/m2m/v1/devices/licenses/actions", "", nil,
			"Carrier.Service.INPUT_INVALID.Action.NotDefined", "Action is required.",
		},
		{
			"unknown pair", "POST", assign, licenseJSON("SIMSec-IoT", device(1)), &license.DevicesError{Err: license.ErrUnknownDevice, Devices: one},
			"UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful", "REQUEST_FAILED: Devices not found for the specified IMEI and ICCID.",
		},
		{
			"group", "POST", assign, `{"skuNumber":"SIMSec-IoT","groupName":"g","devices":[]}`, nil,
			"Carrier.Service.INPUT_INVALID.DeviceGroupName.NotSupported", "The Device Group Name is not supported.",
		},
		{
			"device group", "POST", assign, `{"skuNumber":"SIMSec-IoT","deviceGroupName":"g"}`, nil,
			"Carrier.Service.INPUT_INVALID.DeviceGroupName.NotSupported", "The Device Group Name is not supported.",
		},
		{
			"other action", "POST", strings.Replace(assign, "/assign", "/Assign", 1), licenseJSON("SIMSec-IoT", device(1)), nil,
			"Carrier.Service.INPUT_INVALID.Action.Invalid", "The action was not recognized as valid.",
		},
		{
			"no devices", "POST", assign, licenseJSON("SIMSec-IoT"), nil,
			"UnifiedWebService.INPUT_INVALID.DeviceNotDefined", "A device must be defined.",
		},
		{
			"no identifiers", "POST", assign, licenseJSON("SIMSec-IoT", `{"deviceIds":[]}`), nil,
			"CarrierService.INPUT_INVALID.DeviceIdentifierCollection.Null", "A device identifier collection may not be null.",
		},
		{
			"lifetime", "DELETE", assign, licenseJSON("SIMSec-IoT-Lt", device(1)), nil,
			"UnifiedWebService.INPUT_INVALID.Unassign.NotSupported", "The unassign action is not supported for SIM-Secure lifetime.",
		},
		{
			"insufficient", "POST", assign, licenseJSON("SIMSec-IoT", device(1)), fmt.Errorf("pool: %w", license.ErrInsufficient),
			"INPUT_INVALID.InsufficientLicense.Invalid", "You do not have required licenses to perform this action.",
		},
	}
	h := newHarness(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			fails(h, tt.fails)
			a := h.do(tt.method, tt.path, tt.body)
			want := map[string]any{"errorCode": tt.code, "errorMessage": tt.message}
			if diff := cmp.Diff(want, a.fields(t)); diff != "" || a.StatusCode != http.StatusBadRequest {
				t.Errorf("status %d, want 400; body (-want +got):\n%s", a.StatusCode, diff)
			}
			if h.work.reserved != 0 {
				t.Errorf("room for %d tasks was not given back", h.work.reserved)
			}
		})
	}
}

// TestOtherErrors goes through what the project has decided beside the
// reference.
func TestOtherErrors(t *testing.T) {
	devices := func(n int) []license.Device {
		var list []license.Device
		for i := range n {
			list = append(list, domainDevice(i))
		}
		return list
	}
	ids := func(n int) []string {
		var list []string
		for _, d := range devices(n) {
			list = append(list, string(d.ICCID))
		}
		return list
	}
	tests := []struct {
		name, body string
		fails      error
		code, says string
	}{
		{"unknown SKU", licenseJSON("SIMSec-iot", device(1)), nil, m2m.CodeSKUInvalid, "The skuNumber was not recognized as valid."},
		{"foreign account", strings.Replace(licenseJSON("SIMSec-IoT", device(1)), account, foreign, 1), nil, m2m.CodeAccountNotFound, "The account was not found."},
		{"kind", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"5551230001","kind":"mdn"}]}`), nil, m2m.CodeKindInvalid, `"mdn"`},
		{"no kind", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"490154203237518"}]}`), nil, m2m.CodeKindInvalid, `""`},
		{"null identifier", licenseJSON("SIMSec-IoT", `{"deviceIds":[null]}`), nil, m2m.CodeKindInvalid, `""`},
		{"short IMEI", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"49015420323751","kind":"imei"}]}`), nil, m2m.CodeIdentifierInvalid, `"49015420323751"`},
		{"padded ICCID", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":" 89148000000000000012","kind":"iccid"}]}`), nil, m2m.CodeIdentifierInvalid, `" 89148000000000000012"`},
		{"digits of another script", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"٤٩٠١٥٤٢٠٣٢٣٧٥١٨","kind":"imei"}]}`), nil, m2m.CodeIdentifierInvalid, "not valid"},
		{
			"two IMEIs", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"490154203237518","kind":"imei"},{"id":"490154203237526","kind":"IMEI"}]}`), nil,
			m2m.CodeIdentifierInvalid, `"490154203237526"`,
		},
		{
			"three identifiers", licenseJSON("SIMSec-IoT", strings.Replace(device(1), "]", `,{"id":"490154203237526","kind":"imei"}]`, 1)), nil,
			m2m.CodeIdentifierInvalid, `"490154203237526"`,
		},
		{"one device twice", licenseJSON("SIMSec-IoT", device(1), device(2), device(1)), nil, m2m.CodeDeviceDuplicate, ids(2)[1]},
		{"duplicate found later", licenseJSON("SIMSec-IoT", device(1)), &license.DevicesError{Err: license.ErrDuplicate, Devices: devices(1)}, m2m.CodeDeviceDuplicate, ids(1)[0]},
		{
			"not active", licenseJSON("SIMSec-IoT", device(1)), &license.DevicesError{Err: license.ErrNotActive, Devices: devices(2)},
			m2m.CodeDeviceState, "Devices are not active: " + ids(2)[0] + ", " + ids(2)[1] + ".",
		},
		{
			"not 4G", licenseJSON("SIMSec-IoT", device(1)), &license.DevicesError{Err: license.ErrNotEligible, Devices: devices(1)},
			m2m.CodeDeviceNotEligible, "The device is not a 4G device: " + ids(1)[0] + ".",
		},
		{
			"not held, many", licenseJSON("SIMSec-IoT", device(1)), &license.DevicesError{Err: license.ErrNotHeld, Devices: devices(32)},
			m2m.CodeNotAssigned, strings.Join(ids(10), ", ") + " and 22 others.",
		},
		{
			"long values", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"1","kind":"`+strings.Repeat("ä", 41)+`"}]}`), nil,
			m2m.CodeKindInvalid, `"` + strings.Repeat("ä", 40) + `…"`,
		},
		{
			"control characters", licenseJSON("SIMSec-IoT", `{"deviceIds":[{"id":"1","kind":"a\u0000\u001b[31m\u2028"}]}`), nil,
			m2m.CodeKindInvalid, `"a\x00\x1b[31m\u2028"`,
		},
	}
	h := newHarness(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			fails(h, tt.fails)
			a := h.do("POST", assign, tt.body)
			message, _ := a.fields(t)["errorMessage"].(string)
			if a.StatusCode != http.StatusBadRequest || a.code(t) != tt.code || !strings.Contains(message, tt.says) {
				t.Errorf("%s, want 400, %s and %s", a, tt.code, tt.says)
			}
		})
	}
}

func TestTooManyDevices(t *testing.T) {
	h := newHarness(t)
	var devices []string
	for i := range 101 {
		devices = append(devices, device(i))
	}
	if a := h.do("POST", assign, licenseJSON("SIMSec-IoT", devices...)); a.code(t) != m2m.CodeMaxRequestsExceeded || !strings.Contains(string(a.body), "100") {
		t.Errorf("101 devices: %s", a)
	}
	if a := h.do("POST", assign, licenseJSON("SIMSec-IoT", devices[:100]...)); a.StatusCode != 200 {
		t.Errorf("100 devices: %s", a)
	}
}

// TestOurFault shows nothing of an error that nobody foresaw, but logs it.
func TestOurFault(t *testing.T) {
	for name, accept := range map[string]acceptFunc{
		"error": refuseWith(errors.New("secret detail")),
		"panic": panicWith("secret detail"),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			h.licenses.accept = accept
			a := h.do("POST", assign, licenseJSON("SIMSec-IoT", device(1)), header("X-Request-ID", "mine-77"))
			want := map[string]any{
				"errorCode":    m2m.CodeUnexpected,
				"errorMessage": "Unexpected error occurred. Could not complete request. Correlation id: mine-77",
			}
			if diff := cmp.Diff(want, a.fields(t)); diff != "" || a.StatusCode != http.StatusInternalServerError {
				t.Errorf("status %d, want 500; body (-want +got):\n%s", a.StatusCode, diff)
			}
			if log := h.logs.String(); !strings.Contains(log, "secret detail") || !strings.Contains(log, "request_id=mine-77") {
				t.Errorf("log = %s", log)
			}
			if h.work.reserved != 0 {
				t.Errorf("room for %d tasks was not given back", h.work.reserved)
			}
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	long := strings.Repeat("\x01ä\"\\", 100_000)
	c := &call{family: tokenFamily(), id: "id"}
	b := (&wireError{code: "c", message: long}).body(c)
	if len(b.Message) > maxMessage+len("…") || b.OAuthDescription != b.Message {
		t.Errorf("a message of %d bytes", len(b.Message))
	}
	for _, s := range []string{"plain", "tab\t", "\xff", "\u202e", strings.Repeat("x", 40)} {
		if p := printable(printable(s)); p != printable(s) || strings.ContainsFunc(p, func(r rune) bool { return r < ' ' }) {
			t.Errorf("printable(%q) = %q, and again %q", s, printable(s), p)
		}
	}
	if got := clip(strings.Repeat("x", 41)); got != strings.Repeat("x", 40)+"…" {
		t.Errorf("clip = %q", got)
	}
}
