package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// FuzzSettings reads files of settings of any kind: each is refused with the
// file's name in the error, or every setting in it is one of the server, with a
// value that its flag takes.
func FuzzSettings(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:9090\ncallback-allow: [127.0.0.0/8, 10.0.0.0/8]\nmax-devices: 5\n"))
	f.Add([]byte("{\"carrier\": simulated, \"grace\": 10s}"))
	f.Add([]byte("listen: &a [*a]\n"))
	f.Add([]byte("a.b: {c: 1}\nlisten: null\n"))
	path := filepath.Join(f.TempDir(), "settings.yaml")
	root := newRoot()
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		settings, err := readSettings(root, path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Errorf("%q: %v", file, err)
			}
			return
		}
		flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		addServeFlags(flags)
		flags.VisitAll(func(flag *pflag.Flag) {
			if !settings.Exists(flag.Name) {
				return
			}
			if err := fill(flags, flag, settings, path); err != nil {
				if !strings.Contains(err.Error(), path) {
					t.Errorf("%q: %v", file, err)
				}
			} else if !flag.Changed {
				t.Errorf("%q: %s was not set", file, flag.Name)
			}
		})
	})
}
