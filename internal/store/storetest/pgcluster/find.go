package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
)

// ErrNotInstalled says that PostgreSQL's server programs are nowhere to be
// found.
var ErrNotInstalled = errors.New("PostgreSQL's server is not installed (no initdb in PATH or /usr/lib/postgresql/*/bin)")

// packaged is where Debian keeps the programs of each version, outside PATH.
const packaged = "/usr/lib/postgresql"

// Programs finds the directory of initdb and postgres: that of the initdb in
// PATH, or that of the newest version Debian's packages installed.
func Programs() (string, error) {
	if name, err := exec.LookPath("initdb"); err == nil {
		if name, err = filepath.EvalSymlinks(name); err == nil && complete(filepath.Dir(name)) {
			return filepath.Dir(name), nil
		}
	}
	dirs, err := filepath.Glob(filepath.Join(packaged, "*", "bin"))
	if err != nil {
		return "", fmt.Errorf("looking for PostgreSQL: %w", err)
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return !complete(dir) })
	if len(dirs) == 0 {
		return "", ErrNotInstalled
	}
	return slices.MaxFunc(dirs, func(a, b string) int { return major(a) - major(b) }), nil
}

// Installed reports whether Start would find a server to run.
func Installed() bool {
	_, err := Programs()
	return err == nil
}

// complete reports whether dir has what it takes to run a server; a client's
// package alone does not.
func complete(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// major is the 15 of /usr/lib/postgresql/15/bin, or 0.
func major(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}
