package api

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/swaggest/swgui/v5emb"
	"go.yaml.in/yaml/v3"
)

// openAPI is the description of the API, written by hand: OpenAPI 3.1.
//
//go:embed openapi.yaml
var openAPI []byte

const docsPath = "/docs/"

// OpenAPI is the description of the API: OpenAPI 3.1, in YAML.
func OpenAPI() []byte { return bytes.Clone(openAPI) }

// openAPIAsJSON is made once: a process may hold many APIs, in a sandbox.
var openAPIAsJSON = sync.OnceValues(func() ([]byte, error) { return yamlToJSON(openAPI) })

// addDescription registers the document in both forms and the page that shows
// it.
func (rt *router) addDescription() error {
	asJSON, err := openAPIAsJSON()
	if err != nil {
		return fmt.Errorf("reading the API description: %w", err)
	}
	rt.static("/openapi.yaml", document("application/yaml", openAPI))
	rt.static("/openapi.json", document("application/json", asJSON))
	page := v5emb.New("Simlatch: SIM-Secure license API", "/openapi.json", docsPath)
	rt.static("/docs", page)
	rt.static(docsPath, page)
	return nil
}

// static registers something that can only be read.
func (rt *router) static(path string, h http.Handler) {
	rt.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			h.ServeHTTP(w, r)
			return
		}
		rt.api.serve(w, r, licenseFamily(), path, refuse(errMethod(r.Method, []string{http.MethodGet, http.MethodHead})))
	})
}

func document(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		// A browser's page elsewhere may read it: it is public.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		_, _ = w.Write(body)
	})
}

// yamlToJSON keeps the order of members, which a reader of the document sees.
func yamlToJSON(doc []byte) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(doc, &node); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	if err := encodeNode(enc, &node); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func encodeNode(enc *jsontext.Encoder, n *yaml.Node) error {
	switch n.Kind {
	case yaml.DocumentNode:
		return encodeNode(enc, n.Content[0])
	case yaml.AliasNode:
		return encodeNode(enc, n.Alias)
	case yaml.MappingNode:
		return encodeNodes(enc, n.Content, jsontext.BeginObject, jsontext.EndObject)
	case yaml.SequenceNode:
		return encodeNodes(enc, n.Content, jsontext.BeginArray, jsontext.EndArray)
	case yaml.ScalarNode:
		return encodeScalar(enc, n)
	}
	return fmt.Errorf("line %d: unknown kind of node", n.Line)
}

func encodeNodes(enc *jsontext.Encoder, nodes []*yaml.Node, begin, end jsontext.Token) error {
	if err := enc.WriteToken(begin); err != nil {
		return err
	}
	for i, n := range nodes {
		name := begin.Kind() == '{' && i%2 == 0
		if name {
			if err := enc.WriteToken(jsontext.String(n.Value)); err != nil {
				return fmt.Errorf("line %d: %w", n.Line, err)
			}
			continue
		}
		if err := encodeNode(enc, n); err != nil {
			return err
		}
	}
	return enc.WriteToken(end)
}

func encodeScalar(enc *jsontext.Encoder, n *yaml.Node) error {
	switch n.Tag {
	case "!!bool", "!!int", "!!float", "!!null":
		// The document writes these as JSON does.
		return enc.WriteValue(jsontext.Value(n.Value))
	}
	return enc.WriteToken(jsontext.String(n.Value))
}
