package carrier

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// FuzzHeard gives callbacks of any kind: what is taken for a word about a device
// names it, and says that it is licensed only where the message says so, of our
// account.
func FuzzHeard(f *testing.F) {
	const account = license.AccountName("0000123456-00001")
	for _, body := range []string{
		`{"requestId":"r","status":"Success","deviceIds":[{"id":"89148000000000000012","kind":"ICCID"}],"deviceResponse":{"deviceSkuSubscriptionResponse":{"accountName":"0000123456-00001","skuNumber":"SIMSec-IoT","action":"Assign"}}}`,
		`{"requestId":"r","status":"Failed","deviceIds":[{"id":"89148000000000000012","kind":"iccid"},{"id":"1","kind":"MDN"}],"faultResponse":{"faultcode":"c","faultstring":"s"}}`,
		`{"requestId":"r","status":"Failed","comment":"no","deviceIds":null}`, `{"status":"success"}`, `[]`,
	} {
		f.Add([]byte(body))
	}
	u := &Upstream{cfg: UpstreamConfig{Accounts: map[license.AccountName]string{}}}
	f.Fuzz(func(t *testing.T, body []byte) {
		var m m2m.CallbackMessage
		if json.Unmarshal(body, &m) != nil {
			return
		}
		w, ok := u.read(account, &m)
		if !ok {
			return
		}
		if _, err := license.ParseICCID(string(w.ICCID)); err != nil || w.Account != account || w.Remote == "" || len(w.Remote) > maxRemote {
			t.Errorf("%q says %+v", body, w)
		}
		if w.OK && (m.Status != m2m.CallbackSuccess || m.FaultResponse != nil || m.DeviceResponse == nil) || !w.OK && (m.DeviceResponse != nil || w.Comment == "") {
			t.Errorf("%q says %+v", body, w)
		}
	})
}

// FuzzKey takes the keys of tasks apart: one that is read is written the same, but
// for the letters of the request's ID, which may be of either case.
func FuzzKey(f *testing.F) {
	f.Add("01a2109d-62ea-7573-9695-7cdfcff8b8e5/89148000000000000012")
	f.Add("00000000-0000-0000-0000-00000000000A/000000000000000000")
	f.Add("/")
	f.Fuzz(func(t *testing.T, key string) {
		request, iccid, ok := cutKey(key)
		if written := (license.Task{Request: request, Device: license.Device{ICCID: iccid}}).Key(); ok && !strings.EqualFold(written, key) {
			t.Errorf("%q is read as %q", key, written)
		}
	})
}
