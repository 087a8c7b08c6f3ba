package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/store/storetest"
)

// canaryPassword is the password in the URLs of TestDatabasePasswordStaysInside.
const canaryPassword = "canary-database-password"

// databaseURLs are ways to name a database with a password that lead to none: nobody
// answers there, or they are not what they should be.
func databaseURLs(t *testing.T) map[string]string {
	t.Helper()
	urls := map[string]string{
		"nobody there":          "postgres://simlatch:" + canaryPassword + "@127.0.0.1:1/simlatch",
		"two, nobody there":     "postgres://simlatch:" + canaryPassword + "@127.0.0.1:1,127.0.0.1:2/simlatch",
		"in the query":          "postgres://127.0.0.1:1/simlatch?user=simlatch&password=" + canaryPassword,
		"after a bad setting":   "postgres://simlatch:" + canaryPassword + "@127.0.0.1:1/simlatch?sslmode=perhaps",
		"a bad setting, query":  "postgres://127.0.0.1:1/simlatch?sslmode=perhaps&password=" + canaryPassword,
		"a bad escape":          "postgres://simlatch:" + canaryPassword + "%zz@127.0.0.1:1/simlatch",
		"a bad escape, query":   "postgres://127.0.0.1:1/simlatch?password=" + canaryPassword + "%zz",
		"a slash in it":         "postgres://simlatch:/" + canaryPassword + "@127.0.0.1:1/simlatch",
		"a blank in it":         "postgres://simlatch: " + canaryPassword + "@127.0.0.1:1/simlatch",
		"a hash in it":          "postgres://simlatch:x#" + canaryPassword + "@127.0.0.1:1/simlatch",
		"a hash after it":       "postgres://simlatch:" + canaryPassword + "#@127.0.0.1:1/simlatch",
		"a question mark":       "postgres://simlatch:" + canaryPassword + "?x@127.0.0.1:1/simlatch",
		"a question mark first": "postgres://simlatch:?" + canaryPassword + "@127.0.0.1:1/simlatch",
		"a control character":   "postgres://simlatch:\x01" + canaryPassword + "@127.0.0.1:1/simlatch",
		"an at sign in it":      "postgres://simlatch:x@" + canaryPassword + "@127.0.0.1:1/simlatch",
		"a bad port":            "postgres://simlatch:" + canaryPassword + "@127.0.0.1:none/simlatch",
		"a large port":          "postgres://simlatch:" + canaryPassword + "@127.0.0.1:99999/simlatch",
		"a bracket":             "postgres://simlatch:" + canaryPassword + "@[::1/simlatch",
		"another scheme":        "mysql://simlatch:" + canaryPassword + "@127.0.0.1:1/simlatch",
		"no scheme":             "simlatch:" + canaryPassword + "@127.0.0.1:1/simlatch",
		"as words":              "host=127.0.0.1 port=1 user=simlatch password=" + canaryPassword,
		"as words, with scheme": "postgres:host=127.0.0.1 port=1 user=simlatch password=" + canaryPassword,
		"as words, misspelt":    "postgres:host=127.0.0.1 port=x password='" + canaryPassword,
	}
	for _, e := range storetest.Engines(t) {
		if u, err := url.Parse(e.NewDatabase(t).URL); e.Name == "postgres" && err == nil {
			u.User = url.UserPassword(u.User.Username(), canaryPassword)
			urls["a wrong one"] = u.String()
		}
	}
	return urls
}

// TestDatabasePasswordStaysInside gives every command that opens a database the URL of
// one that cannot be opened: nothing of what is printed holds its password.
func TestDatabasePasswordStaysInside(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, database := range databaseURLs(t) {
		t.Run(name, func(t *testing.T) {
			for _, command := range []string{
				"doctor", "doctor --output json", "verify", "verify --audit", "migrate", "migrate --distribute", "pool list", "account list", "device list",
				"application list", "user list", "listener list", "callback list", "stuck list", "policy show --account 0000123456-00001", "operator list", "audit list", "secrets status", "secrets reseal",
				"backup " + filepath.Join(t.TempDir(), "copy"), "serve --carrier simulated --listen 127.0.0.1:0", "serve --workers 0 --listen 127.0.0.1:0",
				"carrier strange", "config show", "config show --output json",
			} {
				args := append(strings.Fields(command), "--secrets-key-file", key, "--database", database)
				status, out, messages := simlatch(t, "", args...)
				settings := strings.HasPrefix(command, "config")
				if status == exitDone && !settings {
					t.Errorf("simlatch %s = 0 with %s:\n%s%s", command, database, out, messages)
				}
				if name == "nobody there" && !settings && !strings.HasPrefix(command, "backup") && !strings.Contains(out+messages, "connect") {
					t.Errorf("simlatch %s did not try:\n%s%s", command, out, messages)
				}
				if strings.Contains(out+messages, canaryPassword) {
					t.Errorf("simlatch %s with %s tells the password:\n%s%s", command, database, out, messages)
				}
			}
		})
	}
}
