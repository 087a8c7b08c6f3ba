package api

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/m2m"
)

// login opens a session. A name or password that is missing is a wrong one.
func (a *API) login(ctx context.Context, c *call, in m2m.LoginRequest) (m2m.SessionAnswer, error) {
	token, err := a.cfg.Auth.Login(ctx, c.Application, storable(in.Username), auth.Secret(in.Password), c.address())
	if err != nil {
		return m2m.SessionAnswer{}, err
	}
	return m2m.SessionAnswer{
		SessionToken: string(token), ExpiresIn: int64(a.cfg.Auth.SessionIdle() / time.Second),
	}, nil
}

// logout ends the caller's session and answers with its token.
func (a *API) logout(ctx context.Context, c *call, _ struct{}) (m2m.SessionAnswer, error) {
	if err := a.cfg.Auth.Logout(ctx, c.Caller); err != nil {
		return m2m.SessionAnswer{}, err
	}
	return m2m.SessionAnswer{SessionToken: string(c.Session)}, nil
}

// resetPassword replaces the caller's password by a random one.
func (a *API) resetPassword(ctx context.Context, c *call, in m2m.PasswordReset) (m2m.PasswordAnswer, error) {
	password, err := a.cfg.Auth.ResetPassword(ctx, c.Caller, auth.Secret(in.OldPassword), c.address())
	if err != nil {
		return m2m.PasswordAnswer{}, err
	}
	return m2m.PasswordAnswer{NewPassword: string(password)}, nil
}
