package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// reproduce builds the program from two copies of the tree, in directories of
// other names and with another home, temporary directory, user and time zone, and
// compares the hashes. Anew, each build compiles everything by itself, the
// standard library too, which takes some minutes; otherwise both share what is
// compiled already, and link.
func reproduce(ctx context.Context, anew bool) (err error) {
	root, err := os.MkdirTemp("", "simlatch-reproduce-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	dirs := []string{filepath.Join(root, "one"), filepath.Join(root, "the", "other one")}
	for _, dir := range dirs { // both first, since the tree may be worked on
		if err := copyTree(ctx, dir); err != nil {
			return err
		}
	}
	var hashes [2]string
	for i, dir := range dirs {
		if hashes[i], err = build(ctx, dir, i, anew); err != nil {
			return err
		}
		fmt.Printf("%s  simlatch, built in %s\n", hashes[i], dir)
	}
	if hashes[0] != hashes[1] {
		return errors.New("two builds of one tree are not the same")
	}
	return nil
}

// copyTree copies the files of the tree, without its history.
func copyTree(ctx context.Context, to string) error {
	list, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("listing the files of the tree: %w", err)
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if strings.Contains(name, "testdata/") && !strings.HasSuffix(name, ".go") {
			continue
		}
		info, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) { // deleted and not yet committed
			continue
		}
		if err != nil {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, text, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// build has "make build" build in a directory and returns the program's hash.
func build(ctx context.Context, dir string, turn int, anew bool) (string, error) {
	c := exec.CommandContext(ctx, "make", "build")
	c.Dir = dir
	caches, err := exec.CommandContext(ctx, "go", "env", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		return "", err
	}
	cache, modules, _ := strings.Cut(strings.TrimSpace(string(caches)), "\n")
	if anew {
		cache = filepath.Join(dir, ".cache")
	}
	own := filepath.Join(dir, ".home")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return "", err
	}
	c.Env = append(os.Environ(), "GOCACHE="+cache, "GOMODCACHE="+modules, "HOME="+own, "TMPDIR="+own,
		"USER="+[]string{"one", "other"}[turn], "TZ="+[]string{"UTC", "Asia/Tokyo"}[turn])
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("building in %s: %w\n%s", dir, err, said.String())
	}
	program, err := os.Open(filepath.Join(dir, "bin", "simlatch"))
	if err != nil {
		return "", err
	}
	defer program.Close()
	h := sha256.New()
	if _, err := io.Copy(h, program); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
