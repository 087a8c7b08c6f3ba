package exchange

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMatchJSON(t *testing.T) {
	tests := []struct {
		name, want, got string
		at              []string // where it differs
	}{
		{"equal, in another order", `{"a": 1, "b": [true, null, "x"]}`, `{"b":[true,null,"x"],"a":1}`, nil},
		{"equal numbers", `[1, 2.50]`, `[1.0, 25e-1]`, nil},
		{"large numbers", `89148000000000010001`, `89148000000000010002`, []string{"body"}},
		{"a number is no string", `{"a": 1}`, `{"a": "1"}`, []string{"body.a"}},
		{"extra member", `{"a": 1}`, `{"a": 1, "b": 2}`, []string{"body.b"}},
		{"extra members allowed", `{"a": 1, ...}`, `{"a": 1, "b": 2}`, nil},
		{"missing member", `{"a": 1, ...}`, `{"b": 2}`, []string{"body.a"}},
		{"null is not absent", `{}`, `{"a": null}`, []string{"body.a"}},
		{"dots in a string", `"a...b \"...\""`, `"a...b \"...\""`, nil},
		{"shorter array", `[1, 2]`, `[1]`, []string{"body[1]"}},
		{"longer array", `[1]`, `[1, 2]`, []string{"body[1]"}},
		{"elements among others", `[2, 4, ...]`, `[1, 2, 3, 4]`, nil},
		{"elements among others, in order", `[4, 2, ...]`, `[1, 2, 3, 4]`, []string{"body"}},
		{"several differences", `{"a": 1, "b": {"c": 2}}`, `{"a": 2, "b": {"c": 3}}`, []string{"body.a", "body.b.c"}},
		{"an object expected", `{}`, `[]`, []string{"body"}},
		{"an array expected", `[]`, `{}`, []string{"body"}},
		{"duplicate members", `{...}`, `{"a": 1, "a": 1}`, []string{"body"}},
		{"no JSON", `{}`, `oops`, []string{"body"}},
		{"more than one value", `{}`, `{} {}`, []string{"body"}},
		{"bad file", `{"a": }`, `{}`, []string{"body"}},

		{"any", `["<any>", "<any>"]`, `[null, {}]`, nil},
		{"string", `["<string>", "<string>"]`, `["", 1]`, []string{"body[1]"}},
		{"text", `["<text>", "<text>"]`, `["a", ""]`, []string{"body[1]"}},
		{"bool", `["<bool>", "<bool>"]`, `[false, "false"]`, []string{"body[1]"}},
		{"array and object", `["<array>", "<object>", "<array>"]`, `[[], {}, {}]`, []string{"body[2]"}},
		{"int", `["<int>", "<int>", "<int>"]`, `[1, 1.5, "1"]`, []string{"body[1]", "body[2]"}},
		{"int in a range", `["<int 1..3>", "<int 1..3>", "<int 1..3>"]`, `[1, 3, 4]`, []string{"body[2]"}},
		{
			"uuid", `["<uuid>", "<uuid>", "<uuid>"]`,
			`["c3f3d17c-79ff-4b35-82df-94446785b6e0", "C3F3D17C-79FF-4B35-82DF-94446785B6E0", "c3f3"]`,
			[]string{"body[1]", "body[2]"},
		},
		{
			"uuid4", `["<uuid4>", "<uuid4>"]`,
			`["c3f3d17c-79ff-4b35-82df-94446785b6e0", "c3f3d17c-79ff-7b35-82df-94446785b6e0"]`,
			[]string{"body[1]"},
		},
		{
			"time", `["<time>", "<time>", "<time>"]`,
			`["2026-11-23T10:00:00Z", "2019-08-07T10:42:15-04:00", "yesterday"]`,
			[]string{"body[2]"},
		},
		{"contains", `["<contains b c>", "<contains b c>"]`, `["ab cd", "abcd"]`, []string{"body[1]"}},
		{"matches", `["<matches ^a+$>", "<matches ^a+$>"]`, `["aaa", "ab"]`, []string{"body[1]"}},
		{"at most", `["<atmost 2>", "<atmost 2>"]`, `["äö", "abc"]`, []string{"body[1]"}},
		{"set", `["<set GET, POST>", "<set GET, POST>"]`, `["POST, GET", "GET"]`, []string{"body[1]"}},
		{"unknown placeholder", `"<nothing>"`, `"<nothing>"`, []string{"body"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := matchJSON("body", tt.want, tt.got)
			var at []string
			for _, d := range m.diffs {
				at = append(at, d.At)
			}
			if d := cmp.Diff(tt.at, at); d != "" {
				t.Errorf("matchJSON(%s, %s) differs at (-want +got):\n%s", tt.want, tt.got, d)
			}
		})
	}
}

