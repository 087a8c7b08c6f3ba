package api

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/http"
	"sync"

	"github.com/simlatch/simlatch/internal/openapi"
)

// openAPI is the description of the API, written by hand: OpenAPI 3.1.
//
//go:embed openapi.yaml
var openAPI []byte

const docsPath = "/docs/"

// OpenAPI is the description of the API: OpenAPI 3.1, in YAML.
func OpenAPI() []byte { return bytes.Clone(openAPI) }

// openAPIAsJSON is made once: a process may hold many APIs, in a sandbox.
var openAPIAsJSON = sync.OnceValues(func() ([]byte, error) { return openapi.JSON(openAPI) })

// addDescription registers the document in both forms and the page that shows
// it.
func (rt *router) addDescription() error {
	asJSON, err := openAPIAsJSON()
	if err != nil {
		return fmt.Errorf("reading the API description: %w", err)
	}
	rt.static("/openapi.yaml", openapi.Document("application/yaml", openAPI))
	rt.static("/openapi.json", openapi.Document("application/json", asJSON))
	page := openapi.Page("Simlatch: SIM-Secure license API", "/openapi.json", docsPath, rt.notFound)
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
