package auth

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sealer encrypts what is stored but must be sent out again, such as the
// password of a callback listener. Of its keys the first seals, and all open.
// It may be used by many at once, also while Replace gives it other keys.
type Sealer struct {
	keys atomic.Pointer[[]sealingKey]
}

type sealingKey struct {
	aead        cipher.AEAD
	fingerprint string
}

// NewSealer makes a Sealer of keys of 32 bytes. The first seals.
func NewSealer(first []byte, others ...[]byte) (*Sealer, error) {
	var keys []sealingKey
	for _, key := range append([][]byte{first}, others...) {
		aead, err := chacha20poly1305.NewX(key)
		if err != nil {
			return nil, fmt.Errorf("the sealing key: %w", err)
		}
		keys = append(keys, sealingKey{aead: aead, fingerprint: HashSecret("fingerprint:" + Secret(key))[:16]})
	}
	return sealerOf(keys), nil
}

func sealerOf(keys []sealingKey) *Sealer {
	s := &Sealer{}
	s.keys.Store(&keys)
	return s
}

// Replace gives s the keys of another.
func (s *Sealer) Replace(other *Sealer) { s.keys.Store(other.keys.Load()) }

// Fixed is a Sealer with the keys that s has now, whatever replaces them.
func (s *Sealer) Fixed() *Sealer { return sealerOf(*s.keys.Load()) }

// Fingerprint tells the key that seals from others without giving it away.
func (s *Sealer) Fingerprint() string { return (*s.keys.Load())[0].fingerprint }

// Fingerprints are those of all keys, that of the one that seals first.
func (s *Sealer) Fingerprints() (list []string) {
	for _, key := range *s.keys.Load() {
		list = append(list, key.fingerprint)
	}
	return list
}

// Seal encrypts plain. It can be opened only with the same context, so that a
// sealed value cannot be moved to another row. An empty string stays empty.
func (s *Sealer) Seal(plain, context string) string {
	if plain == "" {
		return ""
	}
	aead := (*s.keys.Load())[0].aead
	nonce := make([]byte, aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawStdEncoding.EncodeToString(aead.Seal(nonce, nonce, []byte(plain), []byte(context)))
}

// Open decrypts what Seal made.
func (s *Sealer) Open(sealed, context string) (string, error) {
	plain, _, err := s.OpenBy(sealed, context)
	return plain, err
}

// OpenBy decrypts what Seal made, and says with which key, by its fingerprint.
func (s *Sealer) OpenBy(sealed, context string) (plain, fingerprint string, err error) {
	if sealed == "" {
		return "", "", nil
	}
	b, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil || len(b) < chacha20poly1305.NonceSizeX {
		return "", "", errors.New("opening a sealed secret: it is damaged")
	}
	nonce, rest := b[:chacha20poly1305.NonceSizeX], b[chacha20poly1305.NonceSizeX:]
	for _, key := range *s.keys.Load() {
		if plain, err := key.aead.Open(nil, nonce, rest, []byte(context)); err == nil {
			return string(plain), key.fingerprint, nil
		}
	}
	return "", "", errors.New("opening a sealed secret: it was sealed with another key or for another place")
}

// ReadSealer reads the keys in the file at path: each 32 bytes in base64 on a
// line of its own. The first seals, all open. A file that does not exist is made
// with one key, readable by its owner alone, if create says so; otherwise the
// error is that of os.ReadFile.
func ReadSealer(path string, create bool) (*Sealer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && create {
		return createSealer(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the sealing key: %w", err)
	}
	var keys [][]byte
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != chacha20poly1305.KeySize {
			keys = nil
			break
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("the sealing key in %s is not 32 bytes in base64, on each line; make one with: head -c 32 /dev/urandom | base64", path)
	}
	return NewSealer(keys[0], keys[1:]...)
}

func createSealer(path string) (*Sealer, error) {
	key := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(key) // never fails
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return ReadSealer(path, false) // another process was first
	}
	if err != nil {
		return nil, fmt.Errorf("making the sealing key: %w", err)
	}
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("writing the sealing key: %w", err)
	}
	return NewSealer(key)
}
