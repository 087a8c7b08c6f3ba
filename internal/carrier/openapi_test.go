package carrier

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/simlatch/simlatch/internal/license"
)

// description is docs/carrier.openapi.yaml, for those who write a carrier.
type description struct {
	t       *testing.T
	doc     map[string]any
	schemas *jsonschema.Compiler
}

// describedAt is where the document stands for its schemas to refer to.
const describedAt = "https://simlatch.example/carrier.json"

func readDescription(t *testing.T) *description {
	t.Helper()
	text, err := os.ReadFile("../../docs/carrier.openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var inYAML any
	if err := yaml.Unmarshal(text, &inYAML); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(inYAML)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	d := &description{t: t, doc: doc.(map[string]any), schemas: jsonschema.NewCompiler()}
	// Real JSON has no member that is not described.
	for _, schema := range d.at("components", "schemas").(map[string]any) {
		if s := schema.(map[string]any); s["properties"] != nil {
			s["additionalProperties"] = false
		}
	}
	d.schemas.DefaultDraft(jsonschema.Draft2020)
	d.schemas.AssertFormat()
	if err := d.schemas.AddResource(describedAt, doc); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *description) at(path ...string) any {
	d.t.Helper()
	var v any = d.doc
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok || m[p] == nil {
			d.t.Fatalf("the description has no %v", path)
		}
		v = m[p]
	}
	return v
}

// fits holds JSON against a schema.
func (d *description) fits(schema string, body []byte) {
	d.t.Helper()
	s, err := d.schemas.Compile(describedAt + "#/components/schemas/" + schema)
	if err != nil {
		d.t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = s.Validate(v)
	}
	if err != nil {
		d.t.Errorf("%s\nis no %s: %v", body, schema, err)
	}
}

// TestDescription holds the description against what is really said.
func TestDescription(t *testing.T) {
	d := readDescription(t)
	tasks := someTasks(3, license.Assign, time.Now())
	tasks[1].Device.IMEI, tasks[1].Device.MDN, tasks[2].Attempt = "", "5551230001", 7
	call, err := encodeCall(tasks)
	if err != nil {
		t.Fatal(err)
	}
	d.fits("Call", call)
	d.fits("Call", d.example("/", "requestBody"))
	for _, place := range [][]string{{"/", "responses", "200"}, {OutcomesPath, "requestBody"}} {
		example := d.example(place...)
		d.fits(map[bool]string{true: "Outcomes", false: "LateOutcomes"}[place[0] == "/"], example)
		said, err := decodeOutcomes(example)
		if err != nil || len(said) != 2 {
			t.Errorf("%v: %+v, %v", place, said, err)
		}
		for _, m := range said {
			if _, valid := verdictOf(m.Outcome); !valid {
				t.Errorf("%v: %+v is no outcome", place, m)
			}
			if _, _, ok := cutKey(m.Key); !ok {
				t.Errorf("%v: %q is no key", place, m.Key)
			}
		}
	}
	// A receiver takes what the description shows, and says what it describes.
	r := newReceiver(t, func(p license.LateParams) (license.LateSettlement, error) {
		return license.LateSettlement{Results: make([]license.LateResult, len(p.Outcomes))}, nil
	}, nil)
	for _, c := range []struct {
		req    *http.Request
		schema string
	}{
		{signed(string(d.example(OutcomesPath, "requestBody")), time.Now()), "Results"},
		{signed(`{"outcomes":[{}]}`, time.Now()), "Results"},
		{httptest.NewRequest(http.MethodGet, OutcomesPath, nil), "Problem"},
	} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, c.req)
		d.fits(c.schema, w.Body.Bytes())
	}
	d.fits("Results", d.example(OutcomesPath, "responses", "200"))
}

// example is that of a path's POST.
func (d *description) example(place ...string) []byte {
	d.t.Helper()
	path := append([]string{"paths", place[0], "post"}, place[1:]...)
	body, err := json.Marshal(d.at(append(path, "content", "application/json", "example")...))
	if err != nil {
		d.t.Fatal(err)
	}
	return body
}

// TestDescriptionIsComplete holds the schemas against the types, and the words
// against the constants.
func TestDescriptionIsComplete(t *testing.T) {
	d := readDescription(t)
	for name, v := range map[string]any{
		"Call": callMessage{}, "Task": taskMessage{}, "Device": deviceMessage{}, "Outcomes": outcomesMessage{},
		"Results": resultsMessage{}, "Result": resultMessage{}, "Problem": problem{},
	} {
		if diff := cmp.Diff(members(reflect.TypeOf(v)), names(d.at("components", "schemas", name, "properties"))); diff != "" {
			t.Errorf("%s (-type +description):\n%s", name, diff)
		}
	}
	both := append(names(d.at("components", "schemas", "Outcome", "properties")), "account")
	late := append(names(d.at("components", "schemas", "LateOutcome", "properties")), "due")
	for _, described := range [][]string{both, late} {
		slices.Sort(described)
		if diff := cmp.Diff(members(reflect.TypeOf(outcomeMessage{})), described); diff != "" {
			t.Errorf("outcomes (-type +description):\n%s", diff)
		}
	}
	want := []string{resultInvalid}
	for _, r := range license.LateResults {
		want = append(want, r.String())
	}
	var got []string
	for _, r := range d.at("components", "schemas", "Result", "properties", "result", "enum").([]any) {
		got = append(got, r.(string))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("results (-constants +description):\n%s", diff)
	}
}

func members(of reflect.Type) (list []string) {
	for f := range of.Fields() {
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" {
			list = append(list, tag)
		}
	}
	slices.Sort(list)
	return list
}

func names(v any) (list []string) {
	for name := range v.(map[string]any) {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
