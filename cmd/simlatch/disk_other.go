//go:build !linux && !darwin && !freebsd

package main

import "errors"

// freeSpace is how many bytes an ordinary user can still write in a directory.
func freeSpace(string) (int64, error) {
	return 0, errors.New("how much room there is cannot be asked on this system")
}
