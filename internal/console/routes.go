package console

import (
	"net/http"

	"github.com/simlatch/simlatch/internal/auth"
)

// everyPath is the pattern of what is no page.
const everyPath = Prefix + "/"

// routes are all pages and forms there are.
func (c *Console) routes(mux *http.ServeMux) {
	mux.Handle("GET "+Prefix, http.RedirectHandler(Prefix+"/", http.StatusSeeOther))
	mux.Handle("GET "+Prefix+"/assets/", assets())
	mux.HandleFunc("GET "+Prefix+"/sign-in", c.showSignIn)
	mux.HandleFunc("POST "+Prefix+"/sign-in", c.signIn)
	mux.HandleFunc("GET "+Prefix+"/events", c.events)
	for pattern, show := range c.pages() {
		mux.HandleFunc("GET "+Prefix+pattern, c.page(show))
	}
	for pattern, form := range c.forms() {
		mux.HandleFunc("POST "+Prefix+pattern, c.page(form.allowed))
	}
	mux.HandleFunc(everyPath, c.page(func(v *visit) error {
		v.fail(http.StatusNotFound, "There is no such page", "Its address may be mistyped, or what it was about may be gone.")
		return nil
	}))
}

// pages are what can be seen, by everybody who is signed in.
func (c *Console) pages() map[string]func(*visit) error {
	return map[string]func(*visit) error{
		"/{$}":                                   c.overview,
		"/pools":                                 c.pools,
		"/accounts/{account}/pools/{sku}":        c.pool,
		"/requests":                              c.requests,
		"/accounts/{account}/requests/{request}": c.request,
		"/accounts/{account}/requests/{request}/tasks/{iccid}": c.task,
		"/sims":                            c.sims,
		"/accounts/{account}/sims/{iccid}": c.sim,
		"/callbacks":                       c.callbacks,
		"/listeners":                       c.listeners,
		"/accounts/{account}/listeners/{service}": c.listener,
		"/stuck":              c.stuck,
		"/import":             c.importForm,
		"/import/{id}":        c.importShow,
		"/assign":             c.assignForm,
		"/accounts":           c.accounts,
		"/accounts/{account}": c.account,
		"/access":             c.access,
		"/audit":              c.audit,
		"/verify":             c.verify,
	}
}

// A form is what a page can send, and the role that it takes. The API checks the
// role too: here it only spares a form that would be refused.
type form struct {
	need auth.Role
	do   func(*visit) error
}

// allowed does what the form asks, for those who may ask it.
func (f form) allowed(v *visit) error {
	if !v.may(f.need) {
		v.fail(http.StatusForbidden, "Your role does not allow this", "It takes the role "+string(f.need)+". Nothing was changed.")
		return nil
	}
	return f.do(v)
}

// forms are what can be changed.
func (c *Console) forms() map[string]form {
	const viewer, daily, admin = auth.RoleViewer, auth.RoleOperator, auth.RoleAdmin
	const request, listener = "/accounts/{account}/requests/{request}", "/accounts/{account}/listeners/{service}"
	return map[string]form{
		"/sign-out": {viewer, c.signOut},
		"/accounts/{account}/pools/{sku}/purchases": {daily, c.purchase},
		"/accounts/{account}/pools/{sku}/threshold": {daily, c.setThreshold},
		"/accounts/{account}/sims/{iccid}/state":    {daily, c.setState},
		request + "/send":                           {daily, c.sendRequest},
		request + "/tasks/{iccid}/send":             {daily, c.sendTask},
		request + "/tasks/{iccid}/decide":           {daily, c.decide},
		"/callbacks/send":                           {daily, c.sendPicked},
		"/callbacks/send-range":                     {daily, c.sendRange},
		listener + "/settings":                      {daily, c.setListener},
		listener + "/test":                          {daily, c.testListener},
		listener + "/secret":                        {daily, c.newSigningSecret},
		listener + "/remove":                        {daily, c.removeListener},
		"/import":                                   {daily, c.upload},
		"/import/{id}":                              {daily, c.importStart},
		"/assign":                                   {daily, c.plan},
		"/assign/confirm":                           {daily, c.assign},
		"/accounts":                                 {admin, c.addAccount},
		"/accounts/{account}/policy":                {admin, c.setPolicy},
		"/access/applications":                      {admin, c.addApplication},
		"/access/applications/{name}/{action}":      {daily, c.changeApplication},
		"/access/users":                             {admin, c.addUser},
		"/access/users/{name}/{action}":             {daily, c.changeUser},
		"/access/operators":                         {admin, c.addOperator},
		"/access/operators/{name}/{action}":         {admin, c.changeOperator},
		"/verify":                                   {daily, c.runVerify},
	}
}
