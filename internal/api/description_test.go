package api

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/openapi"
	"github.com/simlatch/simlatch/internal/openapi/contract"
	"github.com/simlatch/simlatch/m2m"
)

// described is the description as it is served in JSON.
func described(t *testing.T) map[string]any {
	t.Helper()
	asJSON, err := openapi.JSON(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(asJSON, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// at walks into nested objects.
func at(t *testing.T, v any, path ...string) any {
	t.Helper()
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok || m[p] == nil {
			t.Fatalf("the description has no %v", path)
		}
		v = m[p]
	}
	return v
}

// theContract is read once: that takes a while.
var theContract = sync.OnceValue(func() *contract.Contract {
	c, err := contract.Read(openAPI)
	if err != nil {
		panic(err)
	}
	return c
})

// asDescribed holds an answer against the description, and one of a path or a
// method that is not described against the errors there are for those.
func asDescribed(method, path string, a *http.Response, body []byte) error {
	err := theContract().Answer(method, path, a, body)
	if errors.Is(err, contract.ErrNoOperation) {
		switch a.StatusCode {
		case http.StatusNotFound:
			return theContract().Holds("GatewayError", body)
		case http.StatusMethodNotAllowed:
			return theContract().Holds("Error", body)
		}
	}
	return err
}

func TestDescriptionIsValid(t *testing.T) {
	for _, err := range theContract().Mistakes() {
		t.Error(err)
	}
}

// TestDescriptionIsComplete holds the routes against the description, both ways.
func TestDescriptionIsComplete(t *testing.T) {
	h := newHarness(t)
	var served []string
	for _, r := range append(licenseRoutes(h.api), tokenRoutes(h.api)...) {
		served = append(served, r.method+" "+r.path)
	}
	slices.Sort(served)
	if diff := cmp.Diff(served, theContract().Operations()); diff != "" {
		t.Errorf("routes (-served +described):\n%s", diff)
	}
}

// TestEveryCodeIsDescribed reads the codes off the sources.
func TestEveryCodeIsDescribed(t *testing.T) {
	codes := map[string]bool{}
	for _, name := range []string{"errors.go", "../../m2m/errors.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				if err == nil && strings.Contains(s, ".") && !strings.ContainsAny(s, " /") && !strings.HasSuffix(s, ".") {
					codes[s] = true
				}
			}
			return true
		})
	}
	delete(codes, m2m.ErrAlreadyLicensed.Code) // of callbacks only
	var told []string
	for _, c := range at(t, described(t), "components", "schemas", "ErrorCode", "enum").([]any) {
		told = append(told, c.(string))
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(codes)), told); diff != "" {
		t.Errorf("codes (-sources +description, in order):\n%s", diff)
	}
}

// TestSchemasHaveTheFieldsOfTheTypes holds the schemas against the wire types.
func TestSchemasHaveTheFieldsOfTheTypes(t *testing.T) {
	schemas := at(t, described(t), "components", "schemas")
	for name, v := range map[string]any{
		"Token": m2m.TokenAnswer{}, "Revoked": m2m.RevokeAnswer{}, "LoginRequest": m2m.LoginRequest{}, "Session": m2m.SessionAnswer{},
		"PasswordReset": m2m.PasswordReset{}, "NewPassword": m2m.PasswordAnswer{}, "LicenseRequest": m2m.LicenseRequest{}, "Device": m2m.Device{},
		"DeviceID": m2m.DeviceID{}, "RequestDeviceID": m2m.DeviceID{}, "Accepted": m2m.RequestAccepted{}, "Plan": m2m.Plan{}, "PlanDevice": m2m.PlanDevice{},
		"Account": m2m.Account{}, "RequestStatus": m2m.RequestStatus{}, "SubscriptionsRequest": m2m.SubscriptionsRequest{},
		"Subscriptions": m2m.Subscriptions{}, "Subscription": m2m.Subscription{}, "ListenerRequest": m2m.ListenerRequest{},
		"ListenerAnswer": m2m.ListenerAnswer{}, "Listener": m2m.Listener{}, "CallbackMessage": m2m.CallbackMessage{},
		"DeviceListRequest": m2m.DeviceListRequest{}, "DeviceList": m2m.DeviceList{}, "DeviceInfo": m2m.DeviceInfo{}, "Attribute": m2m.Attribute{},
		"Error": errorBody{}, "Fault": fault{},
	} {
		var fields []string
		for f := range reflect.TypeOf(v).Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields = append(fields, tag)
		}
		slices.Sort(fields)
		properties := at(t, schemas, name, "properties").(map[string]any)
		if diff := cmp.Diff(fields, slices.Sorted(maps.Keys(properties))); diff != "" {
			t.Errorf("%s (-type +schema):\n%s", name, diff)
		}
	}
}

// TestExamples holds the examples against their schemas.
func TestExamples(t *testing.T) {
	n, errs := theContract().Examples()
	for _, err := range errs {
		t.Error(err)
	}
	if n < 90 {
		t.Errorf("%d examples looked at", n)
	}
}

func TestDescriptionIsServed(t *testing.T) {
	h := newHarness(t)
	get := func(method, path string) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.handler.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
		return rec
	}
	for path, want := range map[string]string{
		"/openapi.yaml": "application/yaml", "/openapi.json": "application/json", "/docs": "text/html", "/docs/": "text/html",
		"/docs/swagger-ui.css": "text/css", "/docs/swagger-ui-bundle.js": "application/javascript",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			if res := get(method, path); res.Code != http.StatusOK || !strings.HasPrefix(res.Header().Get("Content-Type"), want) {
				t.Errorf("%s %s: %d %s", method, path, res.Code, res.Header().Get("Content-Type"))
			}
		}
		if res := get("POST", path); res.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, res.Code)
		}
	}
	var missing errorBody
	if res := get("GET", "/docs/nosuch"); res.Code != http.StatusNotFound || json.Unmarshal(res.Body.Bytes(), &missing) != nil ||
		missing.Code != codeNoResource || !strings.HasPrefix(res.Header().Get("Content-Type"), "application/json") {
		t.Errorf("GET /docs/nosuch: %d %v %s", res.Code, res.Header(), res.Body)
	}
}
