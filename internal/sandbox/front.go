package sandbox

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// secretMembers are members of JSON bodies that nobody should find in a journal
// that is kept with a test's results.
var secretMembers = regexp.MustCompile(`("(?:password|newPassword|oldPassword|access_token|sessionToken|client_secret|token)"\s*:\s*)"(?:[^"\\]|\\.)*"`)

// front stands before the API: it notes every call, and lets it meet its fault.
type front struct {
	box  *Box
	next http.Handler
}

// prefixes are those of the API; what lies elsewhere is no exchange of a client.
var prefixes = []string{m2m.APIPrefix, m2m.TokenPrefix, "/m2m/v1", "/ts/v1"}

func compatible(path string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

// ServeHTTP answers a call.
func (f front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !compatible(r.URL.Path) {
		f.next.ServeHTTP(w, r)
		return
	}
	f.box.inOrder(r.Context())
	rec := &recorder{ResponseWriter: w}
	sent := &head{}
	r.Body = tee{r.Body, io.TeeReader(r.Body, sent)}
	then, name := f.box.fate.strike(event{on: OnAPI, operation: r.Method + " " + r.URL.Path})
	defer func() {
		f.box.journal.add(apiEntry(f.box.clock.Now(), r, sent.String(), rec, name))
		if p := recover(); p != nil {
			panic(p)
		}
	}()
	f.meet(then, rec, r)
}

// meet lets a call meet an effect.
func (f front) meet(then Effect, rec *recorder, r *http.Request) {
	switch then.Do {
	case Answer:
		if then.After {
			f.serve(lost{header: http.Header{}}, r)
		}
		// In the API's own words for that plight.
		f.box.host.Fail(rec, r, then.Status, time.Duration(then.RetryAfter))
	case Hang:
		f.hang(then, rec, r)
	case Break:
		if then.After {
			f.serve(lost{header: http.Header{}}, r)
		}
		panic(http.ErrAbortHandler) // the way to break a connection
	case ExpireToken:
		r.Header.Set("Authorization", "Bearer expired-by-the-sandbox")
		f.next.ServeHTTP(rec, r)
	case ExpireSession:
		f.box.access.lend(r)
		r.Header.Set(m2m.SessionHeader, "00000000-0000-4000-8000-000000000000")
		f.next.ServeHTTP(rec, r)
	default:
		f.serve(rec, r)
	}
}

func (f front) serve(w http.ResponseWriter, r *http.Request) {
	f.box.access.lend(r)
	f.next.ServeHTTP(w, r)
	if rec, ok := w.(*recorder); ok && rec.status == http.StatusOK {
		f.box.access.seen(r, rec.body.b)
	}
}

// hang answers after a while, or never.
func (f front) hang(then Effect, rec *recorder, r *http.Request) {
	// Read by us, so that the server notices when the client is gone.
	body, _ := io.ReadAll(io.LimitReader(r.Body, 16<<20)) // what the API refuses is refused later
	r.Body = io.NopCloser(bytes.NewReader(body))
	if then.For == 0 {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	select {
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	case <-time.After(time.Duration(then.For)):
		f.serve(rec, r)
	}
}

// apiEntry is the journal's line about a call.
func apiEntry(now time.Time, r *http.Request, sent string, rec *recorder, fault string) Entry {
	e := Entry{
		Time: now, Kind: OnAPI, Method: r.Method, URL: r.URL.Path, Sent: mask([]byte(sent)),
		Status: rec.status, Answer: mask([]byte(rec.body.String())), Fault: fault,
		CallID: rec.Header().Get("X-Request-ID"),
	}
	if r.URL.RawQuery != "" {
		e.URL += "?" + r.URL.RawQuery
	}
	var answer struct {
		RequestID string `json:"requestId"`
		ErrorCode string `json:"errorCode"`
	}
	_ = json.Unmarshal([]byte(rec.body.String()), &answer) // what is no such JSON has neither
	e.RequestID, e.Outcome = answer.RequestID, answer.ErrorCode
	var call struct {
		Account string `json:"accountName"`
		SKU     string `json:"skuNumber"`
	}
	_ = json.Unmarshal([]byte(sent), &call) // as above
	e.Account, e.SKU = call.Account, call.SKU
	return e
}

// recorder notes an answer on its way.
type recorder struct {
	http.ResponseWriter

	status int
	body   head
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes what is written.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	_, _ = r.body.Write(b) // never fails
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// head keeps the first bytes that are written to it.
type head struct{ b []byte }

// Write never fails.
func (h *head) Write(b []byte) (int, error) {
	h.b = append(h.b, b[:min(len(b), bodyMost+1-len(h.b))]...)
	return len(b), nil
}

func (h *head) String() string { return string(h.b) }

// tee is a body that is noted as it is read.
type tee struct {
	io.Closer
	io.Reader
}

// lost is the answer that nobody gets.
type lost struct{ header http.Header }

// Header is thrown away.
func (l lost) Header() http.Header { return l.header }

// Write throws b away.
func (l lost) Write(b []byte) (int, error) { return len(b), nil }

// WriteHeader does nothing.
func (lost) WriteHeader(int) {}
