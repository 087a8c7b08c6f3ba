package auth

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// Sealer encrypts what is stored but must be sent out again, such as the
// password of a callback listener.
type Sealer struct {
	aead        cipher.AEAD
	fingerprint string
}

// NewSealer makes a Sealer of a key of 32 bytes.
func NewSealer(key []byte) (*Sealer, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("the sealing key: %w", err)
	}
	return &Sealer{aead: aead, fingerprint: HashSecret("fingerprint:" + Secret(key))[:16]}, nil
}

// Fingerprint tells keys apart without giving them away.
func (s *Sealer) Fingerprint() string { return s.fingerprint }

// Seal encrypts plain. It can be opened only with the same context, so that a
// sealed value cannot be moved to another row. An empty string stays empty.
func (s *Sealer) Seal(plain, context string) string {
	if plain == "" {
		return ""
	}
	nonce := make([]byte, s.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return base64.RawStdEncoding.EncodeToString(s.aead.Seal(nonce, nonce, []byte(plain), []byte(context)))
}

// Open decrypts what Seal made.
func (s *Sealer) Open(sealed, context string) (string, error) {
	if sealed == "" {
		return "", nil
	}
	b, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil || len(b) < s.aead.NonceSize() {
		return "", errors.New("opening a sealed secret: it is damaged")
	}
	plain, err := s.aead.Open(nil, b[:s.aead.NonceSize()], b[s.aead.NonceSize():], []byte(context))
	if err != nil {
		return "", errors.New("opening a sealed secret: it was sealed with another key or for another place")
	}
	return string(plain), nil
}

// ReadSealer reads the key in the file at path: 32 bytes in base64. A file that
// does not exist is made, readable by its owner alone, if create says so;
// otherwise the error is that of os.ReadFile.
func ReadSealer(path string, create bool) (*Sealer, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && create {
		return createSealer(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the sealing key: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != chacha20poly1305.KeySize {
		return nil, fmt.Errorf("the sealing key in %s is not 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64", path)
	}
	return NewSealer(key)
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
