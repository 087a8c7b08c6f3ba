//go:build unix

package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Owner is who runs the server and owns its files. The zero value is the user
// we are.
type Owner struct {
	uid, gid int
	other    bool // not the user we are
}

// ServerOwner is the user we are, or for root, whom PostgreSQL refuses to
// serve, one who may do little else.
func ServerOwner() (Owner, error) {
	if os.Geteuid() != 0 {
		return Owner{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid != 0 {
			return Owner{uid: uid, gid: gid, other: true}, nil
		}
	}
	return Owner{}, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it")
}

// Own gives a file we made to the owner.
func (o Owner) Own(name string) error {
	if !o.other {
		return nil
	}
	if err := os.Chown(name, o.uid, o.gid); err != nil {
		return fmt.Errorf("giving a file to the test server: %w", err)
	}
	return nil
}

// Run makes cmd run as the owner.
func (o Owner) Run(cmd *exec.Cmd) {
	if o.other {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}}
	}
}

// Reaches reports whether the owner may pass through dir and all above it.
func (o Owner) Reaches(dir string) bool {
	if !o.other {
		return true
	}
	for {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// detach puts cmd in a session of its own, so that signals from a terminal do
// not reach it.
func detach(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setsid = true
}

func kill(pid int) error   { return signal(pid, syscall.SIGKILL) }
func freeze(pid int) error { return signal(pid, syscall.SIGSTOP) }
func thaw(pid int) error   { return signal(pid, syscall.SIGCONT) }
func hangUp(pid int) error { return signal(pid, syscall.SIGHUP) }
func quit(pid int) error   { return signal(pid, syscall.SIGQUIT) }

// signal sends a signal to one process.
func signal(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil {
		return fmt.Errorf("sending %v to the test server: %w", s, err)
	}
	return nil
}
