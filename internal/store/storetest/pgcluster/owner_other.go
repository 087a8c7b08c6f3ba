//go:build !unix

package pgcluster

import (
	"errors"
	"os/exec"
)

// Owner is who runs the server and owns its files.
type Owner struct{}

// ServerOwner fails: see its error.
func ServerOwner() (Owner, error) {
	return Owner{}, errors.New("a private PostgreSQL server needs a Unix system; give TEST_POSTGRES the URL of a running one")
}

// Own does nothing here.
func (Owner) Own(string) error { return nil }

// Run does nothing here.
func (Owner) Run(*exec.Cmd) {}

// Reaches says yes.
func (Owner) Reaches(string) bool { return true }

func detach(*exec.Cmd) {}

var errSignal = errors.New("there are no such signals here")

func kill(int) error   { return errSignal }
func freeze(int) error { return errSignal }
func thaw(int) error   { return errSignal }
func hangUp(int) error { return errSignal }
func quit(int) error   { return errSignal }
