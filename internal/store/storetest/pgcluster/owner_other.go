//go:build !unix

package pgcluster

import (
	"errors"
	"os/exec"
)

type owner struct{}

func serverOwner() (owner, error) {
	return owner{}, errors.New("a private PostgreSQL server needs a Unix system; give TEST_POSTGRES the URL of a running one")
}

func (owner) own(string) error    { return nil }
func (owner) run(*exec.Cmd)       {}
func (owner) reaches(string) bool { return true }

func detach(*exec.Cmd) {}
