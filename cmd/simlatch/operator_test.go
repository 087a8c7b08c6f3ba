package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/m2m"
)

// operated is a running server and the operator's commands on its database.
type operated struct {
	t        *testing.T
	url      string
	database string
}

func startOperated(t *testing.T) operated {
	t.Helper()
	database := "sqlite:" + filepath.Join(t.TempDir(), "test.db")
	srv, err := server.New(t.Context(), server.Config{Listen: "127.0.0.1:0", Database: database, Carrier: server.CarrierSimulated})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return operated{t: t, url: srv.URL(), database: database}
}

// do runs a command, which must succeed, and returns what it printed.
func (o operated) do(stdin string, args ...string) string {
	o.t.Helper()
	status, out, messages := simlatch(o.t, stdin, append(args, "--database", o.database)...)
	if status != exitDone {
		o.t.Fatalf("simlatch %s ended with %d: %s", strings.Join(args, " "), status, messages)
	}
	return out
}

// client calls as an application and a user.
func (o operated) client(key, secret, user, password string) *m2m.Client {
	o.t.Helper()
	c, err := m2m.New(m2m.Config{BaseURL: o.url, Key: key, Secret: secret, Username: user, Password: password})
	if err != nil {
		o.t.Fatal(err)
	}
	return c
}

// wantCode checks that err is the API's error with that code.
func (o operated) wantCode(what string, err error, code string) {
	o.t.Helper()
	var refused *m2m.Error
	if !errors.As(err, &refused) || refused.Code != code {
		o.t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// soon asks until it is told yes, for as long as a server may remember who calls
// and then some; false when it never is.
func soon(ask func() bool) bool {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); {
		if ask() {
			return true
		}
	}
	return false
}

const operatedAccount = "0000123456-00001"

func assignOne(iccid, imei string) m2m.LicenseRequest {
	return m2m.LicenseRequest{SKUNumber: string(license.SKUFlexible), Devices: []m2m.Device{
		{DeviceIDs: []m2m.DeviceID{{ID: imei, Kind: "imei"}, {ID: iccid, Kind: "iccid"}}},
	}}
}

// TestOperatorBesideServer changes an installation while it runs: each change
// counts from the next call on, or within a second where it is about who calls.
func TestOperatorBesideServer(t *testing.T) {
	o := startOperated(t)
	o.do("", "account", "add", operatedAccount)
	o.do("", "pool", "add", "--account", operatedAccount, "--sku", "SIMSec-IoT", "--units", "1", "--reason", "test")
	o.do("iccid,imei\n89148000000000000012,490154203237518\n89148000000000000020,490154203237526\n",
		"device", "import", "-", "--account", operatedAccount)
	o.do("correct horse\n", "user", "add", "ada", "--account", operatedAccount, "--password-file", "-")
	fields := strings.Fields(o.do("", "application", "add")) // key KEY secret SECRET
	key, secret := fields[1], fields[3]

	c := o.client(key, secret, "ada", "correct horse")
	first, second := assignOne("89148000000000000012", "490154203237518"), assignOne("89148000000000000020", "490154203237526")
	if _, err := c.Assign(t.Context(), first); err != nil {
		t.Fatalf("assigning with what the commands added: %v", err)
	}

	// More licenses, and a SIM that is suspended in between.
	_, err := c.Assign(t.Context(), second)
	o.wantCode("a second SIM with one license", err, m2m.ErrInsufficientLicense.Code)
	o.do("", "pool", "add", "--account", operatedAccount, "--sku", "SIMSec-IoT", "--units", "1", "--reason", "one more")
	o.do("", "device", "set-state", "--account", operatedAccount, "--state", "suspend", "89148000000000000020")
	_, err = c.Assign(t.Context(), second)
	o.wantCode("a suspended SIM", err, m2m.CodeDeviceState)
	o.do("", "device", "set-state", "--account", operatedAccount, "--state", "active", "89148000000000000020")
	if _, err := c.Assign(t.Context(), second); err != nil {
		t.Errorf("after the SIM was made active again: %v", err)
	}
	if got := o.do("", "device", "list", "--iccid", "89148000000000000012", "--output", "jsonl"); !strings.Contains(got, `"sku":"SIMSec-IoT"`) {
		t.Errorf("device list printed %s, want the license", got)
	}

	// Access that is taken away, and given back.
	o.do("", "user", "grant", "ada", "--none")
	subscriptions := func() error {
		_, err := c.Subscriptions(t.Context(), operatedAccount, "")
		return err
	}
	soon(func() bool { err = subscriptions(); return err != nil })
	o.wantCode("without access", err, m2m.CodeAccountNotFound)
	o.do("", "user", "grant", "ada", "--account", operatedAccount)
	if !soon(func() bool { err = subscriptions(); return err == nil }) {
		t.Errorf("with access again: %v", err)
	}

	// A new secret and a new password end the old ones.
	rotated := strings.Fields(o.do("", "application", "rotate", key))[3]
	if _, err := o.client(key, secret, "ada", "correct horse").Token(t.Context()); err == nil {
		t.Error("the old secret still buys a token")
	}
	o.do("battery staple\n", "user", "password", "ada", "--password-file", "-")
	o.wantCode("the old password", o.client(key, rotated, "ada", "correct horse").Login(t.Context()), m2m.CodeAuthentication)
	if err := o.client(key, rotated, "ada", "battery staple").Login(t.Context()); err != nil {
		t.Errorf("the new secret and password: %v", err)
	}
	if got := o.do("", "verify"); !strings.Contains(got, "the ledger is right") {
		t.Errorf("verify printed %s", got)
	}
}

func TestSecretSource(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "from a file\r\n")
	for _, c := range []struct {
		name, file, stdin string
		env               map[string]string
		want, wantError   string
	}{
		{name: "file", file: good, want: "from a file"},
		{name: "standard input", file: "-", stdin: "typed\n", want: "typed"},
		{name: "spaces stay", file: "-", stdin: " a b \n", want: " a b "},
		{name: "variable", env: map[string]string{"TEST_SECRET": "in the open"}, want: "in the open"},
		{name: "variable names a file", env: map[string]string{"TEST_SECRET_FILE": good}, want: "from a file"},
		{name: "the flag wins", file: good, env: map[string]string{"TEST_SECRET": "in the open"}, want: "from a file"},
		{name: "nothing", wantError: "no word: standard input is not a terminal"},
		{name: "empty", file: "-", stdin: "\n", wantError: "is empty"},
		{name: "two lines", file: "-", stdin: "a\nb\n", wantError: "more than one line"},
		{name: "long", file: "-", stdin: strings.Repeat("x", maxSecret+1), wantError: "longer than"},
		{name: "no such file", file: filepath.Join(dir, "none"), wantError: "reading the word"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			s := secretSource{what: "word", file: c.file, flag: "word-file", env: "TEST_SECRET"}
			got, err := s.read(strings.NewReader(c.stdin), nil)
			if string(got) != c.want || (err == nil) != (c.wantError == "") || err != nil && !strings.Contains(err.Error(), c.wantError) {
				t.Errorf("read = %q, %v, want %q and an error with %q", string(got), err, c.want, c.wantError)
			}
		})
	}
}
