package server

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	pathpkg "path"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/simlatch/simlatch/internal/api"
	"github.com/simlatch/simlatch/internal/openapi/contract"
	"github.com/simlatch/simlatch/internal/operator"
	"github.com/simlatch/simlatch/internal/operator/client"
)

var contracts = sync.OnceValues(func() (list [2]*contract.Contract, err error) {
	var errs [2]error
	list[0], errs[0] = contract.Read(api.OpenAPI())
	list[1], errs[1] = contract.Read(operator.OpenAPI())
	return list, errors.Join(errs[:]...)
})

// judge says what is wrong with the answer to a call, and with what the call did.
func (s *surface) judge(c rawCall, answer *http.Response, body []byte, err error) (wrong []string) {
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if err != nil {
		if c.torn { // who sends half a call may get no answer
			s.state = s.look()
			return nil
		}
		fail("no answer: %v", err)
		return wrong
	}
	status := answer.StatusCode
	// Who has left may be told anything, such as that nothing was found out.
	left := c.torn && status == http.StatusServiceUnavailable && (answer.Header.Get("Retry-After") != "" || strings.HasPrefix(c.path, "/readyz"))
	if status >= 500 && !left {
		fail("status %d", status)
	}
	if status < 200 || status >= 300 && status < 400 && !s.moves(answer) {
		fail("status %d is not documented", status)
	}
	if c.method != http.MethodHead {
		if err := s.dialect(c, answer, body); err != nil {
			fail("%v", err)
		}
		if err := described(c, answer, body); err != nil {
			fail("not as described: %v", err)
		}
	}
	var accepted struct {
		RequestID string `json:"requestId"`
	}
	if status == http.StatusOK && json.Unmarshal(body, &accepted) == nil && accepted.RequestID != "" {
		s.known.request = accepted.RequestID
	}
	now := s.look()
	if status >= 400 && status != http.StatusServiceUnavailable || c.method == http.MethodGet || c.method == http.MethodHead {
		for table := range now {
			if now[table] != s.state[table] {
				fail("the call changed %s", table)
			}
		}
	}
	s.state = now
	return wrong
}

// moves tells whether an answer sends its caller to a page of the service.
func (s *surface) moves(answer *http.Response) bool {
	return strings.HasPrefix(answer.Header.Get("Location"), "/") || answer.StatusCode == http.StatusNotModified
}

// dialect holds an answer against the form of all answers of its part of the
// surface.
func (s *surface) dialect(c rawCall, answer *http.Response, body []byte) error {
	if answer.StatusCode < 400 {
		if kind, _, _ := mime.ParseMediaType(answer.Header.Get("Content-Type")); kind == "application/json" && !jsontext.Value(body).IsValid() {
			return errors.New("the body is no JSON")
		}
		return nil
	}
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || !jsontext.Value(body).IsValid() {
		return fmt.Errorf("an error in %q, which is no JSON", answer.Header.Get("Content-Type"))
	}
	if len(body) > 16<<10 {
		return fmt.Errorf("an error of %d bytes", len(body))
	}
	var e struct {
		Code    string `json:"errorCode"`
		Message string `json:"errorMessage"`
		Title   string `json:"title"`
		Status  int    `json:"status"`
	}
	problem := kind == "application/problem+json"
	err = json.Unmarshal(body, &e)
	path, _, _ := strings.Cut(c.path, "?")
	if u, err := url.ParseRequestURI(path); err == nil {
		path = u.Path
	}
	switch {
	case problem && (err != nil || e.Title == "" || e.Status != answer.StatusCode):
		return errors.New("a problem without title or with another status")
	case problem && !strings.HasPrefix(path, client.Prefix[:len("/operator/")]):
		return errors.New("the operator API's dialect elsewhere")
	case problem:
		return nil
	case kind != "application/json":
		return fmt.Errorf("an error in %s", kind)
	case path == "/metrics" || path == "/healthz" || path == "/readyz" || path == "/version":
		return nil
	case err != nil || e.Code == "" || e.Message == "":
		return errors.New("an error without errorCode or errorMessage")
	case strings.HasPrefix(path, client.Prefix+"/") && !strings.HasSuffix(e.Code, "Malformed"):
		return errors.New("the compatible API's dialect in the operator API")
	}
	return nil
}

// described holds an answer against the documents of the APIs.
func described(c rawCall, answer *http.Response, body []byte) error {
	list, err := contracts()
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(c.path, "?")
	if c.torn || strings.ContainsAny(path, "%;") || !clean(path) || strings.HasSuffix(codeIn(body), "Malformed") || body == nil {
		return nil
	}
	for _, of := range list {
		if err := of.Answer(c.method, path, answer, body); err != nil && !errors.Is(err, contract.ErrNoOperation) {
			return err
		}
	}
	return nil
}

// clean tells whether a path means no other.
func clean(path string) bool {
	return path == "/" || pathpkg.Clean(path) == strings.TrimSuffix(path, "/") && strings.HasPrefix(path, "/")
}
