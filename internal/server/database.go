package server

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/simlatch/simlatch/internal/auth"
)

// DefaultDatabase is the database of a server that names none.
const DefaultDatabase = "sqlite:simlatch.db"

// ErrNoKeyFile says that a database other than SQLite was given no sealing key.
var ErrNoKeyFile = errors.New("on PostgreSQL the key that seals stored secrets must be named, the same on every node: " +
	"make one with `head -c 32 /dev/urandom | base64 >simlatch.key && chmod 600 simlatch.key` and give --secrets-key-file simlatch.key")

// SQLitePath is the path of the file behind the URL of a SQLite database. It
// reports false for other databases.
func SQLitePath(url string) (path string, ok bool) {
	path, ok = strings.CutPrefix(url, "sqlite:")
	return strings.TrimPrefix(path, "//"), ok
}

// OpenSealer reads the sealing keys of a database from keyFile. When that is
// empty, it is the file beside a SQLite database with .key behind its name,
// which is made if create says so; for other databases the error is
// ErrNoKeyFile.
func OpenSealer(database, keyFile string, create bool) (*auth.Sealer, error) {
	path, err := keyPath(database, keyFile)
	if err != nil {
		return nil, err
	}
	if keyFile == "" {
		return auth.ReadSealer(path, create)
	}
	sealer, err := auth.ReadSealer(path, false)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w; make one with: head -c 32 /dev/urandom | base64 >%s", err, keyFile)
	}
	return sealer, err
}

func keyPath(database, keyFile string) (string, error) {
	if keyFile != "" {
		return keyFile, nil
	}
	path, ok := SQLitePath(database)
	if !ok {
		return "", ErrNoKeyFile
	}
	return path + ".key", nil
}
