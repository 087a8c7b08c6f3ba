//go:build !linux

package store

import "syscall"

// setUserTimeout does nothing where there is no such setting: deadlines and
// keepalives find out too, a little later.
func setUserTimeout(string, string, syscall.RawConn) error { return nil }
