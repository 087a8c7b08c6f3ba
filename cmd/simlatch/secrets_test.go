package main

import (
	"bytes"
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// TestSecretsReseal changes the key of a database by the commands of
// docs/operations.md.
func TestSecretsReseal(t *testing.T) {
	_, url := storeWithListener(t)
	file := strings.TrimPrefix(url, "sqlite:") + ".key"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fresh := []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{8}, 32)) + "\n")
	do := func(keys []byte, want int, args ...string) (out, messages string) {
		t.Helper()
		if err := os.WriteFile(file, keys, 0o600); err != nil {
			t.Fatal(err)
		}
		status, out, messages := simlatch(t, "", append(args, "--database", url)...)
		if status != want {
			t.Fatalf("simlatch %v = %d %s%s, want %d", args, status, out, messages, want)
		}
		return out, messages
	}
	if out, _ := do(slices.Concat(fresh, old), exitDone, "secrets", "status"); !strings.Contains(out, "seals  0 secrets") || !strings.Contains(out, "opens  1 secrets") {
		t.Errorf("status before: %s", out)
	}
	if out, _ := do(fresh, exitFailed, "secrets", "status"); !strings.Contains(out, "seals  0 secrets") {
		t.Errorf("status without the old key: %s", out)
	}
	if _, messages := do(fresh, exitFailed, "secrets", "reseal"); !strings.Contains(messages, "sealed with another key") {
		t.Errorf("reseal without the old key: %s", messages)
	}
	out, messages := do(slices.Concat(fresh, old), exitDone, "secrets", "reseal")
	if !strings.Contains(out, "1 secrets sealed anew, 0 left") || !strings.Contains(messages, "1 left") {
		t.Errorf("reseal: %s%s", out, messages)
	}
	if out, _ := do(fresh, exitDone, "secrets", "status"); !strings.Contains(out, "seals  1 secrets") {
		t.Errorf("status after: %s", out)
	}
	s, err := openStore(t.Context(), databaseConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if l, err := s.Listener(t.Context(), "0000123456-00001", license.CarrierService); err != nil || l.Password != "very secret" {
		t.Errorf("the listener is %+v, %v", l, err)
	}
	if status, _, messages := simlatch(t, "", "secrets", "status", "--database", url, "--secrets-key-file", file+".none"); status != exitFailed || !strings.Contains(messages, "make one with") {
		t.Errorf("a key file that is not there: %d %s", status, messages)
	}
}
