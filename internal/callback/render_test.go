package callback

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

func TestMessage(t *testing.T) {
	base := license.Callback{
		Request: "c3f3d17c-79ff-4b35-82df-94446785b6e0", Action: license.Assign, SKU: license.SKUIntelligence, Account: testAccount,
		Device: license.Device{ICCID: "89148000000000000012", IMEI: "490154203237518", MDN: "5551230001"}, OK: true,
	}
	const ids = `"requestId":"c3f3d17c-79ff-4b35-82df-94446785b6e0","deviceIds":[{"id":"89148000000000000012","kind":"ICCID"},{"id":"5551230001","kind":"MDN"},{"id":"490154203237518","kind":"IMEI"}],`
	tests := []struct {
		name     string
		change   func(c *license.Callback, l *license.Listener)
		attempts int
		want     string
	}{
		{
			"assign, as documented", func(*license.Callback, *license.Listener) {}, 4,
			`{` + ids + `"deviceResponse":{"deviceSkuSubscriptionResponse":{"accountName":"0000123456-00001","skuNumber":"TSS-IOT-INTLG-TIERED-SIMSEC","action":"Assign"}},"comment":"","status":"Success","callbackCount":1,"maxCallbackThreshold":4}`,
		},
		{
			"unassign, third attempt of five, credentials", func(c *license.Callback, l *license.Listener) {
				c.Action, c.Attempt, c.SKU = license.Unassign, 2, license.SKUFlexible
				l.Username, l.Password = "user", `pa"ss\<é>`
			}, 5,
			`{"username":"user","password":"pa\"ss\\<é>",` + ids + `"deviceResponse":{"deviceSkuSubscriptionResponse":{"accountName":"0000123456-00001","skuNumber":"SIMSec-IoT","action":"Unassign"}},"comment":"","status":"Success","callbackCount":3,"maxCallbackThreshold":5}`,
		},
		{
			"no MDN", func(c *license.Callback, _ *license.Listener) { c.Device.MDN = "" }, 4,
			`{"requestId":"c3f3d17c-79ff-4b35-82df-94446785b6e0","deviceIds":[{"id":"89148000000000000012","kind":"ICCID"},{"id":"490154203237518","kind":"IMEI"}],"deviceResponse":{"deviceSkuSubscriptionResponse":{"accountName":"0000123456-00001","skuNumber":"TSS-IOT-INTLG-TIERED-SIMSEC","action":"Assign"}},"comment":"","status":"Success","callbackCount":1,"maxCallbackThreshold":4}`,
		},
		{
			"refused, in the carrier's words", func(c *license.Callback, _ *license.Listener) {
				c.OK, c.Comment = false, "SIM is barred:\n\x01\xff"
			}, 4,
			`{` + ids + `"faultResponse":{"faultcode":"UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful","faultstring":"SIM is barred:\n\u0001�"},"comment":"SIM is barred:\n\u0001�","status":"Failed","callbackCount":1,"maxCallbackThreshold":4}`,
		},
		{
			"refused without a word", func(c *license.Callback, _ *license.Listener) { c.OK = false }, 4,
			`{` + ids + `"faultResponse":{"faultcode":"UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful","faultstring":"REQUEST_FAILED: The carrier refused the request."},"comment":"REQUEST_FAILED: The carrier refused the request.","status":"Failed","callbackCount":1,"maxCallbackThreshold":4}`,
		},
		{
			"already licensed", func(c *license.Callback, _ *license.Listener) {
				c.OK, c.Code, c.Comment = false, license.CodeAlreadyLicensed, ""
			}, 4,
			`{` + ids + `"faultResponse":{"faultcode":"REQUEST_FAILED.CarrierRequestUnsuccessful","faultstring":"REQUEST FAILED: Device already has license assigned."},"comment":"REQUEST FAILED: Device already has license assigned.","status":"Failed","callbackCount":1,"maxCallbackThreshold":4}`,
		},
		{
			"already licensed, the carrier said more", func(c *license.Callback, _ *license.Listener) {
				c.OK, c.Code, c.Comment = false, license.CodeAlreadyLicensed, "licensed in 2019"
			}, 4,
			`{` + ids + `"faultResponse":{"faultcode":"REQUEST_FAILED.CarrierRequestUnsuccessful","faultstring":"REQUEST FAILED: Device already has license assigned."},"comment":"licensed in 2019","status":"Failed","callbackCount":1,"maxCallbackThreshold":4}`,
		},
		{
			"a code of the carrier's own", func(c *license.Callback, _ *license.Listener) {
				c.OK, c.Code, c.Comment = false, "HLR-17", "no such subscriber"
			}, 4,
			`{` + ids + `"faultResponse":{"faultcode":"UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful","faultstring":"no such subscriber"},"comment":"no such subscriber","status":"Failed","callbackCount":1,"maxCallbackThreshold":4}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, l := base, license.Listener{}
			tt.change(&c, &l)
			got := appendMessage(nil, appendOpening(nil, l), &c, tt.attempts)
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
			// The public type must lose nothing of it.
			var m m2m.CallbackMessage
			if err := json.Unmarshal(got, &m); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var a, b any
			_, _ = json.Unmarshal(got, &a), json.Unmarshal(again, &b)
			if diff := cmp.Diff(a, b); diff != "" {
				t.Errorf("message and m2m.CallbackMessage differ (-message +type):\n%s", diff)
			}
		})
	}
}
