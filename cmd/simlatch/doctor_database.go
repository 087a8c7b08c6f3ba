package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/internal/store"
)

// How much room there should be beside a SQLite database.
const (
	diskWarn = 1 << 30
	diskFail = 100 << 20
)

// lookAtDatabase makes the checks of who runs a server. Without a database that
// is named or there, there is nothing to look at.
func (d *doctor) lookAtDatabase(cmd *cobra.Command) {
	checks := []string{"database", "migrations", "engine", "key", "disk"}
	cfg := databaseOf(cmd)
	path, isFile := server.SQLitePath(cfg.URL)
	if isFile {
		_, err := os.Stat(path)
		named := cmd.Flags().Changed("database")
		switch {
		case errors.Is(err, fs.ErrNotExist) && named:
			d.fail("database", "simlatch migrate makes it, or simlatch serve", "there is none at %s", path)
			d.skip("there is no database", checks[1:]...)
			return
		case errors.Is(err, fs.ErrNotExist):
			d.skip("none is named, and there is none at "+path, checks...)
			return
		}
	}
	opened := d.within(cmd.Context(), func(ctx context.Context) bool { return d.lookAtStore(ctx, cfg) })
	if !opened {
		d.skip("the database cannot be opened", "migrations", "engine")
	}
	d.lookAtKey(cfg)
	if isFile {
		d.lookAtDisk(path)
	} else {
		d.skip("PostgreSQL keeps its own", "disk")
	}
}

// lookAtStore opens the database, which makes and migrates nothing.
func (d *doctor) lookAtStore(ctx context.Context, cfg databaseConfig) bool {
	start := time.Now()
	s, err := store.Open(ctx, cfg.URL, store.Options{})
	if err != nil {
		d.fail("database", "look whether --database is right, and its owner the user who runs this", "%v", err)
		return false
	}
	defer s.Close() //nolint:errcheck // nothing was written
	path, isFile := server.SQLitePath(cfg.URL)
	files := openFiles(path)
	if isFile && len(files) > 0 {
		d.warn("database", "chmod 600 "+files[0], "others may read %s", files[0])
	} else {
		d.ok("database", "%s was opened in %s", hidden(cfg.URL), time.Since(start).Round(time.Millisecond))
	}
	switch err := s.Migrated(ctx); {
	case errors.Is(err, store.ErrSchema):
		d.fail("migrations", "simlatch migrate, or simlatch serve", "the schema is not that of this program")
	case err != nil:
		d.fail("migrations", "", "%v", err)
	default:
		d.ok("migrations", "the schema is up to date")
	}
	if version, err := s.EngineVersion(ctx); err != nil {
		d.fail("engine", "", "%v", err)
	} else {
		d.ok("engine", "%s", version)
	}
	return true
}

// openFiles are the files of a SQLite database that others may read.
func openFiles(path string) (files []string) {
	if runtime.GOOS == "windows" { // where the mode does not say
		return nil
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".key"} {
		if info, err := os.Stat(path + suffix); err == nil && info.Mode().Perm()&0o077 != 0 {
			files = append(files, path+suffix)
		}
	}
	return files
}

func (d *doctor) lookAtKey(cfg databaseConfig) {
	_, err := server.OpenSealer(cfg.URL, cfg.SecretsKeyFile, false)
	switch {
	case cfg.SecretsKeyFile == "" && errors.Is(err, server.ErrNoKeyFile):
		d.warn("key", "name the nodes' key with --secrets-key-file", "it is not known here: stored secrets cannot be read")
	case cfg.SecretsKeyFile == "" && errors.Is(err, fs.ErrNotExist):
		d.warn("key", "simlatch serve makes it; or name it with --secrets-key-file", "there is none beside the database")
	case err != nil:
		d.fail("key", "", "%v", err)
	default:
		d.ok("key", "it can be read")
	}
}

func (d *doctor) lookAtDisk(path string) {
	free, err := freeSpace(filepath.Dir(path))
	if err != nil {
		d.skip(err.Error(), "disk")
		return
	}
	var used int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(path + suffix); err == nil {
			used += info.Size()
		}
	}
	what := fmt.Sprintf("%s free beside a database of %s", bytesText(free), bytesText(used))
	const remedy = "make room; commits fail when there is none left"
	switch {
	case free < diskFail:
		d.fail("disk", remedy, "%s", what)
	case free < diskWarn || free < used/4:
		d.warn("disk", remedy, "%s", what)
	default:
		d.ok("disk", "%s", what)
	}
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d KiB", (n+1023)>>10)
}
