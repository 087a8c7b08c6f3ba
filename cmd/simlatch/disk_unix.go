//go:build linux || darwin || freebsd

package main

import (
	"fmt"
	"syscall"
)

// freeSpace is how many bytes an ordinary user can still write in a directory.
func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("asking how much room there is in %s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert,gosec // the types differ between systems, and no disk is that large
}
