package api

import (
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/simlatch/simlatch/m2m"
)

// family is a group of routes under the same prefixes.
type family struct {
	prefixes []string // the first is the one to advertise
	context  string   // as the gateway names it in its faults
}

func licenseFamily() family {
	return family{prefixes: []string{m2m.APIPrefix, "/m2m/v1"}, context: "/m2m/v1"}
}

func tokenFamily() family {
	return family{prefixes: []string{m2m.TokenPrefix, "/ts/v1"}, context: "/ts/v1"}
}

// route is one method of one path. Its work gets a call that nothing has been
// checked of and returns what to answer.
type route struct {
	method string
	path   string // below the prefixes
	work   func(*call) (any, error)
}

// licenseRoutes are the routes below the prefixes of the license API.
func licenseRoutes(a *API) []route {
	routes := []route{
		{http.MethodPost, "/session/login", handle(needBearer, jsonBody[m2m.LoginRequest], a.login)},
		{http.MethodPost, "/session/logout", handle(needSession, noBody, a.logout)},
		{http.MethodPut, "/session/password/actions/reset", handle(needSession, jsonBody[m2m.PasswordReset], a.resetPassword)},

		{http.MethodGet, "/accounts/{account}", handle(needSession, noBody, a.account)},
		{http.MethodGet, "/accounts/{account}/requests/{request}/status", handle(needSession, noBody, a.requestStatus)},
		{http.MethodPost, "/accounts/subscriptions/actions/list", handle(needSession, jsonBody[m2m.SubscriptionsRequest], a.subscriptions)},
		{http.MethodPost, "/account/subscriptions/actions/list", handle(needSession, jsonBody[m2m.SubscriptionsRequest], a.subscriptions)},

		{http.MethodGet, "/callbacks/{account}", handle(needSession, noBody, a.listeners)},
		{http.MethodPost, "/callbacks/{account}", handle(needSession, jsonBody[m2m.ListenerRequest], a.register)},
		{http.MethodDelete, "/callbacks/{account}/name/{service}", handle(needSession, noBody, a.deregister)},

		{http.MethodPost, "/devices/actions/list", handle(needSession, jsonBody[m2m.DeviceListRequest], a.devices)},
	}
	for _, at := range []string{"/devices/license/actions", "/devices/licenses/actions"} {
		routes = append(routes,
			route{http.MethodPost, at + "/assign", handle(needSession, licenseBody, a.assign)},
			route{http.MethodDelete, at + "/assign", handle(needSession, licenseBody, a.unassign)},
			route{http.MethodPost, at + "/unassign", handle(needSession, licenseBody, a.unassign)},
			route{http.MethodPost, at + "/{action}", refuse(errActionInvalid())},
			route{http.MethodDelete, at + "/{action}", refuse(errActionInvalid())},
			route{http.MethodPost, at, refuse(errActionNotDefined())},
			route{http.MethodDelete, at, refuse(errActionNotDefined())},
		)
	}
	return routes
}

// tokenRoutes are the routes below the prefixes of the token endpoints.
func tokenRoutes(a *API) []route {
	return []route{
		{http.MethodPost, "/oauth2/token", handle(needClient, formBody, a.token)},
		{http.MethodPost, "/oauth2/revoke", handle(needClient, formBody, a.revoke)},
	}
}

// Route is a method and a path, with its parameters in braces.
type Route struct{ Method, Path string }

// Routes lists every route there is, under each of its prefixes, for tests that
// must forget none.
func (a *API) Routes() (list []Route) {
	add := func(f family, routes []route) {
		for _, r := range routes {
			for _, prefix := range f.prefixes {
				list = append(list, Route{r.method, prefix + r.path})
			}
		}
	}
	add(licenseFamily(), licenseRoutes(a))
	add(tokenFamily(), tokenRoutes(a))
	return list
}

// refuse is the work of a path that is known only for its error.
func refuse(err error) func(*call) (any, error) {
	return func(*call) (any, error) { return nil, err }
}

// router finds the work for a path as it was sent: it never redirects.
type router struct {
	api *API
	mux *http.ServeMux
}

func newRouter(a *API) (*router, error) {
	rt := &router{api: a, mux: http.NewServeMux()}
	rt.add(licenseFamily(), licenseRoutes(a))
	rt.add(tokenFamily(), tokenRoutes(a))
	rt.mux.HandleFunc("/", rt.notFound)
	if err := rt.addDescription(); err != nil {
		return nil, err
	}
	return rt, nil
}

// add registers the routes of a family: one pattern per path, whose handler
// knows the methods, since the mux would answer other methods in its own words.
func (rt *router) add(f family, routes []route) {
	paths := map[string]*methods{}
	for _, r := range routes {
		m := paths[r.path]
		if m == nil {
			m = &methods{api: rt.api, family: f, path: r.path, work: map[string]func(*call) (any, error){}}
			paths[r.path] = m
		}
		m.work[r.method] = r.work
		m.allow = append(m.allow, r.method)
	}
	for p, m := range paths {
		slices.Sort(m.allow)
		for _, prefix := range f.prefixes {
			rt.mux.Handle(prefix+p, m)
			if strings.HasSuffix(p, noAction) {
				rt.mux.Handle(prefix+p+"/{$}", m)
			}
		}
	}
}

// noAction ends the paths at which an empty action has an error of its own.
const noAction = "/actions"

// ServeHTTP answers one request.
func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if clean(r.URL.EscapedPath()) {
		rt.mux.ServeHTTP(w, r)
		return
	}
	rt.notFound(w, r)
}

func (rt *router) notFound(w http.ResponseWriter, r *http.Request) {
	f := familyOf(r.URL.Path)
	rt.api.serve(w, r, f, "none", refuse(errNoResource(f)))
}

// clean reports whether p is a path the mux would not redirect and that does
// not end in a slash, but for the documented paths without an action.
func clean(p string) bool {
	c := path.Clean(p)
	if !strings.HasPrefix(p, "/") { // "OPTIONS *": the mux would answer it by itself
		return false
	}
	return p == c || p == c+"/" && strings.HasSuffix(c, noAction) || p == docsPath
}

func familyOf(p string) family {
	t := tokenFamily()
	for _, prefix := range t.prefixes {
		if below(p, prefix) {
			return t
		}
	}
	return licenseFamily()
}

func below(p, prefix string) bool {
	return p == prefix || strings.HasPrefix(p, prefix+"/")
}

// methods is what one path answers to each method.
type methods struct {
	api    *API
	family family
	path   string
	work   map[string]func(*call) (any, error)
	allow  []string
}

// ServeHTTP answers one request for the path.
func (m *methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	work := m.work[r.Method]
	if work == nil {
		work = refuse(errMethod(r.Method, m.allow))
	}
	m.api.serve(w, r, m.family, m.path, work)
}
