package console

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// A visit is one request of a browser on its way to a page.
type visit struct {
	*asker

	c      *Console
	w      http.ResponseWriter
	r      *http.Request
	token  auth.Secret // of the session
	status int
	alert  *alert            // what is wrong with what was sent
	kept   map[string]string // inputs in the place of those that were sent
}

// alert is what a page says above all else.
type alert struct {
	title, text string
	lines       []client.Line
	more        int // lines that are not among lines
}

func (c *Console) visit(w http.ResponseWriter, r *http.Request) *visit {
	return &visit{asker: &asker{api: c.cfg.Operator}, c: c, w: w, r: r, status: http.StatusOK}
}

// pageTimeout bounds the time for a page; work that may take longer has its own.
const pageTimeout = 30 * time.Second

// page is a page for those who are signed in. Others are sent to sign in, and come
// back after it.
func (c *Console) page(show func(v *visit) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := c.visit(w, r)
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		if err := v.enter(ctx); err != nil {
			v.turnAway(err)
			return
		}
		if err := v.read(); err != nil {
			v.fail(http.StatusBadRequest, "The form cannot be read", err.Error())
			return
		}
		if err := show(v); err != nil {
			v.failed(err)
		}
	}
}

// enter finds out whose session this is.
func (v *visit) enter(ctx context.Context) error {
	cookie, err := v.r.Cookie(sessionCookie)
	if err != nil {
		return auth.ErrSession
	}
	v.token = auth.Secret(cookie.Value)
	o, err := v.c.cfg.Sessions.SignedIn(ctx, v.token)
	v.who = acting(o, v.from())
	return err
}

// turnAway sends who is not signed in to where they can be.
func (v *visit) turnAway(err error) {
	if !errors.Is(err, auth.ErrSession) {
		v.failed(err)
		return
	}
	to := Prefix + "/sign-in"
	if v.r.Method == http.MethodGet && v.r.URL.Path != Prefix && v.r.URL.Path != Prefix+"/" {
		to += "?" + url.Values{"next": {v.r.URL.RequestURI()}}.Encode()
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
}

// from is the address of the browser.
func (v *visit) from() string {
	host, _, err := net.SplitHostPort(v.r.RemoteAddr)
	if err != nil {
		return v.r.RemoteAddr
	}
	return host
}

// The bounds of a form, and of one that carries a file.
const (
	maxForm   = 1 << 20
	maxUpload = 64 << 20
)

// uploadTime is how long a form with a file may take to come. For others it is what the
// server says.
const uploadTime = 5 * time.Minute

// read reads the form, if there is one.
func (v *visit) read() error {
	if v.r.Method != http.MethodPost {
		return nil
	}
	control := http.NewResponseController(v.w)
	most, multipart := int64(maxForm), strings.HasPrefix(v.r.Header.Get("Content-Type"), "multipart/form-data")
	if takesFile := v.r.URL.Path == Prefix+"/import" || v.r.URL.Path == Prefix+"/assign"; takesFile && v.may(auth.RoleOperator) {
		most = maxUpload
		_ = control.SetReadDeadline(time.Now().Add(uploadTime)) // a test's writer knows none
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, most)
	var err error
	if multipart {
		err = v.r.ParseMultipartForm(most) //nolint:gosec // the body is bounded above
	} else {
		err = v.r.ParseForm()
	}
	if err == nil { // of another type, it was not read
		_, err = io.Copy(io.Discard, v.r.Body)
	}
	if err == nil { // or what is left would be waited for without end
		_ = control.SetReadDeadline(time.Time{})
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fmt.Errorf("it is larger than %d MiB", most>>20)
	}
	return err
}

// value is what was sent in a field of the form or the query.
func (v *visit) value(name string) string {
	if text, ok := v.kept[name]; ok {
		return text
	}
	return strings.TrimSpace(v.r.FormValue(name))
}

// frame is what all pages share.
type frame struct {
	title     string
	here      string // the part of the navigation that the page belongs to
	who       auth.Operator
	notice    string
	alert     *alert
	live      string // what keeps the page up to date: an account, "*" for all; "" is nothing
	simulated bool
}

// show answers with a page.
func (v *visit) show(f frame, body templ.Component) error {
	f.who, f.alert, f.simulated = v.who.Operator, v.alert, v.c.cfg.Simulated
	f.notice = v.takeNotice()
	return v.render(page(f, body))
}

// render answers with a component, whole or not at all.
func (v *visit) render(component templ.Component) error {
	var b bytes.Buffer
	if err := component.Render(v.r.Context(), &b); err != nil {
		return fmt.Errorf("making a page: %w", err)
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(v.status)
	_, _ = v.w.Write(b.Bytes()) // a browser that left need not be told
	return nil
}

// refused has the page say why what was sent was not done. What is nobody's fault
// but ours is an error.
func (v *visit) refused(err error) error {
	var p *client.Problem
	if !errors.As(err, &p) || p.Status >= http.StatusInternalServerError && p.Status != http.StatusServiceUnavailable {
		return err
	}
	v.status = p.Status
	v.alert = &alert{title: p.Title, text: p.Detail, lines: p.Lines, more: max(0, p.LineCount-len(p.Lines))}
	return nil
}

// again shows a page once more, which says why what was sent was not done.
func (v *visit) again(err error, show func(*visit) error) error {
	if err := v.refused(err); err != nil {
		return err
	}
	return show(v)
}

// invalid has the page say what is wrong with a form.
func (v *visit) invalid(format string, args ...any) {
	v.status = http.StatusBadRequest
	v.alert = &alert{title: "Not yet", text: fmt.Sprintf(format, args...)}
}

// failed answers with a page about an error.
func (v *visit) failed(err error) {
	status, title, text := wrong(err)
	if status >= http.StatusInternalServerError {
		v.c.cfg.Logger.ErrorContext(v.r.Context(), "a page of the console failed", "path", v.r.URL.Path, "error", err)
	}
	v.fail(status, title, text)
}

func (v *visit) fail(status int, title, text string) {
	v.status, v.alert = status, nil
	if err := v.show(frame{title: title}, failure(title, text)); err != nil {
		http.Error(v.w, title, status)
	}
}

// done answers a form that was done: it sends the browser to a page, which says
// what was.
func (v *visit) done(to, format string, args ...any) error {
	v.setCookie(noticeCookie, base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, format, args...)), time.Minute)
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

const (
	sessionCookie = "simlatch_console"
	noticeCookie  = "simlatch_notice"
)

// takeNotice is what the page before wants said, once.
func (v *visit) takeNotice() string {
	cookie, err := v.r.Cookie(noticeCookie)
	if err != nil {
		return ""
	}
	v.setCookie(noticeCookie, "", -1)
	text, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		return ""
	}
	return string(text)
}

