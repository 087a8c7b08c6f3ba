package openapi

import (
	"net/http"

	"github.com/swaggest/swgui/v5emb"
)

// Page serves a page that shows the description at a path, and what belongs to
// it, below another; none answers what does not.
func Page(title, description, below string, none http.HandlerFunc) http.Handler {
	page := v5emb.New(title, description, below)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := &pageWriter{ResponseWriter: w}
		page.ServeHTTP(asked, r)
		if !asked.missing {
			return
		}
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding", "Vary"} {
			w.Header().Del(name)
		}
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
