package console_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/console"
	"github.com/simlatch/simlatch/internal/license"
)

// TestAccess adds an account, an application, a user and an operator, who then signs
// in; and changes each.
func TestAccess(t *testing.T) {
	b := newTab(t, auth.RoleAdmin)
	b.open("/accounts")
	b.unfold("Add an account")
	b.fill("name", "0999000222-00001")
	b.press("Add the account")
	b.confirmed("The account is added.")
	b.sees("h1", "Account 0999000222-00001")
	b.sees("#pools", "No licenses yet")
	b.unfold("Policy")
	b.fill("refuseLifetime", "true")
	b.fill("dailyDevices", "250")
	b.press("Change the policy")
	b.confirmed("The policy is changed.")
	b.sees("main .facts", "0 today of 250")
	b.did(auth.RoleAdmin, "policy.set", "0999000222-00001")

	b.open("/access")
	b.unfold("Add an application")
	b.fill("name", "warehouse")
	b.press("Add the application")
	b.sees(".secret code", "warehouse : ")
	b.check()
	b.unfold("Add a user")
	b.fill("name", "carol")
	b.fill("accounts", "0999000222-00001")
	b.press("Add the user")
	b.sees(".secret", "The password of carol")
	b.sees("#users", "carol")
	b.unfold("Application warehouse")
	b.press("Disable of warehouse")
	b.confirmed("The application is disabled.")
	b.sees("#applications", "disabled")
	for _, step := range [][2]string{{"Enable of warehouse", "The application is enabled."}, {"Unlock of warehouse", "failed tries are forgotten"}} {
		b.unfold("Application warehouse")
		b.press(step[0])
		b.confirmed(step[1])
	}
	b.unfold("Application warehouse")
	b.press("New secret of warehouse")
	b.sees(".secret", "The new secret of warehouse")
	b.did(auth.RoleAdmin, "application.rotate", "warehouse")
	b.unfold("Application warehouse")
	b.press("New secret beside the old for a day of warehouse")
	b.sees(".secret", "The new secret of warehouse")
	b.unfold("Application warehouse")
	b.press("End the old secret of warehouse")
	b.confirmed("The application's old secret has ended.")
	b.did(auth.RoleAdmin, "application.end-old-secret", "warehouse")
	b.unfold("User carol")
	b.fill("accounts", "0999000222-00001, "+fleet)
	b.press("Change the accounts")
	b.confirmed("accounts are changed")
	b.sees("#users", fleet)
	for _, step := range [][2]string{
		{"Disable of carol", "The user is disabled."}, {"Enable of carol", "The user is enabled."}, {"Unlock of carol", "failed tries are forgotten"},
	} {
		b.unfold("User carol")
		b.press(step[0])
		b.confirmed(step[1])
	}
	b.unfold("User carol")
	b.press("New password of carol")
	b.sees(".secret", "The new password of carol")

	b.unfold("Add an operator")
	b.fill("name", "oscar")
	b.fill("role", "viewer")
	b.press("Add the operator")
	b.sees(".secret code", "simlatch_op_")
	b.unfold("Operator oscar")
	b.press("New password of oscar")
	b.sees(".secret", "The new password of oscar")
	b.check()
	made := strings.TrimSpace(b.text(".secret code"))
	other := newTab(t, "")
	other.open("/sign-in")
	other.fill("name", "oscar")
	other.fill("password", made)
	other.press("Sign in")
	other.sees(".who", "viewer")
	b.open("/access")
	b.lacks("main", made)
	b.unfold("Operator oscar")
	b.fill("role", "operator")
	b.press("Change the role")
	b.confirmed("The operator's role is changed.")
	other.open("/pools")
	other.sees(".who", "operator")
	b.unfold("Operator oscar")
	b.press("New token of oscar")
	b.sees(".secret code", "simlatch_op_")
	b.unfold("Operator oscar")
	b.press("Disable of oscar")
	b.confirmed("The operator is disabled.")
	other.open("/pools")
	other.sees("h1", "Sign in")
}

