package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// issue gets the application's token and checks that it can be used.
func issue(t *testing.T, a *Authority, secret Secret) Token {
	t.Helper()
	token, err := a.Issue(t.Context(), "app", secret, "192.0.2.1")
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	if app, err := a.Bearer(t.Context(), token.Value); app != "app" || err != nil {
		t.Errorf("Bearer of a token just issued = %q, %v", app, err)
	}
	if token.Expires < time.Second || token.Expires > time.Hour {
		t.Errorf("the token has %v left, want a second to an hour", token.Expires)
	}
	return token
}

func TestTokenOfTheHour(t *testing.T) {
	r, c := newRecords(), newClock()
	a, b := node(t, r, c, nil), node(t, r, c, nil)
	first := issue(t, a, "secret")
	if first.Expires != time.Hour {
		t.Errorf("a new token has %v left, want an hour", first.Expires)
	}
	c.pass(59*time.Minute + 59*time.Second)
	again := issue(t, b, "secret")
	if again.Value != first.Value || again.Expires != time.Second {
		t.Errorf("within the hour another node gives another token, or one with %v left, want the same with 1s", again.Expires)
	}
	c.pass(time.Second - time.Millisecond)
	if _, err := a.Bearer(t.Context(), first.Value); err != nil {
		t.Errorf("Bearer a millisecond before the end: %v", err)
	}
	fresh := issue(t, b, "secret") // less than a second left is none
	if fresh.Value == first.Value || fresh.Expires != time.Hour {
		t.Errorf("at the end of the hour the token is the same, or has %v left", fresh.Expires)
	}
	if _, err := b.Bearer(t.Context(), first.Value); !errors.Is(err, ErrBearer) {
		t.Errorf("Bearer of the token before, where it was replaced = %v, want ErrBearer", err)
	}
	c.pass(rememberFor)
	if _, err := a.Bearer(t.Context(), first.Value); !errors.Is(err, ErrBearer) {
		t.Errorf("Bearer of the token before, on the other node = %v, want ErrBearer", err)
	}
	c.pass(time.Hour - rememberFor)
	if _, err := a.Bearer(t.Context(), fresh.Value); !errors.Is(err, ErrBearer) {
		t.Errorf("Bearer after an hour to the letter = %v, want ErrBearer", err)
	}
	for _, token := range []Secret{"", "x", Secret(HashSecret(fresh.Value))} {
		if _, err := a.Bearer(t.Context(), token); !errors.Is(err, ErrBearer) {
			t.Errorf("Bearer(%q) = %v, want ErrBearer", string(token), err)
		}
	}
}

func TestClockTurnedBack(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	issue(t, a, "secret")
	c.pass(-3 * time.Hour)
	issue(t, a, "secret") // never says more than an hour
}

func TestTokensOfRacingNodes(t *testing.T) {
	r, c := newRecords(), newClock()
	var tokens [8]Token
	var wg sync.WaitGroup
	for i := range tokens {
		a := node(t, r, c, nil)
		wg.Go(func() { tokens[i], _ = a.Issue(context.Background(), "app", "secret", "") })
	}
	wg.Wait()
	for _, token := range tokens {
		if token.Value == "" || token.Value != tokens[0].Value {
			t.Errorf("nodes that race give different tokens")
		}
	}
}

func TestRotatedSecret(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	issue(t, a, "secret")
	// Rotated while a node is giving a token out for the old secret.
	r.change("app", func(app *Application) { app.Nonce, app.TokenHash = "", "" })
	r.lose = func() {
		r.change("app", func(app *Application) { app.SecretHash, app.Nonce = HashSecret("new"), "another" })
	}
	if token, err := a.Issue(t.Context(), "app", "secret", ""); !errors.Is(err, ErrClient) {
		t.Errorf("Issue for a secret that was rotated meanwhile = %v, %v, want ErrClient", token, err)
	}
	issue(t, a, "new")
	// A token of the old secret that was written after the rotation.
	r.change("app", func(app *Application) { app.TokenHash = HashSecret(deriveToken("secret", app.Nonce)) })
	issue(t, a, "new")
	if _, err := a.Bearer(t.Context(), deriveToken("secret", "another")); !errors.Is(err, ErrBearer) {
		t.Errorf("Bearer of a token of the old secret = %v, want ErrBearer", err)
	}
}