// setCookie sets a cookie for so long; 0 is as long as the browser runs, and less
// deletes it.
func (v *visit) setCookie(name, value string, life time.Duration) {
	cookie := &http.Cookie{ //nolint:gosec // Secure wherever the browser came by TLS
		Name: name, Value: value, Path: Prefix, HttpOnly: true, Secure: v.c.secure(v.r), SameSite: http.SameSiteLaxMode,
		MaxAge: int(life.Seconds()),
	}
	if life < 0 {
		cookie.MaxAge = -1
	}
	http.SetCookie(v.w, cookie)
}

// may reports whether who is signed in may do what asks for a role.
func (v *visit) may(need auth.Role) bool { return v.who.Role.May(need) }

// newKey is an idempotency key for a form.
func newKey() string { return rand.Text() }

// accountNames are the names to choose an account from.
func (v *visit) accountNames() ([]string, error) {
	list, err := collect[client.Account](v.r.Context(), v.asker, "/accounts", nil, mostChoices)
	names := make([]string, len(list))
	for i, a := range list {
		names[i] = a.Name
	}
	return names, err
}

// mostChoices is how many names a field offers; others are typed in.
const mostChoices = 500

// skus are the SKUs to choose from: the one whose licenses cannot be taken back is
// the last, so that nobody takes it by leaving a field as it is.
func skus() (names []string) {
	for _, sku := range license.SKUs() {
		if sku != license.SKULifetime {
			names = append(names, string(sku))
		}
	}
	return append(names, lifetime)
}

// atoi reads a number; nothing is 0.
func atoi(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	return strconv.Atoi(text)
}

func orZero(text string) string {
	if text == "" {
		return "0s"
	}
	return text
}

// orOnly is what was chosen, or the only choice there is.
func orOnly(chosen string, names []string) string {
	if chosen == "" && len(names) == 1 {
		return names[0]
	}
	return chosen
}
