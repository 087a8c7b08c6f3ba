package operator

import (
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// route is one method of one path, and the role it asks for.
type route struct {
	method string
	path   string // below client.Prefix
	need   auth.Role
	work   func(*call) (any, error)
	long   bool // it may take the long timeout
}

// Paths that are not like others: an upload, and a stream.
const (
	importPath = "/sims/import"
	eventsPath = "/events"
)

// The methods, and the roles, as the lists of routes have them.
const (
	get, post, put, patch, remove = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete
	viewer, daily, admin          = auth.RoleViewer, auth.RoleOperator, auth.RoleAdmin
)

// routes are all there are.
func (a *API) routes() []route {
	return slices.Concat(a.accessRoutes(), a.workRoutes())
}

// Route is a method and a path, with its parameters in braces, and the role that
// it takes.
type Route struct {
	Method, Path string
	Need         auth.Role
}

// Routes lists every route there is, for tests that must forget none.
func (a *API) Routes() (list []Route) {
	for _, r := range a.routes() {
		list = append(list, Route{r.method, client.Prefix + r.path, r.need})
	}
	return list
}

// accessRoutes are about who may do what.
func (a *API) accessRoutes() []route {
	const account = "/accounts/{account}"
	return []route{
		{method: get, path: "/self", need: viewer, work: read(a.self)},
		{method: get, path: "/overview", need: viewer, work: read(a.overview)},

		{method: get, path: "/accounts", need: viewer, work: read(a.listAccounts)},
		{method: post, path: "/accounts", need: admin, work: change(a.addAccount)},
		{method: get, path: account, need: viewer, work: read(a.getAccount)},

		{method: get, path: account + "/policy", need: viewer, work: read(a.getPolicy)},
		{method: put, path: account + "/policy", need: admin, work: change(a.setPolicy)},

		{method: get, path: "/applications", need: viewer, work: read(a.listApplications)},
		{method: post, path: "/applications", need: admin, work: change(a.addApplication)},
		{method: get, path: "/applications/{key}", need: viewer, work: read(a.getApplication)},
		{method: patch, path: "/applications/{key}", need: admin, work: change(a.changeApplication)},
		{method: post, path: "/applications/{key}/rotate", need: admin, work: change(a.rotateApplication)},
		{method: post, path: "/applications/{key}/end-old-secret", need: admin, work: read(a.endOldSecret)},
		{method: post, path: "/applications/{key}/unlock", need: daily, work: read(a.unlockApplication)},

		{method: get, path: "/users", need: viewer, work: read(a.listUsers)},
		{method: post, path: "/users", need: admin, work: change(a.addUser)},
		{method: get, path: "/users/{name}", need: viewer, work: read(a.getUser)},
		{method: patch, path: "/users/{name}", need: admin, work: change(a.changeUser)},
		{method: post, path: "/users/{name}/rotate", need: admin, work: change(a.rotateUser)},
		{method: post, path: "/users/{name}/unlock", need: daily, work: read(a.unlockUser)},

		{method: get, path: "/operators", need: admin, work: read(a.listOperators)},
		{method: post, path: "/operators", need: admin, work: change(a.addOperator)},
		{method: get, path: "/operators/{name}", need: admin, work: read(a.getOperator)},
		{method: patch, path: "/operators/{name}", need: admin, work: change(a.changeOperator)},
		{method: post, path: "/operators/{name}/rotate", need: admin, work: read(a.rotateOperator)},
		{method: post, path: "/operators/{name}/password", need: admin, work: change(a.setOperatorPassword)},
		{method: remove, path: "/operators/{name}/password", need: admin, work: read(a.removeOperatorPassword)},
	}
}

// workRoutes are about licenses, and what becomes of them.
func (a *API) workRoutes() []route {
	const account, request = "/accounts/{account}", "/accounts/{account}/requests/{request}"
	return []route{
		{method: get, path: "/pools", need: viewer, work: read(a.listPools)},
		{method: get, path: account + "/pools/{sku}", need: viewer, work: read(a.getPool)},
		{method: patch, path: account + "/pools/{sku}", need: daily, work: change(a.changePool)},
		{method: get, path: account + "/pools/{sku}/purchases", need: viewer, work: read(a.listPurchases)},
		{method: post, path: account + "/pools/{sku}/purchases", need: daily, work: change(a.addPurchase)},

		{method: get, path: "/sims", need: viewer, work: read(a.listSIMs)},
		{method: post, path: importPath, need: daily, work: a.importSIMs, long: true},
		{method: post, path: account + "/sims/state", need: daily, work: change(a.changeSIMs)},
		{method: get, path: account + "/sims/{iccid}", need: viewer, work: read(a.getSIM)},
		{method: patch, path: account + "/sims/{iccid}", need: daily, work: change(a.changeSIM)},
		{method: get, path: account + "/sims/{iccid}/history", need: viewer, work: read(a.simHistory)},

		{method: get, path: "/requests", need: viewer, work: read(a.listRequests)},
		{method: post, path: account + "/plan", need: daily, work: change(a.plan)},
		{method: post, path: account + "/requests", need: daily, work: change(a.place)},
		{method: get, path: request, need: viewer, work: read(a.getRequest)},
		{method: get, path: request + "/exchange", need: viewer, work: read(a.requestExchange)},
		{method: get, path: request + "/tasks", need: viewer, work: read(a.listTasks)},
		{method: get, path: request + "/tasks/{iccid}", need: viewer, work: read(a.getTask)},
		{method: get, path: request + "/tasks/{iccid}/exchange", need: viewer, work: read(a.taskExchange)},
		{method: post, path: request + "/tasks/{iccid}/decide", need: daily, work: change(a.decide)},

		{method: get, path: "/callbacks", need: viewer, work: read(a.listCallbacks), long: true},
		{method: post, path: account + "/callbacks/send", need: daily, work: change(a.sendCallbacks), long: true},
		{method: get, path: "/stuck", need: viewer, work: read(a.listStuck)},

		{method: get, path: "/listeners", need: viewer, work: read(a.listListeners)},
		{method: get, path: account + "/listeners/{service}", need: viewer, work: read(a.getListener)},
		{method: patch, path: account + "/listeners/{service}", need: daily, work: change(a.changeListener)},
		{method: remove, path: account + "/listeners/{service}", need: daily, work: read(a.removeListener)},
		{method: post, path: account + "/listeners/{service}/secret", need: daily, work: read(a.newSigningSecret)},
		{method: post, path: account + "/listeners/{service}/test", need: daily, work: read(a.testListener), long: true},

		{method: post, path: "/verify", need: daily, work: read(a.verify), long: true},
		{method: get, path: "/audit", need: viewer, work: read(a.listAudit)},
		{method: get, path: eventsPath, need: viewer, work: a.streamEvents},
	}
}

// add registers routes: one pattern per path, whose handler knows the methods,
// since the mux would answer other methods in its own words.
func (a *API) add(routes []route) {
	paths := map[string]map[string]route{}
	for _, r := range routes {
		if paths[r.path] == nil {
			paths[r.path] = map[string]route{}
		}
		paths[r.path][r.method] = r
	}
	for p, byMethod := range paths {
		var allow []string
		for method := range byMethod {
			allow = append(allow, method)
		}
		slices.Sort(allow)
		a.mux.HandleFunc(client.Prefix+p, func(w http.ResponseWriter, r *http.Request) {
			route, ok := byMethod[r.Method]
			if !ok {
				route.path = p
				w.Header().Set("Allow", strings.Join(allow, ", "))
				route.work = refuse(problemf(errMethod, "%s is not for this path: %s", r.Method, strings.Join(allow, ", ")))
			}
			a.serve(w, r, route)
		})
	}
	a.mux.HandleFunc("/", a.noSuchPath)
}

func (a *API) noSuchPath(w http.ResponseWriter, r *http.Request) {
	a.serve(w, r, route{path: "none", work: refuse(problemf(errNotFound,
		"there is no such path; %s lists those there are", descriptionPath))})
}

// ServeHTTP answers one request. It must see paths as they were sent.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The mux would redirect what is not clean.
	if p := r.URL.EscapedPath(); p == path.Clean(p) || p == docsPath {
		a.mux.ServeHTTP(w, r)
		return
	}
	a.noSuchPath(w, r)
}

func refuse(err error) func(*call) (any, error) {
	return func(*call) (any, error) { return nil, err }
}
