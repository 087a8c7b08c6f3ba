package auth

import (
	"errors"
	"testing"
	"time"
)

// TestOverlap: two secrets of an application buy a token each, the old one's until
// it ends; no other secret does.
func TestOverlap(t *testing.T) {
	r, clock := newRecords(), newClock()
	a := node(t, r, clock, nil)
	ctx, ends := t.Context(), clock.Now().Add(10*time.Minute)
	before, err := a.Issue(ctx, "app", "secret", "")
	if err != nil {
		t.Fatal(err)
	}
	old := r.applications["app"]
	old.Ends = ends
	r.old = map[string]Application{"app": old}
	r.applications["app"] = Application{Key: "app", SecretHash: HashSecret("new secret"), OldUntil: ends}
	a.tokens.forget()

	same, err := a.Issue(ctx, "app", "secret", "")
	if err != nil || same.Value != before.Value || same.Expires != 10*time.Minute {
		t.Errorf("the old secret's token: %+v, %v; want the one before, for ten minutes", same, err)
	}
	fresh, err := a.Issue(ctx, "app", "new secret", "")
	if err != nil || fresh.Value == before.Value || fresh.Expires != time.Hour {
		t.Errorf("the new secret's token: %+v, %v", fresh, err)
	}
	for _, token := range []Secret{before.Value, fresh.Value} {
		if key, err := a.Bearer(ctx, token); err != nil || key != "app" {
			t.Errorf("a token of two: %q, %v", key, err)
		}
	}
	if err := a.Revoke(ctx, "app", "secret", before.Value, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Bearer(ctx, before.Value); !errors.Is(err, ErrBearer) {
		t.Errorf("revoked: %v, want ErrBearer", err)
	}
	again, err := a.Issue(ctx, "app", "secret", "")
	if err != nil || again.Value == before.Value || again.Expires != 10*time.Minute {
		t.Errorf("after a revocation: %+v, %v", again, err)
	}
	if _, err := a.Issue(ctx, "app", "neither", ""); !errors.Is(err, ErrClient) {
		t.Errorf("neither secret: %v, want ErrClient", err)
	}
	clock.pass(10 * time.Minute)
	if _, err := a.Issue(ctx, "app", "secret", ""); !errors.Is(err, ErrClient) {
		t.Errorf("the old secret at its end: %v, want ErrClient", err)
	}
	if _, err := a.Bearer(ctx, again.Value); !errors.Is(err, ErrBearer) {
		t.Errorf("its token: %v, want ErrBearer", err)
	}
	if _, err := a.Bearer(ctx, fresh.Value); err != nil {
		t.Errorf("the new secret's token: %v", err)
	}
}
