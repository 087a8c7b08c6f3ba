package openapi

import (
	"strings"
	"testing"
)

func TestJSON(t *testing.T) {
	for in, want := range map[string]string{
		"b: 1\na: [x, true, null, 1.5]\n": `{"b":1,"a":["x",true,null,1.5]}`,
		"a: &x {b: \"1\"}\nc: *x\n":       `{"a":{"b":"1"},"c":{"b":"1"}}`,
		"a: {":                            "",
		"a: 0x1f\n":                       "",
		"a: 1\na: 2\n":                    "",
	} {
		got, err := JSON([]byte(in))
		if (err != nil) != (want == "") || err == nil && strings.TrimSpace(string(got)) != want {
			t.Errorf("JSON(%q) = %s, %v", in, got, err)
		}
	}
}
