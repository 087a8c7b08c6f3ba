package main

import (
	"debug/buildinfo"
	"runtime/debug"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	const (
		std = `{"name": "std", "version": "go1.26.0"}`
		one = `{"name": "example.com/one", "version": "v1.0.0", "hashes": [{"alg": "SHA-256", "content": "00"}]}`
		two = `{"name": "example.com/two", "version": "v0.2.0", "hashes": [{"alg": "SHA-256", "content": "01"}]}`
	)
	modules := func() []*debug.Module {
		return []*debug.Module{{Path: "example.com/one", Version: "v1.0.0", Sum: "h1:AA="}, {Path: "example.com/two", Version: "v0.2.0", Sum: "h1:AQ="}}
	}
	for name, tt := range map[string]struct {
		parts []string
		deps  []*debug.Module
		want  string // in the error
	}{
		"whole":         {[]string{std, one, two}, modules(), ""},
		"a module less": {[]string{std, one}, modules(), "example.com/two v0.2.0 is missing"},
		"another version": {
			[]string{std, one, strings.Replace(two, "v0.2.0", "v0.2.1", 1)}, modules(), "example.com/two v0.2.0 is missing",
		},
		"no hash":           {[]string{std, one, `{"name": "example.com/two", "version": "v0.2.0"}`}, modules(), "example.com/two has no hash"},
		"no standard":       {[]string{one, two}, modules(), "the standard library of go1.26.0 is missing"},
		"a program of none": {[]string{std}, nil, "names no modules"},
		"replaced": {
			[]string{std, one}, []*debug.Module{{Path: "example.com/one", Version: "v1.0.0", Sum: "h1:AA=", Replace: &debug.Module{Path: "../one"}}}, "is replaced",
		},
	} {
		err := complete(&buildinfo.BuildInfo{GoVersion: "go1.26.0", Deps: tt.deps}, []byte(`{"components": [`+strings.Join(tt.parts, ",")+`]}`))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