// TestSignIn: a wrong password says so, the right one leads back to where one was
// going, and signing out ends it.
func TestSignIn(t *testing.T) {
	b := newTab(t, "")
	b.open("/requests?status=Pending")
	b.sees("h1", "Sign in")
	b.fill("name", operatorOf(auth.RoleViewer))
	b.fill("password", "wrong")
	b.press("Sign in")
	b.sees(".alert", "This did not work")
	b.check()
	b.fill("name", operatorOf(auth.RoleViewer))
	b.fill("password", password)
	b.press("Sign in")
	b.sees("h1", "Requests")
	if b.at() != "/console/requests?status=Pending" {
		t.Errorf("it leads to %s", b.at())
	}
	b.press("Sign out")
	b.sees(".notice", "You are signed out.")
	b.did(auth.RoleViewer, "console.sign-in", operatorOf(auth.RoleViewer))
	b.did(auth.RoleViewer, "console.sign-out", operatorOf(auth.RoleViewer))
	b.open("/pools")
	b.sees("h1", "Sign in")
	b.open("/no/such/page")
	b.sees("h1", "Sign in")
}

// TestKeyboard signs in, skips to the content and opens a page with keys alone.
func TestKeyboard(t *testing.T) {
	b := newTab(t, auth.RoleViewer)
	b.open("/pools")
	b.keys("\t")
	if got := eval[string](b, `document.activeElement.innerText`); got != "Skip to the content" {
		t.Errorf("the first stop is %q", got)
	}
	b.keys("\r")
	b.waits(`location.hash === "#main"`, "it leads to the content")
	reached := map[string]bool{}
	for range 200 {
		b.keys("\t")
		reached[eval[string](b, `document.activeElement.innerText ?? ""`)] = true
	}
	for _, name := range []string{"SIMSec-IoT", "CSV of Pools", "Show", "Sign out", "Audit"} {
		found := false
		for text := range reached {
			found = found || strings.HasPrefix(strings.ReplaceAll(text, "\n", " "), name)
		}
		if !found {
			t.Errorf("keys do not reach %q: %v", name, reached)
		}
	}
}

// browser is a client without script, that keeps cookies.
type browser struct {
	*testing.T

	scene *scene
	http  *http.Client
}

func signedIn(t *testing.T, role auth.Role) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	must(t, err)
	c := &browser{T: t, scene: sharedScene(t), http: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if role != "" {
		status, header, _ := c.post("/sign-in", url.Values{"name": {operatorOf(role)}, "password": {password}})
		cookie := header.Get("Set-Cookie")
		if status != http.StatusSeeOther || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") || !strings.Contains(cookie, "Path=/console") {
			t.Fatalf("signing in: %d, %s", status, cookie)
		}
	}
	return c
}

