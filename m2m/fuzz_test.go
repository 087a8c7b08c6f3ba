package m2m_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/simlatch/simlatch/m2m"
)

// FuzzCallback posts bodies of any kind to a listener: it answers in JSON, and
// takes in only what is a message, with the right credentials.
func FuzzCallback(f *testing.F) {
	f.Add([]byte(`{"username":"u","password":"p","requestId":"r","status":"Success","deviceIds":[{"id":"89148000000000000012","kind":"ICCID"}]}`), false)
	f.Add([]byte(`{"username":"u","password":"p","status":7}`), true)
	f.Add([]byte(`{"username":"U","faultResponse":null}`), false)
	f.Fuzz(func(t *testing.T, body []byte, fail bool) {
		taken := false
		h := m2m.CallbackHandler(func(_ context.Context, m *m2m.CallbackMessage) error {
			taken = true
			if m.Username != "u" || m.Password != "p" {
				t.Errorf("%q came in", body)
			}
			m.ICCID()
			_ = m.Err()
			if fail {
				return errors.New("not now")
			}
			return nil
		}, m2m.WithCredentials("u", "p"))
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body)))
		want := map[bool]map[int]bool{true: {200: !fail, 500: fail}, false: {400: true, 401: true, 413: true}}[taken]
		if !want[answer.Code] || !json.Valid(answer.Body.Bytes()) {
			t.Errorf("%q: %d %s, taken in: %v", body, answer.Code, answer.Body, taken)
		}
	})
}
