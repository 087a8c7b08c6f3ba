package api

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/m2m"
)

// maxScope is the longest scope that is echoed.
const maxScope = 1024

// token issues an application's bearer token. Scopes mean nothing here, but
// some clients need theirs in the answer.
func (a *API) token(ctx context.Context, c *call, form url.Values) (m2m.TokenAnswer, error) {
	switch form.Get("grant_type") {
	case "client_credentials":
	case "":
		return m2m.TokenAnswer{}, errTokenRequest("Missing grant_type parameter value")
	default:
		return m2m.TokenAnswer{}, errTokenRequest("Unsupported grant_type value")
	}
	scope := form.Get("scope")
	if !validScope(scope) {
		return m2m.TokenAnswer{}, errScope()
	}
	key, secret := c.client()
	t, err := a.cfg.Auth.Issue(ctx, key, secret, c.address())
	if err != nil {
		return m2m.TokenAnswer{}, err
	}
	c.Application = key
	return m2m.TokenAnswer{
		AccessToken: string(t.Value), TokenType: "Bearer",
		ExpiresIn: max(1, int64(t.Expires/time.Second)), Scope: scope,
	}, nil
}

// validScope reports whether s is a scope by RFC 6749, 3.3, or empty.
func validScope(s string) bool {
	return len(s) <= maxScope && strings.IndexFunc(s, func(r rune) bool {
		return r < ' ' || r > '~' || r == '"' || r == '\\'
	}) < 0
}

// revoke ends the application's token, which the answer names in a header as
// the reference does.
func (a *API) revoke(ctx context.Context, c *call, form url.Values) (m2m.RevokeAnswer, error) {
	token := form.Get("token")
	if token == "" {
		return m2m.RevokeAnswer{}, errTokenRequest("Missing token parameter value")
	}
	key, secret := c.client()
	if err := a.cfg.Auth.Revoke(ctx, key, secret, auth.Secret(token), c.address()); err != nil {
		return m2m.RevokeAnswer{}, err
	}
	c.Application = key
	c.w.Header().Set("RevokedAccessToken", requestID(token))
	return m2m.RevokeAnswer{Revoked: true}, nil
}
