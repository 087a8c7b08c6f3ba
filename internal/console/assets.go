package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"strings"
)

//go:embed assets
var files embed.FS

// versions are the names of the assets with the hash of what is in them, so that
// a browser can keep them for ever.
var versions = func() map[string]string {
	names := map[string]string{}
	entries, err := fs.ReadDir(files, "assets")
	if err != nil { // they are embedded
		panic(err)
	}
	for _, e := range entries {
		data, err := fs.ReadFile(files, "assets/"+e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(data)
		names[e.Name()] = hex.EncodeToString(sum[:6])
	}
	return names
}()

// asset is the address of an asset.
func asset(name string) string { return Prefix + "/assets/" + name + "?" + versions[name] }

// assets serves them, to everybody: the page to sign in needs them.
func assets() http.Handler {
	inner, err := fs.Sub(files, "assets")
	if err != nil { // they are embedded
		panic(err)
	}
	serve := http.StripPrefix(Prefix+"/assets/", http.FileServerFS(inner))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, Prefix+"/assets/")
		if version, ok := versions[name]; !ok {
			http.NotFound(w, r)
			return
		} else if r.URL.RawQuery == version {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		serve.ServeHTTP(w, r)
	})
}
