package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// changedBy names the files below root that do adds, changes or removes, and
// puts all of them back.
func changedBy(root string, do func() error) ([]string, error) {
	before, err := snapshot(root)
	if err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	after, err := snapshot(root)
	if err != nil {
		return nil, err
	}
	var changed []string
	for name, text := range after {
		if old, ok := before[name]; !ok || !bytes.Equal(old, text) {
			changed = append(changed, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	return changed, restore(changed, before)
}

// snapshot reads every file below root but those of git and what is built.
func snapshot(root string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin"):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		files[name], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the tree: %w", err)
	}
	return files, nil
}

func restore(names []string, files map[string][]byte) error {
	var errs []error
	for _, name := range names {
		if text, ok := files[name]; ok {
			errs = append(errs, os.WriteFile(name, text, 0o644))
		} else {
			errs = append(errs, os.Remove(name))
		}
	}
	return errors.Join(errs...)
}
