package api

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/simlatch/simlatch/m2m"
)

// unreadableBodies are bodies that mean nothing, with words of the answer.
func unreadableBodies() map[string]string {
	good := licenseJSON("SIMSec-IoT", device(1))
	return map[string]string{
		`{`:                                    "unexpected end",
		`{"devices":[`:                         "unexpected end",
		`"x"`:                                  "expected an object",
		`[]`:                                   "expected an object",
		`7`:                                    "expected an object",
		`true`:                                 "expected an object",
		`tru`:                                  "",
		`{"skuNumber":7}`:                      `expected a string at "/skuNumber"`,
		`{"skuNumber":{"a":[]}}`:               `expected a string at "/skuNumber"`,
		`{"devices":{}}`:                       `expected an array at "/devices"`,
		`{"devices":"x"}`:                      `expected an array at "/devices"`,
		`{"devices":[{"deviceIds":[[]]}]}`:     `expected an object at "/devices/0/deviceIds/0"`,
		`{"devices":[{},{"ipAddress":false}]}`: `expected a string at "/devices/1/ipAddress"`,
		`{"devices":[1]}`:                      `expected an object at "/devices/0"`,
		`{"skuNumber":"a","skuNumber":"b"}`:    `duplicate member at "/skuNumber"`,
		`{"skuNumber":"a","SKUNumber":"b"}`:    `duplicate member but for its case at "/SKUNumber"`,
		`{"Devices":[],"devices":[]}`:          "duplicate member but for its case",
		`{"devices":[{"deviceIds":[{"id":"1","kind":"imei","ID":"2"}]}]}`:            "duplicate member but for its case",
		`{"devices":[{"deviceIds":[{"id":"1","kind":"imei","\u212aind":"iccid"}]}]}`: "duplicate member but for its case",
		`{"x":[{"a":1,"A":2}]}`: "duplicate member but for its case",
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"skuNumber":"a","skunumber":"b"}`: "duplicate member but for its case",
		`{"a":1,"\u0061":2}`: `duplicate member at "/a"`,
		`{"devices":[{"deviceIds":[{"id":"1","id":"2"}]}]}`: `duplicate member at "/devices/0/deviceIds/0/id"`,
		`{"x":{"a":1,"a":2}}`:                               "duplicate member",
		"{\"skuNumber\":\"\xff\"}":                          "UTF-8",
		"{\"\xff\":1}":                                      "UTF-8",
		`{"skuNumber":"\ud800"}`:                            "",
		`{"skuNumber":"\q"}`:                                "",
		"{\"skuNumber\":\"a\nb\"}":                          "",
		"\xef\xbb\xbf" + good:                               "",
		good + `{}`:                                         "",
		good + `x`:                                          "",
		good + ` null`:                                      "",
		`{"skuNumber":'a'}`:                                 "",
		`{skuNumber:"a"}`:                                   "",
		`{null:1}`:                                          "",
		`{"a":1,}`:                                          "",
		`{"a":01}`:                                          "",
		`{"a":NaN}`:                                         "",
		`{"a" 1}`:                                           "",
		`{"devices":[{}{}]}`:                                "",
		strings.Repeat("[", 33) + strings.Repeat("]", 33):                               "",
		`{"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`:               "32 levels",
		`{"x":` + strings.Repeat(`{"y":`, 100_000):                                      "32 levels",
		`{"devices":[{"x":` + strings.Repeat("[", 30) + strings.Repeat("]", 30) + `}]}`: "32 levels",
	}
}

func TestUnreadable(t *testing.T) {
	h := newHarness(t)
	for body, says := range unreadableBodies() {
		a := h.do("POST", assign, body)
		message, _ := a.fields(t)["errorMessage"].(string)
		if a.StatusCode != 400 || a.code(t) != m2m.CodeDeserialization || !strings.Contains(message, says) {
			t.Errorf("%s: %s, want %s and %q", clip(body), a, m2m.CodeDeserialization, says)
		}
		// The decoder of the other endpoints says the same of it.
		if _, err := decodeJSON[m2m.LicenseRequest]([]byte(body)); err == nil || wire(err).code != m2m.CodeDeserialization {
			t.Errorf("%s: decodeJSON = %v", clip(body), err)
		} else if e := wire(err).message; strings.Contains(says, "expected") && !strings.Contains(e, says) {
			t.Errorf("%s: decodeJSON = %s, want %q", clip(body), e, says)
		}
	}
}

