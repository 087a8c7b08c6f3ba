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

var errSignal = errors.New("there are no such signals here")

func kill(int) error   { return errSignal }
func freeze(int) error { return errSignal }
func thaw(int) error   { return errSignal }
func hangUp(int) error { return errSignal }
