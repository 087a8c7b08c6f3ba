package auth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newSealer(t *testing.T, fill byte) *Sealer {
	t.Helper()
	s, err := NewSealer(bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealer(t *testing.T) {
	s := newSealer(t, 1)
	const plain, place = "listener password", "account/CarrierService/password"
	sealed := s.Seal(plain, place)
	if strings.Contains(sealed, plain) || sealed == s.Seal(plain, place) {
		t.Errorf("Seal = %q, want it hidden and different each time", sealed)
	}
	if got, err := newSealer(t, 1).Open(sealed, place); got != plain || err != nil {
		t.Errorf("Open = %q, %v, want %q", got, err, plain)
	}
	if got, err := s.Open(sealed, "another account/CarrierService/password"); err == nil {
		t.Errorf("Open elsewhere = %q, want an error", got)
	}
	if got, err := newSealer(t, 2).Open(sealed, place); err == nil {
		t.Errorf("Open with another key = %q, want an error", got)
	}
	raw, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] ^= 1
		if got, err := s.Open(base64.RawStdEncoding.EncodeToString(raw), place); err == nil {
			t.Errorf("Open with byte %d changed = %q, want an error", i, got)
		}
		raw[i] ^= 1
	}
	for _, damaged := range []string{"x", "AAAA", "not base64!", sealed[:10]} {
		if got, err := s.Open(damaged, place); err == nil {
			t.Errorf("Open(%q) = %q, want an error", damaged, got)
		}
	}
	if got := s.Seal("", place); got != "" {
		t.Errorf("Seal of nothing = %q, want nothing", got)
	}
	if got, err := s.Open("", place); got != "" || err != nil {
		t.Errorf("Open of nothing = %q, %v, want nothing", got, err)
	}
}

func TestFingerprint(t *testing.T) {
	a, b := newSealer(t, 1).Fingerprint(), newSealer(t, 2).Fingerprint()
	if a == b || a != newSealer(t, 1).Fingerprint() || a == "" {
		t.Errorf("fingerprints %q and %q, want one for each key", a, b)
	}
	if _, err := NewSealer(make([]byte, 31)); err == nil {
		t.Error("NewSealer takes a key of 31 bytes")
	}
}

func TestReadSealer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := ReadSealer(path, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadSealer of no file = %v, want os.ErrNotExist", err)
	}
	made, err := ReadSealer(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v, want mode 0600", info.Mode(), err)
	}
	again, err := ReadSealer(path, true)
	if err != nil || again.Fingerprint() != made.Fingerprint() {
		t.Errorf("ReadSealer again: %v, want the same key", err)
	}
	for _, text := range []string{"", "secret", base64.StdEncoding.EncodeToString(make([]byte, 16))} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSealer(path, true)
		if err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("ReadSealer of %q = %v, want an error that does not show it", text, err)
		}
	}
}

// TestSealerOfManyKeys seals with the first key and opens with each.
func TestSealerOfManyKeys(t *testing.T) {
	const a, b = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(b+"\r\n\n"+a), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSealer(path, false)
	if err != nil {
		t.Fatal(err)
	}
	for fill, sealer := range map[byte]*Sealer{1: newSealer(t, 1), 2: s} {
		plain, by, err := s.OpenBy(sealer.Seal("plain", "place"), "place")
		if plain != "plain" || by != newSealer(t, fill).Fingerprint() || err != nil {
			t.Errorf("what key %d sealed is opened as %q by %s, %v", fill, plain, by, err)
		}
	}
	fixed := s.Fixed()
	s.Replace(newSealer(t, 1))
	if s.Fingerprint() != newSealer(t, 1).Fingerprint() || fixed.Fingerprint() != newSealer(t, 2).Fingerprint() {
		t.Error("Replace replaces nothing, or the keys of Fixed too")
	}
	if err := os.WriteFile(path, []byte(b+"\n"+a[1:]), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSealer(path, false); err == nil || strings.Contains(err.Error(), a[1:]) {
		t.Errorf("a bad second line: %v, want an error that does not show it", err)
	}
}
