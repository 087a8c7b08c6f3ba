package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// storeWithListener makes a database in which an account has registered a
// listener, as it would through the API.
func storeWithListener(t *testing.T) (*store.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.db")
	sealer, err := auth.ReadSealer(path+".key", true)
	if err != nil {
		t.Fatal(err)
	}
	url := "sqlite:" + path
	s, err := store.Open(t.Context(), url, store.Options{Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := s.AddAccount(t.Context(), "0000123456-00001", now); err != nil {
		t.Fatal(err)
	}
	err = s.PutListener(t.Context(), license.Listener{
		Account: "0000123456-00001", Service: license.CarrierService, URL: "https://example.test/cb", Username: "u", Password: "very secret",
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	return s, url
}

// simlatch runs a command in this process.
func simlatch(t *testing.T, stdin string, args ...string) (status int, out, messages string) {
	t.Helper()
	var o, m bytes.Buffer
	status = run(args, streams{in: strings.NewReader(stdin), out: &o, err: &m})
	return status, o.String(), m.String()
}

func TestListenerSet(t *testing.T) {
	s, url := storeWithListener(t)
	get := func() license.Listener {
		l, err := s.Listener(t.Context(), "0000123456-00001", license.CarrierService)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	set := func(stdin string, args ...string) (int, string, string) {
		return simlatch(t, stdin, append([]string{"listener", "set", "--database", url, "--account", "000012345600001"}, args...)...)
	}

	want := get()
	want.Attempts, want.Interval = 6, 30*time.Second
	if status, _, messages := set("", "--attempts", "6", "--interval", "30s"); status != exitDone {
		t.Fatalf("set --attempts --interval ended with %d: %s", status, messages)
	}
	if diff := cmp.Diff(want, get()); diff != "" {
		t.Errorf("after set --attempts --interval (-want +got):\n%s", diff)
	}

	status, out, messages := set("", "--new-signing-secret")
	if status != exitDone || !regexp.MustCompile(`^whsec_[A-Za-z0-9+/]{43}=\n$`).MatchString(out) {
		t.Fatalf("set --new-signing-secret ended with %d and printed %q: %s", status, out, messages)
	}
	want.SigningSecret = strings.TrimSpace(out)
	if diff := cmp.Diff(want, get()); diff != "" {
		t.Errorf("after set --new-signing-secret (-want +got):\n%s", diff)
	}

	want.SigningSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
	want.Attempts, want.Timeout = 0, 5*time.Second
	status, out, messages = set(want.SigningSecret+"\n", "--signing-secret-file", "-", "--attempts", "0", "--timeout", "5s")
	if status != exitDone || out != "" {
		t.Fatalf("set --signing-secret-file ended with %d and printed %q: %s", status, out, messages)
	}
	if diff := cmp.Diff(want, get()); diff != "" {
		t.Errorf("after set --signing-secret-file (-want +got):\n%s", diff)
	}

	status, out, messages = simlatch(t, "", "listener", "list", "--database", url)
	wantOut := "ACCOUNT           SERVICE         URL                      USERNAME  SIGNED  ATTEMPTS  INTERVAL  TIMEOUT\n" +
		"0000123456-00001  CarrierService  https://example.test/cb  u         true              30s       5s\n"
	if status != exitDone || out != wantOut {
		t.Errorf("list ended with %d and printed\n%swant\n%s%s", status, out, wantOut, messages)
	}
}

func TestListenerSetRefuses(t *testing.T) {
	s, url := storeWithListener(t)
	before, err := s.Listeners(t.Context(), "0000123456-00001")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, stdin string
		args        []string
		status      int
		message     string
	}{
		{"nothing", "", nil, exitUsage, "at least one of the flags"},
		{"two secrets", "", []string{"--new-signing-secret", "--no-signing-secret"}, exitUsage, "none of the others can be"},
		{"attempts", "", []string{"--attempts", "101"}, exitUsage, "--attempts 101: it must be 1 to 100"},
		{"interval", "", []string{"--interval", "-1s"}, exitUsage, "--interval -1s: it must be at most 24h"},
		{"timeout", "", []string{"--timeout", "2m"}, exitUsage, "--timeout 2m0s: it must be at most 1m"},
		{"short secret", "whsec_AAAA", []string{"--signing-secret-file", "-"}, exitFailed, "must be whsec_ and 24 to 64 bytes in base64"},
		{"no prefix", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", []string{"--signing-secret-file", "-"}, exitFailed, "must be whsec_"},
		{"other service", "", []string{"--service", "DeviceService", "--attempts", "2"}, exitFailed, "has no listener for DeviceService"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"listener", "set", "--database", url, "--account", "0000123456-00001"}, c.args...)
			status, _, messages := simlatch(t, c.stdin, args...)
			if status != c.status || !strings.Contains(messages, c.message) {
				t.Errorf("ended with %d and said %q, want %d and %q", status, messages, c.status, c.message)
			}
		})
	}
	after, err := s.Listeners(t.Context(), "0000123456-00001")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("what was refused changed something (-before +after):\n%s", diff)
	}
}