func (c *browser) send(method, path string, form url.Values, headers ...string) (int, http.Header, string) {
	c.Helper()
	req, err := http.NewRequestWithContext(c.Context(), method, c.scene.url+"/console"+path, strings.NewReader(form.Encode()))
	must(c, err)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	must(c, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(c, err)
	return resp.StatusCode, resp.Header, string(body)
}

func (c *browser) get(path string) (int, http.Header, string) { return c.send("GET", path, nil) }
func (c *browser) post(path string, form url.Values) (int, http.Header, string) {
	return c.send("POST", path, form)
}

// somewhere puts values in the place of a pattern's variables.
func somewhere(pattern string) string {
	return strings.NewReplacer("{account}", fleet, "{sku}", "SIMSec-IoT", "{request}", "01900000-0000-7000-8000-000000000000",
		"{iccid}", iccid(1, 1), "{service}", "CarrierService", "{id}", "x", "{name}", "billing", "{action}", "rotate", "{$}", "").Replace(pattern)
}

// everything is what forms change, as text.
func everything(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, account := range []license.AccountName{fleet, metered} {
		for _, p := range sharedScene(t).pools(t, account) {
			fmt.Fprintf(&b, "%+v\n", p)
		}
	}
	operators, err := sharedScene(t).store.Operators(t.Context())
	must(t, err)
	applications, err := sharedScene(t).store.Applications(t.Context())
	must(t, err)
	for _, o := range operators {
		fmt.Fprintln(&b, o.Name, o.Role, o.Disabled, o.TokenHash, o.PasswordHash)
	}
	return b.String() + fmt.Sprint(applications)
}

// TestRoles sends every form there is as everybody: those who may not are refused,
// and nothing changes; and a page shows no form that its reader may not send.
func TestRoles(t *testing.T) {
	before := everything(t)
	nobody := signedIn(t, "")
	for pattern := range console.Forms() {
		if status, header, _ := nobody.post(somewhere(pattern), url.Values{}); status != http.StatusSeeOther || !strings.Contains(header.Get("Location"), "/console/sign-in") {
			t.Errorf("nobody, POST %s: %d", pattern, status)
		}
	}
	for pattern := range console.Pages() {
		if status, header, _ := nobody.get(somewhere(pattern)); status != http.StatusSeeOther || !strings.Contains(header.Get("Location"), "/console/sign-in") {
			t.Errorf("nobody, GET %s: %d", pattern, status)
		}
	}
	for _, role := range []auth.Role{auth.RoleViewer, auth.RoleOperator} {
		c := signedIn(t, role)
		cells := 0
		for pattern, need := range console.Forms() {
			if role.May(need) {
				continue
			}
			cells++
			if status, _, body := c.post(somewhere(pattern), url.Values{"name": {"x"}, "units": {"1"}, "reason": {"x"}}); status != http.StatusForbidden {
				t.Errorf("%s, POST %s: %d %.200s", role, pattern, status, body)
			}
		}
		t.Logf("%s: %d forms refused", role, cells)
		for _, p := range sharedScene(t).everyPage(t) {
			_, _, body := c.get(p.path)
			for _, m := range regexp.MustCompile(`<form[^>]*method="post"[^>]*action="/console([^"]*)"`).FindAllStringSubmatch(body, -1) {
				if need := needOf(m[1]); !role.May(need) {
					t.Errorf("%s: %s shows a form that takes %s: %s", p.path, role, need, m[1])
				}
			}
		}
	}
	// What one may, and the API refuses for the action: an operator may unlock, and
	// not rotate.
	if status, _, body := signedIn(t, auth.RoleOperator).post("/access/applications/billing/rotate", url.Values{}); status != http.StatusForbidden || !strings.Contains(body, "takes the role admin") {
		t.Errorf("an operator rotates: %d %.300s", status, body)
	}
	if after := everything(t); after != before {
		t.Errorf("what was refused changed something:\n%s\n%s", before, after)
	}
}

// needOf is the role that the form with an address takes.
func needOf(path string) auth.Role {
	best := auth.RoleViewer
	for pattern, need := range console.Forms() {
		if regexp.MustCompile("^" + regexp.MustCompile(`\{[a-z]+\}`).ReplaceAllString(pattern, "[^/]+") + "$").MatchString(path) {
			best = need
		}
	}
	return best
}

// TestHeaders: nothing of another site is let in, and a form of one is refused.
func TestHeaders(t *testing.T) {
	c := signedIn(t, auth.RoleAdmin)
	for _, path := range []string{"/", "/sign-in", "/assets/style.css", "/no-such-page"} {
		_, header, _ := c.get(path)
		policy := header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'self'") || strings.Contains(policy, "unsafe") || header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: %v", path, header)
		}
	}
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		status, _, body := c.send("POST", "/accounts", url.Values{"name": {"0888000333-00001"}}, headers...)
		if status != http.StatusForbidden || !strings.Contains(body, "came from another site") {
			t.Errorf("%v: %d %.200s", headers, status, body)
		}
	}
	if status, _, _ := c.get("/accounts/0888000333-00001"); status != http.StatusNotFound {
		t.Errorf("the account: %d", status)
	}
	for _, next := range []string{"https://evil.example/", "//evil.example/", "/console/\\evil", "/console"} {
		_, header, _ := c.get("/sign-in?next=" + url.QueryEscape(next))
		if got := header.Get("Location"); got != "/console/" {
			t.Errorf("next %q leads to %q", next, got)
		}
	}
}

