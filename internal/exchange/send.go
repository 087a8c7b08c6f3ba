package exchange

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// shown is how much of a message a result shows.
const shown = 4000

// mostAnswer is how much of an answer is read.
const mostAnswer = 16 << 20

// answer is what a server answered.
type answer struct {
	sent      string // the request, for people
	status    int
	headers   http.Header
	body      string
	requestID string // of an accepted request
}

// send makes one request.
func (r *run) send(ctx context.Context, q Request, vars map[string]string) (answer, error) {
	req, sent, err := r.request(ctx, q, vars)
	if err != nil {
		return answer{}, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("%s: %w", firstLine(sent), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return answer{}, fmt.Errorf("%s: reading the answer: %w", firstLine(sent), err)
	}
	a := answer{sent: sent, status: resp.StatusCode, headers: resp.Header, body: string(body)}
	var accepted struct {
		RequestID string `json:"requestId"`
	}
	if json.Unmarshal(body, &accepted) == nil && resp.StatusCode == http.StatusOK {
		a.requestID = accepted.RequestID
	}
	return a, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// request puts a request together, and how it is shown, secrets included.
func (r *run) request(ctx context.Context, q Request, vars map[string]string) (*http.Request, string, error) {
	whole, err := q.Expand(vars)
	if err != nil {
		return nil, "", err
	}
	line, body, shownBody := whole.Method+" "+whole.Path, whole.Body, whole.Body
	if q.Hex {
		if shownBody, err = expand(q.Body, vars); err != nil {
			return nil, "", err
		}
	}
	u, err := url.Parse(r.cfg.URL + whole.Path)
	if err != nil {
		return nil, "", fmt.Errorf("the URL of a request: %w", err)
	}
	req := &http.Request{Method: whole.Method, URL: u, Header: http.Header{}}
	if q.HasBody && body != "" {
		req.Body = io.NopCloser(strings.NewReader(body))
		req.ContentLength = int64(len(body))
		if q.Chunked {
			req.ContentLength = -1
		}
	}
	r.setHeaders(req, whole.Headers, vars)
	sent := line + "\n" + head(req.Header)
	if req.Host != "" {
		sent = line + "\nHost: " + req.Host + "\n" + head(req.Header)
	}
	if shownBody != "" {
		sent += "\n" + shownBody + "\n"
	}
	return req.WithContext(ctx), clip(sent, shown), nil
}

// setHeaders sets what the file says, and what it does not speak of.
func (r *run) setHeaders(req *http.Request, headers []Header, vars map[string]string) {
	said := map[string]bool{}
	for _, h := range headers {
		said[strings.ToLower(h.Name)] = true
		switch {
		case h.Without:
		case strings.EqualFold(h.Name, "Host"):
			req.Host = h.Value
		default:
			// Not Add, which would correct the spelling.
			req.Header[h.Name] = append(req.Header[h.Name], h.Value)
		}
	}
	automatic := r.automatic(req, vars)
	for _, name := range slices.Sorted(maps.Keys(automatic)) {
		if !said[strings.ToLower(name)] {
			req.Header[name] = []string{automatic[name]}
		}
	}
}

func (r *run) automatic(req *http.Request, vars map[string]string) map[string]string {
	h := map[string]string{"User-Agent": "simlatch-exchange"}
	switch {
	case strings.Contains(req.URL.Path, "/oauth2/"):
		basic := vars[r.x.Application+".key"] + ":" + vars[r.x.Application+".secret"]
		h["Authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte(basic))
		h["Content-Type"] = "application/x-www-form-urlencoded"
		return h
	case !strings.HasSuffix(req.URL.Path, "/session/login"):
		h["VZ-M2M-Token"] = r.vars["session"]
	}
	h["Authorization"] = "Bearer " + r.vars["bearer"]
	if req.Body != nil {
		h["Content-Type"] = "application/json"
	}
	return h
}

// String is the answer for people.
func (a answer) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %s\n", a.status, http.StatusText(a.status))
	fmt.Fprintf(&b, "%s\n%s\n", head(a.headers), a.body)
	return clip(b.String(), shown)
}

// head is a message's headers, one value a line.
func head(h http.Header) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	return b.String()
}

// answer compares an answer with what is expected of it, and with what is
// expected of every answer (behaviour.md 1 and 2).
func (m *match) answer(want Message, a answer) {
	if a.status != want.Status {
		m.differ("status", fmt.Sprint(want.Status), fmt.Sprintf("%d with %s", a.status, a.body))
	}
	for _, h := range want.Headers {
		m.header(h, a.headers.Values(h.Name))
	}
	m.always(a)
	if want.Body == "" || !jsontext.Value(a.body).IsValid() {
		return
	}
	body := matchJSON("body", want.Body, a.body)
	m.diffs = append(m.diffs, body.diffs...)
	maps.Copy(m.captured, body.captured)
}

func (m *match) always(a answer) {
	kind, _, _ := strings.Cut(a.headers.Get("Content-Type"), ";")
	if kind != "application/json" {
		m.differ("header Content-Type", "application/json", kind)
	}
	if a.body == "" {
		m.differ("body", "some", "none")
		return
	}
	if !jsontext.Value(a.body).IsValid() {
		m.differ("body", "JSON without duplicate members, in UTF-8", a.body)
		return
	}
	if a.status < http.StatusBadRequest {
		return
	}
	const mostError = 8 << 10
	if len(a.body) >= mostError {
		m.differ("body", "less than 8 KiB in an error", fmt.Sprintf("%d bytes", len(a.body)))
	}
	fault := matchJSON("body", `{"errorCode": "<text>", "errorMessage": "<text>", ...}`, a.body)
	m.diffs = append(m.diffs, fault.diffs...)
}
