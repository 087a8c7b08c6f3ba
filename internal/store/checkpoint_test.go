package store

import (
	"strings"
	"testing"
	"time"
)

// What is committed is copied from the log beside the writer, which does not have
// to come to its own checkpoint for it.
func TestCheckpointer(t *testing.T) {
	s, err := Open(t.Context(), "sqlite:"+t.TempDir()+"/log.db", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const pages = checkpointPages + checkpointPages/2 // far from 8000
	value := strings.Repeat("x", 4096*pages/10)
	for i := range 10 {
		err := s.write(t.Context(), "0000123456-00001", 1, func(tx *tx) error {
			_, err := tx.exec(`INSERT INTO setting (name, value) VALUES ($1, $2)`, i, value)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(checkpointPause)
	defer tick.Stop()
	for range tick.C {
		left, err := s.group.checkpointer.pragma(`PRAGMA wal_checkpoint(NOOP)`)
		if err != nil {
			t.Fatal(err)
		}
		if left < checkpointPages {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d pages of the log are still to be copied", left)
		}
	}
}
