package exchange

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const sample = `A title

Some more
text.

source: one; two
needs: callbacks carrier
user: two
application: other
listens: account lisa secret

-- listener 503 200 --
-- request chunked: the label: it has a colon --
POST /path?x=${a}
X-One: 1
!Authorization

{"a": 1}
-- response eventually --
200
Allow: <set GET>
!Location

{"b": "<any>"}
-- callback times=2 each=d1,d2 --
webhook-id: <text>

{"c": 1}
-- no callback --
-- cases --
x | y
1 |
2 | two words
-- request --
GET /${x}
-- response --
404
-- end cases --
-- request: last --
DELETE /
-- response --
200
`

func TestParse(t *testing.T) {
	got, err := Parse("sample", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	callback := Callback{Message: Message{Headers: []Header{{Name: "webhook-id", Value: "<text>"}}, Body: `{"c": 1}`}, Times: 2}
	one, two := callback, callback
	one.Device, two.Device = "d1", "d2"
	want := Exchange{
		Name: "sample", Title: "A title", Text: "Some more\ntext.", Sources: []string{"one", "two"},
		Needs: []Need{NeedCallbacks, NeedCarrier}, User: "two", Application: "other",
		Listen: &Listen{Account: "account", Username: "lisa", Password: "secret"},
		Steps: []Step{
			{
				Name: "the label: it has a colon", Listener: []int{503, 200},
				Request: Request{
					Method: "POST", Path: "/path?x=${a}", Chunked: true, HasBody: true, Body: `{"a": 1}`,
					Headers: []Header{{Name: "X-One", Value: "1"}, {Name: "Authorization", Without: true}},
				},
				Response: Message{
					Status: 200, Body: `{"b": "<any>"}`,
					Headers: []Header{{Name: "Allow", Value: "<set GET>"}, {Name: "Location", Without: true}},
				},
				Repeat: true, Callbacks: []Callback{one, two}, Silence: true,
			},
			{
				Name: `GET /${x} (case 1: x "1", y "")`, Vars: map[string]string{"x": "1", "y": ""},
				Request: Request{Method: "GET", Path: "/${x}"}, Response: Message{Status: 404},
			},
			{
				Name: `GET /${x} (case 2: x "2", y "two words")`, Vars: map[string]string{"x": "2", "y": "two words"},
				Request: Request{Method: "GET", Path: "/${x}"}, Response: Message{Status: 404},
			},
			{Name: "last", Request: Request{Method: "DELETE", Path: "/"}, Response: Message{Status: 200}},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Parse (-want +got):\n%s", d)
	}
}

func TestParseErrors(t *testing.T) {
	const head = "Title\n\nsource: s\n"
	const request = "-- request --\nGET /\n"
	const response = "-- response --\n200\n"
	tests := []struct{ name, text, want string }{
		{"empty", "", "no title"},
		{"no source", "Title\n" + request + response, "no source"},
		{"no request", head, "no request"},
		{"no response", head + request, "no response"},
		{"unknown need", "Title\nsource: s\nneeds: luck\n" + request + response, `unknown need "luck"`},
		{"need not said", head + request + response + "-- callback --\n{}\n", "needs: callbacks"},
		{"need not used", "Title\nsource: s\nneeds: callbacks\n" + request + response, "needs: callbacks"},
		{"response first", head + response, "no request before"},
		{"callback first", head + "-- callback --\n{}\n", "no request before"},
		{"unknown section", head + request + response + "-- answer --\n", "unknown section"},
		{"unknown option", head + "-- request fast --\nGET /\n", `unknown option "fast"`},
		{"unknown option of a response", head + request + "-- response soon --\n200\n", `unknown option "soon"`},
		{"unknown option of a callback", head + request + response + "-- callback soon --\n{}\n", `unknown option "soon"`},
		{"times", head + request + response + "-- callback times=x --\n{}\n", "invalid syntax"},
		{"no path", head + "-- request --\nGET\n" + response, "not a method and a path"},
		{"status", head + request + "-- response --\nfine\n", "not a status"},
		{"listener", head + "-- listener 99x --\n" + request + response, "not a status"},
		{"body without a blank line", head + "-- request --\nPOST /\n{}\n" + response, "blank line"},
		{"ragged table", head + "-- cases --\na | b\n1\n" + request + response, "1 cells, not 2"},
		{"empty table", head + "-- cases --\na\n" + request + response, "no rows"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := Parse("x", []byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Parse gave %v, %v, want an error with %q", x, err, tt.want)
			}
		})
	}
}

func TestLoadFSNamesTheFile(t *testing.T) {
	_, err := LoadFS(fstest.MapFS{"broken.txtar": {Data: []byte("Title\n")}, "other.txt": {Data: []byte("x")}})
	if err == nil || !strings.Contains(err.Error(), "broken.txtar") {
		t.Errorf("LoadFS gave %v, want an error that names broken.txtar", err)
	}
}

func TestVariables(t *testing.T) {
	got, err := Variables([]byte(`
applications:
  - {key: k, secret: s} # app
users:
  - username: u # user
    password: p
    accounts: ["0001"]
accounts:
  - name: "0001" # account
    pools: {SIMSec-IoT: 5}
  - name: "0002"
devices:
  - {account: "0001", imei: "1", iccid: "2", state: active} # d1 and more words
  - {account: "0001", imei: "3", iccid: "4", mdn: "5"} # d2
  - {account: "0001", imei: "6", iccid: "7"}
`))
	want := map[string]string{
		"app.key": "k", "app.secret": "s", "user.name": "u", "user.password": "p", "account": "0001",
		"d1.imei": "1", "d1.iccid": "2", "d2.imei": "3", "d2.iccid": "4", "d2.mdn": "5",
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("Variables: %v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{"devices: 7", ": :", "accounts:\n - name: a # x\n - name: b # x\n"} {
		if got, err := Variables([]byte(bad)); err == nil {
			t.Errorf("Variables(%q) = %v, want an error", bad, got)
		}
	}
}

func TestCheck(t *testing.T) {
	vars := map[string]string{"user.name": "u", "app.key": "k", "d1.iccid": "2"}
	const head = "Title\nsource: s\n"
	tests := []struct{ name, text, want string }{
		{"good", head + "-- request --\nGET /${bearer}\n-- response --\n200\n\n{\"a\": \"<text as a>\"}\n-- request --\nGET /${a}\n-- response --\n200\n", ""},
		{"undefined", head + "-- request --\nGET /${a}\n-- response --\n200\n", "${a} is not defined"},
		{"no JSON", head + "-- request --\nGET /\n-- response --\n200\n\n{\"a\": }\n", "invalid character"},
		{"placeholder", head + "-- request --\nGET /\n-- response --\n200\n\n{\"a\": [\"<number>\"]}\n", "no such placeholder"},
		{"placeholder of a header", head + "-- request --\nGET /\n-- response --\n200\nAllow: <Set A>\n", "no placeholder"},
		{"user", head + "user: lisa\n-- request --\nGET /\n-- response --\n200\n", `the user "lisa" of the seed is not defined`},
		{"device", head + "needs: callbacks\n-- request --\nGET /\n-- response --\n200\n-- callback each=d9 --\n{}\n", `the device "d9" of the seed is not defined`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, err := Parse("x", []byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			err = x.Check(vars)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check gave %v, want %q", err, tt.want)
			}
		})
	}
}