func TestMatchCaptures(t *testing.T) {
	m := matchJSON("body",
		`{"id": "<uuid as id>", "n": "<int 1..9 as n>", "s": "<contains b as s>", "list": [{"k": "x", "v": "<text as v>"}, ...]}`,
		`{"id": "c3f3d17c-79ff-4b35-82df-94446785b6e0", "n": 7, "s": "abc", "list": [{"k": "w", "v": "1"}, {"k": "x", "v": "2"}]}`)
	want := map[string]string{"id": "c3f3d17c-79ff-4b35-82df-94446785b6e0", "n": "7", "s": "abc", "v": "2"}
	if d := cmp.Diff(want, m.captured); d != "" || len(m.diffs) > 0 {
		t.Errorf("captured (-want +got):\n%s\nand differs at %v", d, m.diffs)
	}
}

func TestMatchHeader(t *testing.T) {
	tests := []struct {
		name string
		want Header
		got  []string
		ok   bool
	}{
		{"equal", Header{Value: "POST"}, []string{"POST"}, true},
		{"other", Header{Value: "POST"}, []string{"GET"}, false},
		{"absent", Header{Value: "POST"}, nil, false},
		{"forbidden", Header{Without: true}, []string{"x"}, false},
		{"forbidden and absent", Header{Without: true}, nil, true},
		{"several lines", Header{Value: "<set GET POST>"}, []string{"POST", "GET"}, true},
		{"number", Header{Value: "<int 1..900>"}, []string{"5"}, true},
		{"number out of range", Header{Value: "<int 1..900>"}, []string{"0"}, false},
		{"no number", Header{Value: "<int>"}, []string{"soon"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m match
			if m.header(tt.want, tt.got); (len(m.diffs) == 0) != tt.ok {
				t.Errorf("header(%+v, %q) differs in %v, want ok %t", tt.want, tt.got, m.diffs, tt.ok)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	vars := map[string]string{
		"account": "0000123456-00001", "n": "7", "d1.imei": "1", "d1.iccid": "2", "d2.imei": "3", "d2.iccid": "4",
		"which": "d1", "row": "${d2.imei}", "key": "k", "secret": "s",
	}
	tests := []struct{ in, want string }{
		{"no variables, $ and {}", "no variables, $ and {}"},
		{"${account}!", "0000123456-00001!"},
		{"${plain account}", "000012345600001"},
		{"${n+2} ${n-9}", "9 -2"},
		{"${${which}.iccid}", "2"},
		{"${row}", "3"},
		{"${repeat 3 ab}", "ababab"},
		{"${base64 ${key}:${secret}}", "azpz"},
		{"${devices d1}", `{"deviceIds": [{"id": "1", "kind": "imei"}, {"id": "2", "kind": "iccid"}]}`},
		{"${made 1}", `{"deviceIds": [{"id": "990000000000000", "kind": "imei"}, {"id": "89999990000000000000", "kind": "iccid"}]}`},
	}
	for _, tt := range tests {
		if got, err := expand(tt.in, vars); got != tt.want || err != nil {
			t.Errorf("expand(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"${missing}", "${devices d9}", "${made x}", "${repeat x a}", "${dance now}", "${account+1}", "${missing+1}", "${plain missing}"} {
		if got, err := expand(in, vars); err == nil {
			t.Errorf("expand(%q) = %q, want an error", in, got)
		}
	}
}
