package openapi

import (
	"net/http"

	"github.com/swaggest/swgui/v5emb"
)

// pagePolicy is what the page may do, which has its scripts and styles embedded and
// some of them in its text: nothing from elsewhere.
const pagePolicy = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const policyHeader = "Content-Security-Policy"

// Page serves a page that shows the description at a path, and what belongs to
// it, below another; none answers what does not.
func Page(title, description, below string, none http.HandlerFunc) http.Handler {
	page := v5emb.New(title, description, below)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, others := &pageWriter{ResponseWriter: w}, w.Header()[policyHeader]
		w.Header().Set(policyHeader, pagePolicy)
		page.ServeHTTP(asked, r)
		if !asked.missing {
			return
		}
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Vary"} {
			w.Header().Del(name)
		}
		w.Header()[policyHeader] = others
		none(w, r)
	})
}

// pageWriter holds back the page's own words about what is not there.
type pageWriter struct {
	http.ResponseWriter

	missing bool
}

func (w *pageWriter) WriteHeader(status int) {
	if status == http.StatusNotFound {
		w.missing = true
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *pageWriter) Write(b []byte) (int, error) {
	if w.missing {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}
