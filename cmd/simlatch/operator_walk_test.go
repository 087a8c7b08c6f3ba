package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOperatorWalk pastes the walk of docs/operator-api.md into shells: the
// server into one, the calls into another.
func TestOperatorWalk(t *testing.T) {
	for _, program := range []string{"sh", "curl", "sed"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the walk needs %s: %v", program, err)
		}
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "operator-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	walk := strings.ReplaceAll(string(text), "127.0.0.1:8080", address)
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(walk, -1)
	dir := t.TempDir()
	program, err := exec.LookPath("simlatch") // this program, see TestMain
	if err == nil {
		err = os.Symlink(program, filepath.Join(dir, "simlatch"))
	}
	if err != nil {
		t.Fatal(err)
	}
	server := startShell(t, dir, nil, "exec "+strings.TrimSpace(blocks[0][1])+" --listen "+address+"\n")
	server.waitFor(t, "ready at ")
	keyboard, typed := io.Pipe()
	calls := startShell(t, dir, keyboard, "")
	for _, b := range blocks[1:] {
		_, _ = io.WriteString(typed, b[1]) // the shell's end tells
	}
	_ = typed.Close()
	if err := calls.wait(); err != nil {
		t.Errorf("the calls ended with %v:\n%s", err, calls)
	}
	for _, want := range []string{
		`{"name":"olga","role":"admin"}`,
		`"name":"0000123456-00001"`,
		`"purchased":500,"reserved":0,"assigned":0,"available":500`,
		`problem:insufficient`,
		`{"list":[{"number":1,"units":500,"reference":"PO-4711","reason":"order of May"`,
		`problem:import`, `"lines":[{"line":3,`,
		`{"added":1,"unchanged":0,"dryRun":false,"warnings":[]}`,
		`"iccid":"89148000000000000012","imei":"490154203237518"`,
		`{"key":"fleet-app","secret":"`,
		`{"name":"ada","password":"`,
		`"state":"suspend"`,
		`problem:precondition`,
		`{"ok":true,"accounts":1,"pools":1,"sims":1,`,
		`"who":"olga","via":"api"`, `"action":"pool.purchase"`,
	} {
		if !strings.Contains(calls.String(), want) {
			t.Errorf("the calls' answers do not have %s", want)
		}
	}
	if t.Failed() {
		t.Logf("the answers:\n%s", calls)
	}
}
