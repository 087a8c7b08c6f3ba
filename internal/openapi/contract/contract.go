// Package contract holds an API against its description, in tests: the document
// against OpenAPI, the examples against the schemas, and real answers against
// what is said of them.
package contract

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/simlatch/simlatch/internal/openapi"
)

// Contract is a description, ready to have answers held against it. Its
// schemas are those of the document, closed: a client may take an unknown
// member calmly, but an answer or an example with a member that the
// description does not have is a mistake.
type Contract struct {
	doc     map[string]any
	schemas *jsonschema.Compiler

	mu sync.Mutex // of schemas
}

// contractAt is where the document stands for its schemas to refer to.
const contractAt = "https://simlatch.example/openapi.json"

// Read reads a description in YAML. It fails where that is no document of
// OpenAPI 3.1, as far as we use it.
func Read(inYAML []byte) (*Contract, error) {
	doc, err := readYAML(inYAML)
	if err != nil {
		return nil, err
	}
	if err := shape.Validate(doc); err != nil {
		return nil, err
	}
	walk(doc, "", func(pointer string, m map[string]any) {
		if _, ok := m["properties"].(map[string]any); ok && m["additionalProperties"] == nil {
			m["unevaluatedProperties"] = false
		}
	})
	c := &Contract{doc: doc, schemas: jsonschema.NewCompiler()}
	c.schemas.DefaultDraft(jsonschema.Draft2020)
	c.schemas.AssertFormat()
	return c, c.schemas.AddResource(contractAt, doc)
}

func readYAML(inYAML []byte) (map[string]any, error) {
	asJSON, err := openapi.JSON(inYAML)
	if err != nil {
		return nil, err
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, err
	}
	doc, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the document is no object")
	}
	return doc, nil
}

var escapePointer = strings.NewReplacer("~", "~0", "/", "~1")

// walk visits each object of the document, but for what is in examples.
func walk(v any, pointer string, visit func(pointer string, m map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(pointer, v)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if name != "example" && name != "examples" {
				walk(v[name], pointer+"/"+escapePointer.Replace(name), visit)
			}
		}
	case []any:
		for i, element := range v {
			walk(element, fmt.Sprintf("%s/%d", pointer, i), visit)
		}
	}
}

// find follows a pointer, and the references it meets, to an object; it tells
// where the object really is. It is nil if there is none.
func (c *Contract) find(pointer string) (string, map[string]any) {
	var v any = c.doc
	at := ""
	for _, name := range strings.Split(pointer, "/")[1:] {
		m, ok := v.(map[string]any)
		if !ok {
			return pointer, nil
		}
		at += "/" + name
		v = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(name)]
		if m, ok := v.(map[string]any); ok && m["$ref"] != nil {
			ref, _ := m["$ref"].(string)
			at, v = c.find(strings.TrimPrefix(ref, "#"))
		}
	}
	m, _ := v.(map[string]any)
	return at, m
}

// schema is the schema at a pointer.
func (c *Contract) schema(pointer string) (*jsonschema.Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.schemas.Compile(contractAt + (&url.URL{Fragment: pointer}).String())
}

// holds tells whether a value is one of the schema at a pointer.
func (c *Contract) holds(pointer string, value any) error {
	s, err := c.schema(pointer)
	if err != nil {
		return err
	}
	return s.Validate(value)
}

// holdsJSON is holds for a value in JSON.
func (c *Contract) holdsJSON(pointer string, value []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return err
	}
	return c.holds(pointer, v)
}

// holdsText is holds for the value of a header or a parameter.
func (c *Contract) holdsText(pointer, value string) error {
	if _, s := c.find(pointer); s["type"] != "string" {
		return c.holdsJSON(pointer, []byte(value))
	}
	return c.holds(pointer, value)
}

// operation finds what the description says of a call; a path with fewer
// parameters goes before one with more. It is "" if there is nothing.
func (c *Contract) operation(method, path string) string {
	found := ""
	paths := c.doc["paths"].(map[string]any)
	for template, item := range paths {
		servers, ok := item.(map[string]any)["servers"].([]any)
		if !ok {
			servers = c.doc["servers"].([]any)
		}
		for _, s := range servers {
			rest, ok := strings.CutPrefix(path, s.(map[string]any)["url"].(string))
			if ok && fits(template, rest) && (found == "" || strings.Count(template, "{") < strings.Count(found, "{")) {
				found = template
			}
		}
	}
	member := strings.ToLower(method)
	if item, _ := paths[found].(map[string]any); item[member] == nil || method == member {
		return ""
	}
	return "/paths/" + escapePointer.Replace(found) + "/" + member
}

func fits(template, path string) bool {
	if strings.HasSuffix(template, "/actions") {
		path = strings.TrimSuffix(path, "/") // as is said there
	}
	return slices.EqualFunc(strings.Split(template, "/"), strings.Split(path, "/"), func(want, got string) bool {
		got, err := url.PathUnescape(got)
		return err == nil && (want == got || strings.HasPrefix(want, "{") && got != "")
	})
}

// ErrNoOperation says that the description has no such call.
var ErrNoOperation = errors.New("there is no such operation")