func TestRevoke(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	first := issue(t, a, "secret")
	if err := a.Revoke(t.Context(), "app", "wrong", first.Value, ""); !errors.Is(err, ErrClient) {
		t.Errorf("Revoke with a wrong secret = %v, want ErrClient", err)
	}
	for _, token := range []Secret{"", "another"} {
		if err := a.Revoke(t.Context(), "app", "secret", token, ""); err != nil {
			t.Errorf("Revoke of a token that is not: %v", err)
		}
	}
	if err := a.Revoke(t.Context(), "other", "other secret", first.Value, ""); err != nil {
		t.Errorf("Revoke of another application's token: %v", err)
	}
	if got := issue(t, a, "secret"); got.Value != first.Value {
		t.Error("the token changed, though nothing of its own was revoked")
	}
	if err := a.Revoke(t.Context(), "app", "secret", first.Value, ""); err != nil {
		t.Errorf("Revoke: %v", err)
	}
	if _, err := a.Bearer(t.Context(), first.Value); !errors.Is(err, ErrBearer) {
		t.Errorf("Bearer of a revoked token = %v, want ErrBearer", err)
	}
	if got := issue(t, a, "secret"); got.Value == first.Value || got.Expires != time.Hour {
		t.Errorf("after a revoke the token is the same, or has %v left", got.Expires)
	}
}

func TestClientRefusals(t *testing.T) {
	r, c := newRecords(), newClock()
	a := node(t, r, c, nil)
	token := issue(t, a, "secret")
	for _, tt := range []struct {
		key    string
		secret Secret
	}{{"app", "wrong"}, {"app", ""}, {"nobody", "secret"}, {"", ""}, {"other", "secret"}} {
		if _, err := a.Issue(t.Context(), tt.key, tt.secret, ""); !errors.Is(err, ErrClient) {
			t.Errorf("Issue(%q, %q) = %v, want ErrClient", tt.key, string(tt.secret), err)
		}
	}
	r.change("app", func(app *Application) { app.Disabled = true })
	if _, err := a.Issue(t.Context(), "app", "secret", ""); !errors.Is(err, ErrClient) {
		t.Errorf("Issue for a disabled application = %v, want ErrClient", err)
	}
	c.pass(rememberFor)
	if _, err := a.Bearer(t.Context(), token.Value); !errors.Is(err, ErrBearer) {
		t.Errorf("Bearer of a disabled application = %v, want ErrBearer", err)
	}
}

func TestCallerAccount(t *testing.T) {
	one := Caller{Accounts: []license.AccountName{"0000123456-00001"}}
	two := Caller{Accounts: []license.AccountName{"0000123456-00001", "ABC"}}
	for _, tt := range []struct {
		caller Caller
		name   string
		want   license.AccountName
		err    error
	}{
		{one, "", "0000123456-00001", nil},
		{two, "", "", license.ErrMultiple},
		{Caller{}, "", "", license.ErrNoAccounts},
		{two, "000012345600001", "0000123456-00001", nil},
		{two, "0000-1234-5600001", "0000123456-00001", nil},
		{two, "ABC", "ABC", nil},
		{two, "abc", "", license.ErrNotFound},
		{one, "ABC", "", license.ErrNotFound},
		{one, "-", "", license.ErrNotFound},
	} {
		if got, err := tt.caller.Account(tt.name); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Account(%q) of %v = %q, %v, want %q, %v", tt.name, tt.caller.Accounts, got, err, tt.want, tt.err)
		}
	}
}

func TestSecretsStayOutOfSight(t *testing.T) {
	const text = "hunter2"
	secret := Secret(text)
	caller := Caller{User: "user", Session: secret}
	shown := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		shown[verb] = fmt.Sprintf(verb+" "+verb+" "+verb, secret, caller, &caller)
	}
	b, err := json.Marshal(caller)
	shown["json"] = string(b)
	if err != nil {
		t.Errorf("encoding a caller: %v", err)
	}
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(handler(&b)).Info("login", "secret", secret, "caller", caller, "token", Token{Value: secret},
			slog.Group("group", "secret", secret), "list", []Secret{secret})
		shown[name+" log"] = b.String()
	}
	hex := fmt.Sprintf("%x", text)
	for how, s := range shown {
		if strings.Contains(s, text) || strings.Contains(s, hex) {
			t.Errorf("%s shows the secret: %s", how, s)
		}
		if how != "%x" && !strings.Contains(s, "redacted") {
			t.Errorf("%s = %s, want it to say that something is hidden", how, s)
		}
	}
}
