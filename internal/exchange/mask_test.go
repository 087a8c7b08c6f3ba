package exchange

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	m := newMasker(map[string]string{
		"app.key": "demo-key", "app.secret": "demo-secret", "user.password": "demo-secret-2", "other.password": "p",
		"bearer": "the-bearer-token", "account": "0000123456-00001",
	})
	m.read(`{"access_token": "seen-in-an-answer", "expires_in": 5}`)
	tests := []struct{ text, want string }{
		{"POST /a?key=demo-key", "POST /a?key=demo-key"},
		{"demo-secret, demo-secret-2 and the-bearer-token", "***, *** and ***"},
		{"want seen-in-an-answer", "want ***"},
		{`{"username": "lisa", "password": "p"}`, `{"username": "lisa", "password": "***"}`},
		{`{"newPassword":"a\"b","x":1}`, `{"newPassword":"***","x":1}`},
		{`{"password": "12345"}`, `{"password": "***"}`},
		{`{"access_token": "cut o… (5000 bytes)`, `{"access_token": "***"`},
		{`{"access_token": "<text as token>", "sessionToken": ""}`, `{"access_token": "<text as token>", "sessionToken": ""}`},
		{"GET /\nauthorization: Basic abc=\nvz-m2m-token: s 1\nAccept: a", "GET /\nauthorization: Basic ***\nvz-m2m-token: ***\nAccept: a"},
		{"POST /oauth2/revoke\n\ntoken=abc&token_type_hint=x&client_secret=d", "POST /oauth2/revoke\n\ntoken=***&token_type_hint=x&client_secret=***"},
		{"account 0000123456-00001 p", "account 0000123456-00001 p"},
	}
	for _, tt := range tests {
		if got := m.text(tt.text); got != tt.want {
			t.Errorf("text(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

// TestMaskedDiffs: a difference between secrets is still seen to be one.
func TestMaskedDiffs(t *testing.T) {
	m := newMasker(nil)
	tests := []struct{ diff, want Diff }{
		{Diff{"body.sessionToken", `"abc"`, `"abd"`}, Diff{"body.sessionToken", "***", "another value"}},
		{Diff{"body.sessionToken", `"<text as s>"`, `"abd"`}, Diff{"body.sessionToken", `"<text as s>"`, "***"}},
		{Diff{"body.access_token", `"abc"`, absent}, Diff{"body.access_token", "***", absent}},
		{Diff{"body.access_token", `"<text>"`, `5`}, Diff{"body.access_token", `"<text>"`, `5`}},
		{Diff{"callback.password", `"abc"`, `"12"`}, Diff{"callback.password", "***", "another value"}},
		{Diff{"body.comment", `"abc"`, `"abd"`}, Diff{"body.comment", `"abc"`, `"abd"`}},
	}
	for _, tt := range tests {
		if got := m.diff(tt.diff); got != tt.want {
			t.Errorf("diff(%v) = %v, want %v", tt.diff, got, tt.want)
		}
	}
}

// TestResultsHoldNoSecrets looks through a whole result for what went over the
// wire.
func TestResultsHoldNoSecrets(t *testing.T) {
	s := newTiny(t)
	r, err := NewRunner(Config{URL: s.URL, Vars: map[string]string{
		"app.key": "k", "app.secret": "the-app's-secret", "user.name": "u", "user.password": "the-user's-password",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // it has no listener
	x := parse(t, `-- request: log in --
POST /echo

{"username": "${user.name}", "password": "${user.password}"}
-- response --
200

{"sessionToken": "${app.secret}"}
`)
	text, err := json.Marshal(r.Run(t.Context(), x))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"the-app's-secret", "the-user's-password", "Bearer b"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("the result has %q:\n%s", secret, text)
		}
	}
	for _, want := range []string{`POST /echo\nAuthorization: Bearer ***`, `VZ-M2M-Token: ***`, `\"username\": \"u\"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the result has not %q:\n%s", want, text)
		}
	}
}

// TestIssuedElsewhere: a token and a session that the seed has are used as they
// are.
func TestIssuedElsewhere(t *testing.T) {
	vars, err := Variables([]byte("applications:\n  - {token: fixed-token} # app\nusers:\n  - {session: fixed-session} # user\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := newTiny(t)
	r, err := NewRunner(Config{URL: s.URL, Vars: vars})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // it has no listener
	x := parse(t, "-- request --\nGET /a\n-- response --\n200\n\n{}\n")
	if err := x.Check(vars); err != nil {
		t.Error(err)
	}
	if res := r.Run(t.Context(), x); !res.OK() {
		t.Error(res)
	}
	if got := s.last(); s.logins != 0 || !strings.Contains(got, `auth="Bearer fixed-token" token="fixed-session"`) {
		t.Errorf("after %d logins the server got %s, want none and the seed's token and session", s.logins, got)
	}
}

func TestEnter(t *testing.T) {
	s := newTiny(t)
	x := parse(t, "-- request --\nGET /a\n-- response --\n200\n")
	if err := tinyRunner(t, s).Enter(t.Context(), x); err != nil || s.logins != 1 {
		t.Errorf("Enter = %v after %d logins, want nil and 1", err, s.logins)
	}
	s.Close()
	if err := tinyRunner(t, s).Enter(t.Context(), x); err == nil || !strings.Contains(err.Error(), "fetching a token") {
		t.Errorf("Enter = %v of a server that is gone, want an error", err)
	}
}