// Answer tells what is not as described in the answer to a call. Of a call that
// is not described the error is ErrNoOperation.
func (c *Contract) Answer(method, path string, a *http.Response, body []byte) error {
	op := c.operation(method, path)
	if op == "" {
		return ErrNoOperation
	}
	of := fmt.Sprintf("%s/responses/%d", op, a.StatusCode)
	if _, exact := c.find(of); exact == nil {
		if _, others := c.find(op + "/responses/default"); others != nil {
			of = op + "/responses/default"
		}
	}
	return c.response(of, a.Header, body)
}

// Holds tells whether a value in JSON is one of the named schema of the
// components.
func (c *Contract) Holds(schema string, value []byte) error {
	return c.holdsJSON("/components/schemas/"+schema, value)
}

// response holds an answer against the response at a pointer.
func (c *Contract) response(pointer string, header http.Header, body []byte) error {
	pointer, response := c.find(pointer)
	if response == nil {
		return fmt.Errorf("no response %s", pointer)
	}
	headers, _ := response["headers"].(map[string]any)
	for name := range headers {
		at, h := c.find(pointer + "/headers/" + escapePointer.Replace(name))
		values := header.Values(name)
		if len(values) == 0 && h["required"] == true {
			return fmt.Errorf("no header %s", name)
		}
		for _, v := range values {
			if err := c.holdsText(at+"/schema", v); err != nil {
				return fmt.Errorf("the header %s: %w", name, err)
			}
		}
	}
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		return err
	}
	at, content := c.find(pointer + "/content/" + escapePointer.Replace(mediaType))
	if content == nil {
		return fmt.Errorf("no content %s", at)
	}
	return c.holdsJSON(at+"/schema", body)
}

// Examples tells which examples of the document are none, and counts them all.
func (c *Contract) Examples() (n int, errs []error) {
	walk(c.doc, "", func(pointer string, m map[string]any) {
		schema := pointer
		if m["schema"] != nil {
			schema += "/schema"
		}
		var values []any
		if e, ok := m["example"]; ok {
			values = append(values, e)
		}
		switch es := m["examples"].(type) {
		case []any: // of a schema
			values = append(values, es...)
		case map[string]any: // of a body
			for _, e := range es {
				values = append(values, e.(map[string]any)["value"])
			}
		}
		for _, v := range values {
			n++
			if err := c.holds(schema, v); err != nil {
				errs = append(errs, fmt.Errorf("the example %v: %w", v, err))
			}
		}
	})
	return n, errs
}

// Mistakes tells what is wrong in the document that its shape does not show:
// references and names that lead nowhere, schemas that are none, parameters of
// paths that are not described.
func (c *Contract) Mistakes() (errs []error) {
	names := map[any]bool{}
	for _, t := range c.doc["tags"].([]any) {
		names[t.(map[string]any)["name"]] = true
	}
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	walk(c.doc, "", func(pointer string, m map[string]any) {
		if ref, ok := m["$ref"].(string); ok {
			if _, target := c.find(strings.TrimPrefix(ref, "#")); !strings.HasPrefix(ref, "#/") || target == nil {
				wrong("%s: the reference %s leads nowhere", pointer, ref)
			}
		}
		if s := pointer + "/schema"; m["schema"] != nil {
			if _, err := c.schema(s); err != nil {
				wrong("%w", err)
			}
		}
		if in := strings.TrimPrefix(pointer, "/components/schemas/"); in != pointer && !strings.Contains(in, "/") {
			if _, err := c.schema(pointer); err != nil {
				wrong("%w", err)
			}
		}
		if id, ok := m["operationId"]; ok {
			if names[id] {
				wrong("%s: two operations are called %s", pointer, id)
			}
			names[id] = true
		}
		tags, _ := m["tags"].([]any)
		for _, t := range tags {
			if pointer != "" && !names[t] {
				wrong("%s: there is no tag %s", pointer, t)
			}
		}
		security, _ := m["security"].([]any)
		for _, s := range security {
			for name := range s.(map[string]any) {
				if _, scheme := c.find("/components/securitySchemes/" + name); scheme == nil {
					wrong("%s: there is no security scheme %s", pointer, name)
				}
			}
		}
	})
	return append(errs, c.parameters()...)
}

// parameters holds the parameters in the paths against those described.
func (c *Contract) parameters() (errs []error) {
	for path, item := range c.doc["paths"].(map[string]any) {
		told := map[string]bool{}
		parameters, _ := item.(map[string]any)["parameters"].([]any)
		for _, p := range parameters {
			m := p.(map[string]any)
			if ref, ok := m["$ref"].(string); ok {
				_, m = c.find(strings.TrimPrefix(ref, "#"))
			}
			if m["in"] == "path" && m["required"] == true {
				told[fmt.Sprintf("{%s}", m["name"])] = true
			}
		}
		used := map[string]bool{}
		for segment := range strings.SplitSeq(path, "/") {
			if strings.HasPrefix(segment, "{") {
				used[segment] = true
			}
		}
		if !maps.Equal(told, used) {
			errs = append(errs, fmt.Errorf("%s: the parameters %v are described", path, told))
		}
	}
	return errs
}

// Operations lists what is described: "GET /pets", and so on.
func (c *Contract) Operations() (list []string) {
	for path, item := range c.doc["paths"].(map[string]any) {
		for member := range item.(map[string]any) {
			switch method := strings.ToUpper(member); method {
			case http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodOptions,
				http.MethodHead, http.MethodPatch, http.MethodTrace:
				list = append(list, method+" "+path)
			}
		}
	}
	slices.Sort(list)
	return list
}
