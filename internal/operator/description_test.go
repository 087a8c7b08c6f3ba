package operator_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/openapi"
	"github.com/simlatch/simlatch/internal/operator"
	"github.com/simlatch/simlatch/internal/operator/client"
)

func TestDescriptionIsValid(t *testing.T) {
	for _, err := range theContract().Mistakes() {
		t.Error(err)
	}
	n, errs := theContract().Examples()
	for _, err := range errs {
		t.Error(err)
	}
	if n < 5 {
		t.Errorf("%d examples looked at", n)
	}
}

// TestDescriptionIsComplete holds the routes against the description, both ways.
func TestDescriptionIsComplete(t *testing.T) {
	if diff := cmp.Diff(operator.Routes(), theContract().Operations()); diff != "" {
		t.Errorf("routes (-served +described):\n%s", diff)
	}
}

// TestSchemasHaveTheFieldsOfTheTypes holds the schemas against the client's types.
func TestSchemasHaveTheFieldsOfTheTypes(t *testing.T) {
	asJSON, err := openapi.JSON(operator.OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
				Required   []string
			}
		}
	}
	if err := json.Unmarshal(asJSON, &doc); err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{
		client.Self{},
		client.Account{},
		client.NewAccount{},
		client.Application{},
		client.NewApplication{},
		client.ApplicationSecret{},
		client.ApplicationChange{},
		client.User{},
		client.NewUser{},
		client.UserPassword{},
		client.UserChange{},
		client.NewSecret{},
		client.Operator{},
		client.NewOperator{},
		client.OperatorToken{},
		client.OperatorChange{},
		client.Pool{},
		client.PoolChange{},
		client.Alert{},
		client.NewPurchase{},
		client.Purchase{},
		client.SIM{},
		client.License{},
		client.SIMChange{},
		client.SIMsChange{},
		client.Changed{},
		client.NewSIM{},
		client.NewSIMs{},
		client.Imported{},
		client.Line{},
		client.Request{},
		client.Moment{},
		client.RequestDetail{},
		client.Task{},
		client.Attempt{},
		client.TaskDetail{},
		client.StuckTask{},
		client.Decision{},
		client.SendCallbacks{},
		client.SentCallbacks{},
		client.Listener{},
		client.ListenerChange{},
		client.SigningSecret{},
		client.Tested{},
		client.Verified{},
		client.Drift{},
		client.Event{},
		client.Problem{},
	} {
		typ := reflect.TypeOf(v)
		var fields, required []string
		for f := range typ.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields = append(fields, name)
			if options == "" {
				required = append(required, name)
			}
		}
		schema := doc.Components.Schemas[typ.Name()]
		slices.Sort(fields)
		if diff := cmp.Diff(fields, slices.Sorted(maps.Keys(schema.Properties))); diff != "" {
			t.Errorf("%s (-type +schema):\n%s", typ.Name(), diff)
		}
		slices.Sort(required)
		slices.Sort(schema.Required)
		if diff := cmp.Diff(required, schema.Required); diff != "" {
			t.Errorf("what %s must have (-type +schema):\n%s", typ.Name(), diff)
		}
	}
}

// TestEveryKindIsDescribed holds the kinds of problems against the description.
func TestEveryKindIsDescribed(t *testing.T) {
	for _, kind := range operator.Kinds() {
		if err := theContract().Holds("ProblemType", []byte(`"`+client.TypePrefix+kind+`"`)); err != nil {
			t.Error(err)
		}
	}
}

func TestDescriptionIsServed(t *testing.T) {
	each(t, func(t *testing.T, h *harness) {
		for path, want := range map[string]string{
			"/operator/v1/openapi.yaml": "application/yaml", "/operator/v1/openapi.json": "application/json",
			"/operator/docs": "text/html", "/operator/docs/": "text/html", "/operator/docs/swagger-ui.css": "text/css",
		} {
			for method, status := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405} {
				req, err := http.NewRequestWithContext(t.Context(), method, h.url+path, nil)
				h.must(err)
				resp, err := http.DefaultClient.Do(req)
				h.must(err)
				_ = resp.Body.Close()
				if resp.StatusCode != status || status == 200 && !strings.HasPrefix(resp.Header.Get("Content-Type"), want) {
					t.Errorf("%s %s: %d %s", method, path, resp.StatusCode, resp.Header.Get("Content-Type"))
				}
			}
		}
		for path, kind := range map[string]string{"/nothing": "not-found", "//accounts": "not-found", "/accounts/": "not-found", "/operator": "not-found", "/openapi.json/x": "not-found"} {
			resp, err := http.Get(h.url + "/operator/v1" + path)
			h.must(err)
			var p client.Problem
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Type != client.TypePrefix+kind || resp.StatusCode != 404 {
				t.Errorf("%s: %d %+v, %v", path, resp.StatusCode, p, err)
			}
			_ = resp.Body.Close()
		}
		missing, err := http.Get(h.url + "/operator/docs/nosuch")
		h.must(err)
		var none client.Problem
		if err := json.NewDecoder(missing.Body).Decode(&none); err != nil || none.Type != client.TypePrefix+"not-found" || missing.StatusCode != 404 {
			t.Errorf("/operator/docs/nosuch: %d %+v, %v", missing.StatusCode, none, err)
		}
		_ = missing.Body.Close()
		req, _ := http.NewRequestWithContext(t.Context(), "PUT", h.url+"/operator/v1/accounts", nil)
		resp, err := http.DefaultClient.Do(req)
		h.must(err)
		_ = resp.Body.Close()
		if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, POST" {
			t.Errorf("PUT: %d, Allow: %s", resp.StatusCode, resp.Header.Get("Allow"))
		}
	})
}
