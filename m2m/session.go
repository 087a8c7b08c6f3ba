package m2m

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// Token returns the OAuth2 token, fetching one where there is none yet. Like
// Login it asks the server also when that has refused the credentials before.
func (c *Client) Token(ctx context.Context) (string, error) {
	c.forgive()
	token, _, err := c.credentials(ctx, false)
	return token, err
}

// Revoke ends the token. The next call fetches another one.
func (c *Client) Revoke(ctx context.Context) error {
	c.mu.Lock()
	token := c.token
	c.token = ""
	c.mu.Unlock()
	if token == "" {
		return nil
	}
	return c.send(ctx, call{
		method: http.MethodPost, full: TokenPrefix + "/oauth2/revoke",
		form: url.Values{"grant_type": {"client_credentials"}, "token": {token}},
	}, "", "")
}

// Login opens a new session, which following calls use. Calls do so by
// themselves; Login is for checking credentials, and for trying again after they
// were refused.
func (c *Client) Login(ctx context.Context) error {
	c.forgive()
	c.mu.Lock()
	session := c.session
	c.mu.Unlock()
	c.forget("", session)
	_, _, err := c.credentials(ctx, true)
	return err
}

// Logout ends the session. The next call opens another one.
func (c *Client) Logout(ctx context.Context) error {
	c.mu.Lock()
	token, session := c.token, c.session
	c.session = ""
	c.mu.Unlock()
	if session == "" {
		return nil
	}
	return c.send(ctx, call{method: http.MethodPost, path: "/session/logout"}, token, session)
}

// ResetPassword has the server replace the user's password by a random one and
// returns it. The client goes on with the new one. The call is not repeated
// whatever happens to it, since the answer would be lost.
func (c *Client) ResetPassword(ctx context.Context) (string, error) {
	c.mu.Lock()
	old := c.password
	c.mu.Unlock()
	var out PasswordAnswer
	err := c.call(ctx, call{
		method: http.MethodPut, path: "/session/password/actions/reset",
		in: PasswordReset{OldPassword: old}, out: &out, once: true,
	})
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.password = out.NewPassword
	c.mu.Unlock()
	return out.NewPassword, nil
}

// call makes a call with token and session. Where the server says that one of
// them is no longer good, it is renewed, once, and the call made again.
func (c *Client) call(ctx context.Context, k call) error {
	var newToken, newSession bool
	for {
		token, session, err := c.credentials(ctx, true)
		if err != nil {
			return err
		}
		err = c.send(ctx, k, token, session)
		var e *Error
		switch {
		case !errors.As(err, &e):
			return err
		case e.Status == http.StatusUnauthorized && !newToken:
			newToken = true
			c.forget(token, "")
		case (sessionError(e) || e.Status == http.StatusUnauthorized) && !newSession && session != "":
			// A bare 401 for a session has been seen in the field (section 5.3).
			newSession = true
			c.forget("", session)
		default:
			return err
		}
	}
}

func sessionError(e *Error) bool {
	return errors.Is(e, &Error{Code: CodeSessionExpired}) || errors.Is(e, &Error{Code: CodeSessionInvalid})
}

// credentials returns the token and, where a user is configured and wanted, the
// session. It fetches what is missing, one caller at a time.
func (c *Client) credentials(ctx context.Context, login bool) (token, session string, err error) {
	login = login && c.cfg.Username != ""
	if token, session, err = c.current(); err != nil || token != "" && (session != "" || !login) {
		return token, session, err
	}
	select {
	case c.renewing <- struct{}{}:
		defer func() { <-c.renewing }()
	case <-ctx.Done():
		return "", "", ctx.Err()
	}
	for again := true; ; again = false {
		if token, session, err = c.current(); err != nil {
			return "", "", err
		}
		if token == "" {
			if token, err = c.fetchToken(ctx); err != nil {
				return "", "", err
			}
		}
		if session != "" || !login {
			return token, session, nil
		}
		session, err = c.login(ctx, token)
		var e *Error
		if again && errors.As(err, &e) && e.Status == http.StatusUnauthorized {
			c.forget(token, "")
			continue
		}
		return token, session, err
	}
}

func (c *Client) fetchToken(ctx context.Context) (string, error) {
	var out TokenAnswer
	err := c.send(ctx, call{
		method: http.MethodPost, full: TokenPrefix + "/oauth2/token", out: &out, safe: true, impatient: true,
		form: url.Values{"grant_type": {"client_credentials"}},
	}, "", "")
	if err == nil && strings.TrimSpace(out.AccessToken) == "" {
		err = errors.New("m2m: the token endpoint's answer holds no access_token")
	}
	var e *Error
	refused := errors.As(err, &e) && (e.Status == http.StatusBadRequest || e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
	return out.AccessToken, c.keep(&c.token, out.AccessToken, err, refused)
}

func (c *Client) login(ctx context.Context, token string) (string, error) {
	c.mu.Lock()
	in := LoginRequest{Username: c.cfg.Username, Password: c.password}
	c.mu.Unlock()
	var out SessionAnswer
	err := c.send(ctx, call{method: http.MethodPost, path: "/session/login", in: in, out: &out, safe: true, impatient: true}, token, "")
	if err == nil && out.SessionToken == "" {
		err = errors.New("m2m: the login's answer holds no sessionToken")
	}
	var e *Error
	refused := errors.As(err, &e) && (e.Status == http.StatusBadRequest || e.Status == http.StatusForbidden)
	return out.SessionToken, c.keep(&c.session, out.SessionToken, err, refused)
}

// keep stores what was fetched, or that the credentials were refused.
func (c *Client) keep(where *string, value string, err error, refused bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		*where = value
	case refused:
		c.refused = err
	}
	return err
}

// Refused is the server's refusal of the credentials, which every call is answered with
// until Login asks again; nil while there is none.
func (c *Client) Refused() error {
	_, _, refused := c.current()
	return refused
}

func (c *Client) current() (token, session string, refused error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token, c.session, c.refused
}

// forget drops a token and a session unless they have been renewed already.
func (c *Client) forget(token, session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if token != "" && c.token == token {
		c.token = ""
	}
	if session != "" && c.session == session {
		c.session = ""
	}
}

// forgive lets the credentials be tried again.
func (c *Client) forgive() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = nil
}