// TestPlain reads pages without script: they are whole.
func TestPlain(t *testing.T) {
	c := signedIn(t, auth.RoleViewer)
	for _, p := range c.scene.everyPage(t) {
		status, header, body := c.get(p.path)
		if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/html") || !strings.Contains(body, "<h1>"+p.title+"</h1>") {
			t.Errorf("%s: %d", p.path, status)
		}
		for _, word := range []string{"<script>", " onclick=", " style="} {
			if strings.Contains(body, word) {
				t.Errorf("%s has%s", p.path, word)
			}
		}
	}
	for path, want := range map[string]int{
		"/accounts/none-1": http.StatusNotFound, "/accounts/" + fleet + "/requests/x": http.StatusBadRequest,
		"/requests?status=x": http.StatusBadRequest, "/no/page": http.StatusNotFound, "/import/x": http.StatusNotFound,
		"/requests?cursor=x": http.StatusBadRequest,
	} {
		if status, _, body := c.get(path); status != want || !strings.Contains(body, "<h1>") {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
}

// TestTwice sends one form twice: it counts once.
func TestTwice(t *testing.T) {
	c := signedIn(t, auth.RoleOperator)
	before := c.scene.pool(t, fleet, "SIMSec-IoT-Lt").Purchased
	_, _, page := c.get("/accounts/" + fleet + "/pools/SIMSec-IoT-Lt")
	key := regexp.MustCompile(`name="key" value="([A-Z2-7]+)"`).FindStringSubmatch(page)[1]
	for range 2 {
		if status, _, body := c.post("/accounts/"+fleet+"/pools/SIMSec-IoT-Lt/purchases", url.Values{"key": {key}, "units": {"5"}, "reason": {"more"}}); status != http.StatusSeeOther {
			t.Fatalf("%d %.300s", status, body)
		}
	}
	if got := c.scene.pool(t, fleet, "SIMSec-IoT-Lt").Purchased; got != before+5 {
		t.Errorf("purchased %d, want %d", got, before+5)
	}
}

// TestNobody tries every page and form with what is no session: nothing, what was
// never one, one that was signed out, an operator's token and a client's. All are sent
// to sign in, and learn nothing: not even whether what they name exists.
func TestNobody(t *testing.T) {
	s := sharedScene(t)
	over := signedIn(t, auth.RoleAdmin)
	jar := over.http.Jar
	at, err := url.Parse(s.url + "/console/")
	must(t, err)
	ended := jar.Cookies(at)[0].Value
	over.post("/sign-out", url.Values{})
	token := auth.NewOperatorToken()
	must(t, s.store.AddOperator(t.Context(), auth.OperatorRecord{
		Operator: auth.Operator{Name: "program", Role: auth.RoleAdmin}, TokenHash: auth.HashSecret(token),
	}, s.clock.Now()))
	bearer, err := s.client.Token(t.Context())
	must(t, err)
	nobody, cells, before := signedIn(t, ""), 0, everything(t)
	for name, headers := range map[string][]string{
		"nothing": nil, "no session": {"Cookie", "simlatch_console=x"}, "a session that ended": {"Cookie", "simlatch_console=" + ended},
		"an operator's token":  {"Cookie", "simlatch_console=" + string(token)},
		"the same, as a token": {"Authorization", "Bearer " + string(token)},
		"a client's token":     {"Cookie", "simlatch_console=" + bearer, "Authorization", "Bearer " + bearer},
	} {
		for pattern := range console.Pages() {
			for _, path := range []string{somewhere(pattern), strings.ReplaceAll(somewhere(pattern), fleet, "0000000000-99999")} {
				cells++
				status, header, body := nobody.send("GET", path, nil, headers...)
				if status != http.StatusSeeOther || !strings.HasPrefix(header.Get("Location"), "/console/sign-in") || strings.Contains(body, metered) {
					t.Errorf("%s, GET %s: %d %s", name, path, status, header.Get("Location"))
				}
			}
		}
		for pattern := range console.Forms() {
			cells++
			if status, header, _ := nobody.send("POST", somewhere(pattern), url.Values{"name": {"x"}}, headers...); status != http.StatusSeeOther || header.Get("Location") != "/console/sign-in" {
				t.Errorf("%s, POST %s: %d", name, pattern, status)
			}
		}
		cells++
		if status, _, _ := nobody.send("GET", "/events", nil, headers...); status != http.StatusUnauthorized {
			t.Errorf("%s, events: %d", name, status)
		}
	}
	if after := everything(t); after != before {
		t.Errorf("what was refused changed something:\n%s\n%s", before, after)
	}
	t.Logf("%d cells tried and refused", cells)
}
