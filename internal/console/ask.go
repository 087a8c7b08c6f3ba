package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// An asker calls the operator API in this process, on behalf of an operator.
type asker struct {
	api http.Handler
	who auth.Acting
}

// question is one call of the API.
type question struct {
	method, path string // below client.Prefix
	query        url.Values
	body         any    // in JSON
	upload       []byte // in the place of body
	uploadType   string
	key          string // Idempotency-Key
	match        string // If-Match
}

// ask makes a call and decodes its answer into out, which may be nil. An error of
// the API is a *client.Problem. It returns the answer's ETag.
func (a *asker) ask(ctx context.Context, q question, out any) (etag string, err error) {
	body, contentType := q.upload, q.uploadType
	if q.body != nil {
		if body, err = json.Marshal(q.body); err != nil {
			return "", fmt.Errorf("encoding a call: %w", err)
		}
		contentType = "application/json"
	}
	target := client.Prefix + q.path
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	r, err := http.NewRequestWithContext(auth.WithActing(ctx, a.who), q.method, target, bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("making a call: %w", err)
	}
	r.RequestURI = target
	for name, value := range map[string]string{"Content-Type": contentType, client.KeyHeader: q.key, "If-Match": q.match} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	got := &answer{header: http.Header{}, status: http.StatusOK}
	a.api.ServeHTTP(got, r)
	if got.status >= http.StatusBadRequest {
		p := &client.Problem{}
		if err := json.Unmarshal(got.body.Bytes(), p); err != nil {
			return "", fmt.Errorf("%s %s: status %d", q.method, q.path, got.status)
		}
		return "", p
	}
	if out != nil {
		if err := json.Unmarshal(got.body.Bytes(), out); err != nil {
			return "", fmt.Errorf("the answer to %s %s: %w", q.method, q.path, err)
		}
	}
	return got.header.Get("ETag"), nil
}

// get reads what is at a path.
func get[T any](ctx context.Context, a *asker, path string, query url.Values) (out T, err error) {
	_, err = a.ask(ctx, question{method: http.MethodGet, path: path, query: query}, &out)
	return out, err
}

// all walks a list to its end, or until take has had enough.
func all[T any](ctx context.Context, a *asker, path string, query url.Values, take func(T) bool) error {
	q := url.Values{"limit": {"1000"}}
	for name, values := range query {
		if name != "limit" && name != "cursor" {
			q[name] = values
		}
	}
	for {
		page, err := get[client.Page[T]](ctx, a, path, q)
		if err != nil {
			return err
		}
		for _, v := range page.List {
			if !take(v) {
				return nil
			}
		}
		if page.NextCursor == "" {
			return nil
		}
		q.Set("cursor", page.NextCursor)
	}
}

// collect is a list to its end, or its first so many entries.
func collect[T any](ctx context.Context, a *asker, path string, query url.Values, most int) (list []T, err error) {
	err = all(ctx, a, path, query, func(v T) bool {
		list = append(list, v)
		return len(list) < most
	})
	return list, err
}

// answer is an answer of the API, kept in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// join puts a path together of fixed parts and values.
func join(parts ...string) string {
	var b strings.Builder
	for i, part := range parts {
		if i%2 == 1 {
			part = url.PathEscape(part)
		}
		b.WriteString(part)
	}
	return b.String()
}

// isProblem reports whether err is a problem of one of the kinds.
func isProblem(err error, kinds ...string) bool {
	for _, kind := range kinds {
		if client.IsType(err, kind) {
			return true
		}
	}
	return false
}

// wrong is what an error says to a person, and the status of the page with it.
func wrong(err error) (status int, title, text string) {
	var p *client.Problem
	if !errors.As(err, &p) {
		return http.StatusInternalServerError, "Something is wrong with the server", "The server's log has more."
	}
	return p.Status, p.Title, p.Detail
}

// acting is an operator who uses the console from an address.
func acting(o auth.Operator, from string) auth.Acting {
	return auth.Acting{Operator: o, Via: license.ViaConsole, From: from}
}
