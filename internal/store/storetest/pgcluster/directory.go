package pgcluster

import (
	"errors"
	"fmt"
	"os"
)

// longest is the most characters a temporary directory's name may have for the
// socket in it to have a name the kernel takes (107 characters).
const longest = 60

// directory makes the directory of a cluster, where its owner can get at it.
func directory(who Owner) (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if len(parent) > longest || !who.Reaches(parent) {
			continue
		}
		dir, err := os.MkdirTemp(parent, "simlatch-pg-")
		if err != nil {
			continue
		}
		if err := who.Own(dir); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
		return dir, nil
	}
	return "", fmt.Errorf("no temporary directory for a test server: tried %s, /tmp and /var/tmp", os.TempDir())
}
