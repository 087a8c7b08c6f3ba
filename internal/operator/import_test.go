package operator_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// anybody lets all in, without the store.
type anybody struct{}

func (anybody) Operator(context.Context, auth.Secret) (auth.Operator, error) {
	return auth.Operator{Name: "olga", Role: auth.RoleOperator}, nil
}

// TestImportWithoutDatabase: that the database is out of reach is no fault of the
// lines of an import, and is not answered as if it were.
func TestImportWithoutDatabase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		api, err := operator.New(operator.Config{Operators: anybody{}, Store: s, Clock: license.SystemClock{}, Random: rand.Reader, Tester: tester{}, Accept: s.Accept, Message: message})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for media, body := range map[string]string{
			"text/csv":         "account,iccid,imei\n0000123456-00001,89148000000000000012,490154203237518\n",
			"application/json": `{"sims": [{"account": "0000123456-00001", "iccid": "89148000000000000012", "imei": "490154203237518"}]}`,
		} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/operator/v1/sims/import", strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer x")
			r.Header.Set("Content-Type", media)
			w := httptest.NewRecorder()
			api.ServeHTTP(w, r)
			if w.Code < http.StatusInternalServerError {
				t.Errorf("%s: %d %s, want an error of the server's", media, w.Code, w.Body)
			}
		}
	})
}
