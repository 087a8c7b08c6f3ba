package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// TestSandboxExamples: the flags that the examples give the sandbox are its own.
func TestSandboxExamples(t *testing.T) {
	sandbox := newSandboxCommand()
	for _, name := range []string{"github-actions.yml", "compose.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "examples", name))
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		if err := yaml.Unmarshal(text, &doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		line := regexp.MustCompile(`simlatch sandbox(?: .*)?`).FindString(string(text))
		if line == "" {
			t.Errorf("%s starts no sandbox", name)
		}
		for _, m := range regexp.MustCompile(`--([a-z-]+)`).FindAllStringSubmatch(line, -1) {
			if sandbox.Flags().Lookup(m[1]) == nil {
				t.Errorf("%s: simlatch sandbox has no flag --%s", name, m[1])
			}
		}
	}
}

// workflow is what this test reads of a GitHub workflow.
type workflow struct {
	Jobs map[string]struct {
		Steps []struct{ Name, Run string }
	}
}

// step is what a step of examples/github-actions.yml runs.
func (w workflow) step(t *testing.T, name string) string {
	t.Helper()
	for _, s := range w.Jobs["test"].Steps {
		if s.Name == name {
			return s.Run
		}
	}
	t.Fatalf("the workflow has no step %q", name)
	return ""
}

// TestWorkflow runs the steps of examples/github-actions.yml that start the
// sandbox and test against it.
func TestWorkflow(t *testing.T) {
	for _, program := range []string{"sh", "timeout", "jq", "node"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the workflow needs %s: %v", program, err)
		}
	}
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "examples", "github-actions.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var w workflow
	if err := yaml.Unmarshal(text, &w); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("simlatch") // this program, see TestMain
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := w.step(t, "Start the sandbox") + "\ntrap 'kill $!' EXIT\nset -a\n. \"$GITHUB_ENV\"\nset +a\n" + w.step(t, "Test")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu", "-c", script)
	cmd.Dir = root
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, envPrefix) && !strings.HasPrefix(strings.ToLower(v), "http_proxy=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "RUNNER_TEMP="+dir, "GITHUB_ENV="+filepath.Join(dir, "env"),
		"PATH="+filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "unassign: ") {
		log, _ := os.ReadFile(filepath.Join(dir, "simlatch.log")) // it may not have come so far
		t.Errorf("the workflow printed (%v)\n%s\nand the sandbox\n%s", err, out, log)
	}
}
