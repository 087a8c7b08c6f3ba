package operator

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/http"

	"github.com/simlatch/simlatch/internal/openapi"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// description is the description of the API, written by hand: OpenAPI 3.1.
//
//go:embed openapi.yaml
var description []byte

const (
	docsPath        = "/operator/docs/"
	descriptionPath = client.Prefix + "/openapi.yaml"
)

// OpenAPI is the description of the API: OpenAPI 3.1, in YAML.
func OpenAPI() []byte { return bytes.Clone(description) }

// addDescription registers the document in both forms and the page that shows it.
// They are public: they say what the API is, and nothing of what is in it.
func (a *API) addDescription() error {
	asJSON, err := openapi.JSON(description)
	if err != nil {
		return fmt.Errorf("reading the operator API's description: %w", err)
	}
	page := openapi.Page("Simlatch: operator API", client.Prefix+"/openapi.json", docsPath, a.noSuchPath)
	for path, h := range map[string]http.Handler{
		descriptionPath:                 openapi.Document("application/yaml", description),
		client.Prefix + "/openapi.json": openapi.Document("application/json", asJSON),
		"/operator/docs":                page,
		docsPath:                        page,
	} {
		a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				h.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Allow", "GET, HEAD")
			a.serve(w, r, route{path: path, work: refuse(problemf(errMethod, "this can only be read"))})
		})
	}
	return nil
}
