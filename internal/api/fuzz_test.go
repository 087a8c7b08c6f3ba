package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/simlatch/simlatch/m2m"
)

// FuzzHeaders reads headers of any kind: what is kept of them can be stored,
// logged and sent back, and what is refused says so in the form of all errors.
func FuzzHeaders(f *testing.F) {
	f.Add("Bearer abc", "bcce3ea6-fe4f-4952-bacf-eadd80718e83", "application/json; charset=utf-8", "key-1", "request-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=b&access_token=x")
	f.Add("Basic ZGVtbzpkZW1v", "{bcce3ea6-fe4f-4952-bacf-eadd80718e83}", "text/plain;", strings.Repeat("k", 300), "\x00é", "00", "%zz")
	f.Fuzz(func(t *testing.T, authorization, session, media, key, id, traceparent, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
		r.URL.RawQuery = query
		r.Header = http.Header{
			"Authorization": {authorization}, m2m.SessionHeader: {session}, "Content-Type": {media},
			"Idempotency-Key": {key}, "Traceparent": {traceparent},
		}
		c := &call{r: r, family: tokenFamily(), body: []byte(key)}
		echoed := requestID(id)
		if len(echoed) > maxRequestID || requestID(echoed) != echoed || strings.ContainsFunc(echoed, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("requestID(%q) = %q", id, echoed)
		}
		if kept := trace(c); kept != "" && kept != traceparent {
			t.Errorf("trace of %q is %q", traceparent, kept)
		}
		kept, hash := idempotency(c)
		if (key == "") != (kept == "") || len(kept) > maxStorable || kept != storable(kept) || key != "" && len(hash) != 64 {
			t.Errorf("idempotency of %q is %q, %q", key, kept, hash)
		}
		token, err := c.sessionToken()
		if err == nil && (len(token) != canonicalUUID || strings.Trim(string(token), "0123456789abcdefABCDEF-") != "") {
			t.Errorf("sessionToken of %q is %q", session, string(token))
		}
		for _, err := range []error{err, c.oneSession(), c.checkType("application/json"), c.checkBasic()} {
			if err == nil {
				continue
			}
			e := wire(err)
			b := e.body(c)
			if e.status < 400 || e.status > 499 || b.Code == "" || b.Message == "" || len(b.Message) > maxMessage+len("…") {
				t.Errorf("%v: %d %+v", err, e.status, b)
			}
			if _, err := json.Marshal(b); err != nil {
				t.Errorf("%+v cannot be sent: %v", b, err)
			}
		}
		if key, _ := c.client(); len(key) > maxStorable {
			t.Errorf("the client %q is kept whole", key)
		}
	})
}

// FuzzBodies reads bodies of any kind as each of the requests: what is read is
// written in one way only, and what is refused is refused in
// the form of all errors.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{
		`{"username":"demo","password":"p"}`, `{"name":"CarrierService","url":"https://listener.example/","username":"u","password":"p"}`,
		`{"accountName":"0000123456-00001","skuNumber":"SIMSec-IoT"}`, `{"accountName":"0000123456-00001","deviceId":{"id":"1","kind":"mdn"},"filter":{"kind":"iccid","match":"contains","value":"1"},"maxNumberOfDevices":3}`,
		`{"a":{"a":{}},"a":1}`, `{"username":"\ud800"}`, "\xef\xbb\xbf{}",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		reread[m2m.LoginRequest](t, body)
		reread[m2m.ListenerRequest](t, body)
		reread[m2m.SubscriptionsRequest](t, body)
		reread[m2m.DeviceListRequest](t, body)
	})
}

func reread[T any](t *testing.T, body []byte) {
	t.Helper()
	v, err := decodeJSON[T](body)
	if err != nil {
		if e := wire(err); e.status != http.StatusBadRequest || e.code == "" || len(e.body(&call{}).Message) > maxMessage+len("…") {
			t.Errorf("%q: %v", body, err)
		}
		return
	}
	written, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%q was read as %+v, which cannot be written: %v", body, v, err)
	}
	again, err := decodeJSON[T](written)
	if err != nil {
		t.Fatalf("%q was read, and %q is not: %v", body, written, err)
	}
	if twice, err := json.Marshal(again); err != nil || string(twice) != string(written) {
		t.Errorf("%q was written as %q and then as %q: %v", body, written, twice, err)
	}
}
