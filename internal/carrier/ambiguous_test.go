package carrier

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// TestUpstreamCallbackSaysOneThing: a callback that readers could take for two
// different ones is refused before anybody's password is looked at.
func TestUpstreamCallbackSaysOneThing(t *testing.T) {
	u := &Upstream{cfg: UpstreamConfig{Secret: "s"}}
	credentials := `"username":"simlatch","password":"` + u.password(license.AccountName("0000123456-00001")) + `"`
	for body, want := range map[string]int{
		`{"status":"Success","status":"Failed",` + credentials + `}`:             http.StatusBadRequest,
		`{"status":"Success","Status":"Failed",` + credentials + `}`:             http.StatusBadRequest,
		`{"Status":"Success",` + credentials + `}`:                               http.StatusBadRequest,
		`{"deviceIds":[{"id":"1","ID":"2","kind":"iccid"}],` + credentials + `}`: http.StatusBadRequest,
		`{"comment":"\ud800",` + credentials + `}`:                               http.StatusBadRequest,
		`{"callbackCount":"1",` + credentials + `}`:                              http.StatusBadRequest,
		`{` + credentials + `}{}`:                                                http.StatusBadRequest,
		"\xef\xbb\xbf{" + credentials + `}`:                                      http.StatusBadRequest,
		`{"username":"simlatch","password":"x"}`:                                 http.StatusUnauthorized,
		`{"comment":"` + strings.Repeat("x", maxCallback) + `"}`:                 http.StatusRequestEntityTooLarge,
	} {
		rec := httptest.NewRecorder()
		u.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/x/0000123456-00001", strings.NewReader(body)))
		if rec.Code != want {
			t.Errorf("%.80s: %d %s, want %d", body, rec.Code, rec.Body, want)
		}
	}
}

func TestOutcomesSayOneThing(t *testing.T) {
	for _, body := range []string{
		`{"outcomes":[{"key":"k","outcome":"done","Outcome":"refused"}]}`,
		`{"outcomes":[],"Outcomes":[{"key":"k","outcome":"done"}]}`,
		`{"outcomes":[{"key":"k","outcome":"done","outcome":"refused"}]}`,
		`{"outcomes":[]}{}`, "\xef\xbb\xbf" + `{"outcomes":[]}`, `{"outcomes":[{"key":"\udc00"}]}`, `{"outcomes":[{"key":7}]}`,
	} {
		if got, err := decodeOutcomes([]byte(body)); err == nil {
			t.Errorf("%s: %+v, want an error", body, got)
		}
	}
}
