package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// A release is a simlatch program, of some version.
type release struct{ name, program string }

// releases builds the previous release and this tree. While nothing was released
// the last commit is the previous release, so that what the tests do is tested.
func releases(t *testing.T) (old, this release) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	tag, err := previousRelease(t.Context(), root)
	if err != nil {
		t.Skipf("there is no previous release to test with: %v", err)
	}
	if tag == "" {
		t.Log("nothing was released yet (no tag vX.Y.Z before the last commit): the last commit stands for the previous release")
		tag = "HEAD"
		changed, err := git(t.Context(), root, "diff", "--name-only", "--diff-filter=a", "HEAD", "--", "internal/store/migrations")
		if err != nil {
			t.Fatal(err)
		}
		if changed != "" {
			t.Skipf("the schema of the last commit, which nobody has, was changed in place: %s", changed)
		}
	}
	dir := t.TempDir()
	source, packed := filepath.Join(dir, "source"), filepath.Join(dir, "source.tar")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"git", "-C", root, "archive", "--output", packed, tag}, {"tar", "-x", "-f", packed, "-C", source}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	old, this = release{tag, filepath.Join(dir, "old")}, release{"this tree", filepath.Join(dir, "this")}
	var builds sync.WaitGroup
	builds.Go(func() { old.build(t, source) })
	builds.Go(func() { this.build(t, root) })
	builds.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return old, this
}

// build is that of "make build". Without paths in it, it finds all that has not
// changed in the cache, wherever it stands.
func (r release) build(t *testing.T, source string) {
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", r.program, "./cmd/simlatch")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("building %s: %v\n%s", r.name, err, out)
	}
}

var releaseTag = regexp.MustCompile(`^v\d+\.\d+\.\d+$`)

// previousRelease is the tag of the newest release that the last commit of root
// has in its past, itself not counted; empty when there is none. It fails where
// root is not the top of a checkout.
func previousRelease(ctx context.Context, root string) (string, error) {
	prefix, err := git(ctx, root, "rev-parse", "--show-prefix")
	if err == nil && prefix != "" {
		err = errors.New("the tree is a part of another")
	}
	if err != nil {
		return "", fmt.Errorf("this is no checkout: %w", err)
	}
	tags, err := git(ctx, root, "tag", "--list", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-version:refname")
	for tag := range strings.Lines(tags) {
		if tag = strings.TrimSpace(tag); releaseTag.MatchString(tag) {
			return tag, nil
		}
	}
	return "", err
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).CombinedOutput()
	said := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, said)
	}
	return said, nil
}

func TestPreviousRelease(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	if tag, err := previousRelease(t.Context(), dir); err == nil {
		t.Errorf("where nothing is checked out, the previous release is %q, want an error", tag)
	}
	do := func(args ...string) {
		t.Helper()
		if _, err := git(t.Context(), dir, args...); err != nil {
			t.Fatal(err)
		}
	}
	commit := func(tags ...string) {
		t.Helper()
		do("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false", "commit", "--allow-empty", "--quiet", "-m", "a")
		for _, tag := range tags {
			do("tag", tag)
		}
	}
	want := func(want string) {
		t.Helper()
		if tag, err := previousRelease(t.Context(), dir); err != nil || tag != want {
			t.Errorf("the previous release is %q, %v; want %q", tag, err, want)
		}
	}
	do("init", "--quiet")
	commit("v0.1.0") // the commit at hand
	want("")
	commit("v0.9.0", "v0.10.0-rc.1", "bench-v3.0.0")
	commit()
	want("v0.9.0")
	commit("v0.10.0")
	want("v0.9.0")
	commit("v0.11.0")
	want("v0.10.0")
	do("checkout", "--quiet", "v0.10.0")
	want("v0.9.0") // the others are in its future
}

// serve starts a node in a process of its own on the database of cfg, with its
// seed.
func (r release) serve(t *testing.T, cfg Config, flags ...string) *node {
	t.Helper()
	args := []string{
		"serve", "--carrier", CarrierSimulated, "--listen", "127.0.0.1:0",
		"--callback-allow", "127.0.0.0/8", "--callback-interval", "1s", "--grace", "2s",
	}
	if cfg.Seed != "" {
		args = append(args, "--seed", cfg.Seed)
	}
	return runProcess(t, r.name, r.command(cfg, append(args, flags...)...))
}

// verify has the program look at the ledger.
func (r release) verify(t *testing.T, cfg Config) {
	t.Helper()
	if out, err := r.command(cfg, "verify").CombinedOutput(); err != nil {
		t.Errorf("verify of %s: %v\n%s", r.name, err, out)
	}
}

// command is the program with what it must know of the database.
func (r release) command(cfg Config, args ...string) *exec.Cmd {
	args = append(args, "--database", cfg.Database)
	if cfg.SecretsKeyFile != "" {
		args = append(args, "--secrets-key-file", cfg.SecretsKeyFile)
	}
	cmd := exec.Command(r.program, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SIMLATCH_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}