func TestBlank(t *testing.T) {
	h := newHarness(t)
	for _, method := range []string{"POST", "DELETE"} {
		for _, body := range []string{"", " \r\n\t", "null", " null "} {
			a := h.do(method, assign, body)
			want := map[string]any{
				"errorCode":    "UnifiedWebService.INPUT_INVALID.RequestUndefined",
				"errorMessage": "Request cannot be blank. Please provide request details.",
			}
			if diff := cmp.Diff(want, a.fields(t)); diff != "" || a.StatusCode != 400 {
				t.Errorf("%s %q: %s", method, body, a)
			}
		}
	}
}

// TestNesting reads what nests as deeply as it may.
func TestNesting(t *testing.T) {
	for _, body := range []string{
		`{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`,
		`{"devices":[{"x":` + strings.Repeat("[", 29) + strings.Repeat("]", 29) + `}]}`,
		`{"x":"` + strings.Repeat(`[\"{\\`, 100) + `"}`,
	} {
		if _, err := decodeLicense([]byte(body)); err != nil {
			t.Errorf("%s: %v", body, err)
		}
		if _, err := decodeJSON[m2m.LicenseRequest]([]byte(body)); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestDecodeManyDevices fills more than one of the decoder's rooms.
func TestDecodeManyDevices(t *testing.T) {
	var devices []string
	for i := range 3000 {
		devices = append(devices, device(i), `{"deviceIds":null}`, `null`, `{"deviceIds":[{"id":"\u0031","kind":"x"},null,{}]}`)
	}
	agree(t, []byte(licenseJSON("SIMSec-IoT", devices...)))
}

// agree checks that the decoder reads what a plain one reads, and that both
// refuse the same.
func agree(t *testing.T, body []byte) {
	t.Helper()
	var want m2m.LicenseRequest
	plain := json.Unmarshal(body, &want)
	got, err := decodeLicense(body)
	if plain == nil && tooDeep(body) >= 0 {
		if err == nil {
			t.Errorf("%q nests too deeply and is read", body)
		}
		return
	}
	if plain == nil { // nor a member twice in another case
		plain = passNames(jsontext.NewDecoder(bytes.NewBuffer(body)))
	}
	if (plain == nil) != (err == nil) {
		t.Fatalf("decoding %q: %v, but plainly: %v", body, err, plain)
	}
	if err != nil {
		if e := wire(err); e.code != m2m.CodeDeserialization || len(e.body(&call{}).Message) > maxMessage {
			t.Errorf("decoding %q: %v", body, err)
		}
		return
	}
	if diff := cmp.Diff(&want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("decoding %q (-plain +ours):\n%s", body, diff)
	}
}

// FuzzLicenseRequest holds the decoder against a plain one.
func FuzzLicenseRequest(f *testing.F) {
	f.Add([]byte(licenseJSON("SIMSec-IoT", device(1), device(2))))
	f.Add([]byte(`{"accountName":null,"devices":[null,{"deviceIds":[null,{"id":"\u0031\n"}],"ipAddress":"x"}],"groupName":"g"}`))
	for body := range unreadableBodies() {
		if len(body) < 1000 {
			f.Add([]byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) { agree(t, body) })
}

// FuzzDevice reads identifiers: what is accepted has one of each kind at most,
// in digits.
func FuzzDevice(f *testing.F) {
	f.Add("490154203237518", "imei", "89148000000000000012", "ICCID")
	f.Add("1", "mdn", "", "")
	f.Fuzz(func(t *testing.T, id1, kind1, id2, kind2 string) {
		d, err := parseDevice([]m2m.DeviceID{{ID: id1, Kind: kind1}, {ID: id2, Kind: kind2}})
		if err != nil {
			if e := wire(err); e.status != 400 || strings.ContainsFunc(e.body(&call{}).Message, func(r rune) bool { return r < ' ' }) {
				t.Errorf("%v", err)
			}
			return
		}
		if len(d.IMEI) != 15 || len(d.ICCID) < 18 || len(d.ICCID) > 20 || strings.Trim(string(d.IMEI)+string(d.ICCID), "0123456789") != "" {
			t.Errorf("parseDevice(%q %q, %q %q) = %v", kind1, id1, kind2, id2, d)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{2, 100, 10_000} {
		var devices []string
		for i := range n {
			devices = append(devices, device(i))
		}
		body := []byte(licenseJSON("SIMSec-IoT", devices...))
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				in, err := decodeLicense(body)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := parseRequest(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
