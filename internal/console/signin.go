package console

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// showSignIn shows where to sign in.
func (c *Console) showSignIn(w http.ResponseWriter, r *http.Request) {
	v := c.visit(w, r)
	if v.enter(r.Context()) == nil {
		http.Redirect(w, r, afterSignIn(v.value("next")), http.StatusSeeOther) //nolint:gosec // a path of ours
		return
	}
	if err := v.render(signIn(v.takeNotice(), nil, "", v.value("next"))); err != nil {
		v.failed(err)
	}
}

// signIn signs an operator in. How many tries there may be is what package auth
// says.
func (c *Console) signIn(w http.ResponseWriter, r *http.Request) {
	v := c.visit(w, r)
	if err := v.read(); err != nil {
		v.fail(http.StatusBadRequest, "The form cannot be read", err.Error())
		return
	}
	name, next := v.value("name"), v.value("next")
	token, who, err := c.cfg.Sessions.SignIn(r.Context(), name, auth.Secret(r.PostFormValue("password")), v.from())
	var slowed *auth.SlowedError
	var a *alert
	switch {
	case err == nil:
		v.who = acting(who, v.from())
		v.record("console.sign-in")
		v.setCookie(sessionCookie, string(token), 0)
		http.Redirect(w, r, afterSignIn(next), http.StatusSeeOther) //nolint:gosec // a path of ours
		return
	case errors.As(err, &slowed):
		seconds := int(slowed.After.Seconds()) + 1
		w.Header().Set("Retry-After", strconv.Itoa(seconds))
		v.status = http.StatusTooManyRequests
		a = &alert{title: "Too many tries", text: "Wait " + strconv.Itoa(seconds) + " seconds, then try again."}
	case errors.Is(err, auth.ErrPassword):
		v.status = http.StatusUnauthorized
		a = &alert{title: "This did not work", text: "The name is unknown, the password wrong, or the operator disabled. “simlatch operator password NAME” sets a new one."}
	default:
		c.cfg.Logger.ErrorContext(r.Context(), "signing in failed", "error", err)
		v.status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "5")
		a = &alert{title: "The service cannot say who you are", text: "Its database may be out of reach. Try again in a few seconds."}
	}
	if err := v.render(signIn("", a, name, next)); err != nil {
		v.failed(err)
	}
}

// afterSignIn is where to go after signing in: back, and to no place but ours.
func afterSignIn(next string) string {
	if strings.HasPrefix(next, Prefix+"/") && !strings.ContainsAny(next, "\\\r\n") {
		return next
	}
	return Prefix + "/"
}

// signOut ends the session.
func (c *Console) signOut(v *visit) error {
	if err := c.cfg.Sessions.SignOut(v.r.Context(), v.token); err != nil {
		return err
	}
	v.record("console.sign-out")
	v.setCookie(sessionCookie, "", -1)
	return v.done(Prefix+"/sign-in", "You are signed out.")
}

// record has the audit say that somebody signed in or out. Where it cannot, they are
// signed in all the same, and the log has it.
func (v *visit) record(action string) {
	if v.c.cfg.Record == nil {
		return
	}
	who := license.Actor{Name: v.who.Name, Via: v.who.Via, From: v.who.From}
	if err := v.c.cfg.Record(v.r.Context(), who, action); err != nil {
		v.c.cfg.Logger.ErrorContext(v.r.Context(), "writing down who signed in or out", "operator", who.Name, "action", action, "error", err)
	}
}
