package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// gated is a carrier that does everything, once its gate is open.
type gated chan struct{}

func (g gated) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	select {
	case <-g:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	out := make([]license.Outcome, len(tasks))
	for i, task := range tasks {
		out[i] = license.Outcome{Task: task, Verdict: license.Done}
	}
	return out, nil
}

// refuseBytes has the kernel refuse each byte that this process would write to a
// file, as it does with the open files of a file system that it made read-only after
// an error. No file system with files open for writing can be remounted so by hand.
func refuseBytes(t *testing.T, _ string) (restore func()) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Error(err)
		}
	}
}

// makeImmutable has it refuse what refuseBytes does for the database's files only, and
// to open them for writing as well.
func makeImmutable(t *testing.T, database string) (restore func()) {
	files := []string{database, database + "-wal"}
	set := func(how string) error {
		out, err := exec.CommandContext(context.Background(), "chattr", append([]string{how}, files...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("chattr %s: %w: %s", how, err, out)
		}
		return nil
	}
	restore = func() {
		if err := set("-i"); err != nil {
			t.Error(err)
		}
	}
	if err := set("+i"); err != nil {
		_ = set("-i") // of what was made so
		t.Skipf("it takes root and a file system that knows immutable files: %v", err)
	}
	// Not every file system (tmpfs does not) holds files that are open to it.
	open, err := os.OpenFile(database, os.O_WRONLY, 0)
	if err == nil {
		_ = open.Close()
		restore()
		t.Skip("this file system lets immutable files be opened for writing")
	}
	return restore
}

// TestReadOnly has the database of a running server become read-only, with work at the
// carrier: writes are answered 503, reads go on, readiness says why, and when it can be
// written again, all that was acknowledged ends, without a restart.
func TestReadOnly(t *testing.T) {
	for name, freeze := range map[string]func(*testing.T, string) func(){"bytes refused": refuseBytes, "files immutable": makeImmutable} {
		t.Run(name, func(t *testing.T) {
			cfg := sqliteConfig(t)
			withFleet(t, &cfg, 20)
			carrier := make(gated)
			cfg.Carrier, cfg.Provisioner = "gated", carrier
			r := startServer(t, cfg)
			c := r.login(t)
			listener := c.listen(nil)
			path, _ := SQLitePath(cfg.Database)
			assign := func(key string, first int) (int, http.Header, []byte) {
				t.Helper()
				status, header, body, err := c.try(http.MethodPost, "/devices/license/actions/assign", key, licenseRequest("SIMSec-IoT", fleet(first, 10)...))
				if err != nil {
					t.Fatal(err)
				}
				return status, header, body
			}
			if status, _, body := assign("acknowledged", 0); status != http.StatusOK {
				t.Fatalf("before: %d %s", status, body)
			}
			restore := freeze(t, path)
			frozen := true
			thaw := func() {
				if frozen {
					frozen = false
					restore()
				}
			}
			t.Cleanup(thaw)
			close(carrier) // whose outcomes cannot be written down
			for range 3 {
				status, header, body := assign("refused", 10)
				if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
					t.Errorf("a write of what is read-only: %d %v %s, want 503 with Retry-After", status, header, body)
				}
			}
			if p := c.pool("SIMSec-IoT"); p.LicensePurchased-p.LicenseAvailable != 10 {
				t.Errorf("read while nothing can be written: %+v, want 10 in use", p)
			}
			if got := r.getJSON(t, "/readyz", http.StatusServiceUnavailable)["reason"]; got != "the database cannot be written: its disk is full or read-only" {
				t.Errorf("/readyz gives as its reason %q", got)
			}
			r.getJSON(t, "/healthz", http.StatusOK) // a new process would help nobody
			thaw()
			eventually(t, "it is ready again by itself", func() bool { return r.unready(t.Context()) == "" })
			if status, _, body := assign("refused", 10); status != http.StatusOK {
				t.Errorf("when it can be written again: %d %s", status, body)
			}
			listener.wait(t, 20)
			eventually(t, "all is settled", func() bool { return c.pool("SIMSec-IoT").LicenseAssigned == 20 })
			noDrift(t, r)
		})
	}
}

// TestStartReadOnly starts on a file system that is mounted read-only, with a database
// and without one.
func TestStartReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("simlatch", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("mounting takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	cfg := Config{Database: "sqlite:" + filepath.Join(dir, "simlatch.db"), Seed: writeFile(t, t.TempDir(), "seed.yaml", goodSeed)}
	if err := startServer(t, cfg).end(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("simlatch", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=16m"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"simlatch.db", "new.db"} {
		cfg.Database = "sqlite:" + filepath.Join(dir, file)
		_, err := tryServer(t, cfg)
		fails(t, err, file)
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("starting on a read-only file system: %v, want %v", err, syscall.EROFS)
		}
	}
}
