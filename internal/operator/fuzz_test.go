package operator

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
)

// FuzzQuery reads queries of any kind, with the place that a cursor names: what
// is wrong with one is a problem of the caller, and a cursor that was taken is
// written as it is read.
func FuzzQuery(f *testing.F) {
	f.Add("limit=3&account=0000123456-00001&state=pending&from=2026-01-05T08:00:00Z")
	f.Add("cursor=" + cursorOf(place{Account: "0000123456-00001", After: "89148000000000000012"}))
	f.Add("cursor=e30&limit=0")
	f.Add("limit=1&limit=2&%zz=;")
	f.Fuzz(func(t *testing.T, raw string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.RawQuery = raw
		c := &call{r: r}
		q := c.query("account", "state", "from")
		account := parsed(q, "account", license.ParseAccountName)
		from := q.time("from")
		oneOf(q, "state", "pending", "ended")
		var at place
		q.cursor(&at)
		if q.err == nil {
			if q.limit < 1 || q.limit > maxPageSize || !from.IsZero() && from.Year() < 1970 || strings.ContainsAny(string(account), " \x00") {
				t.Errorf("%q: limit %d, from %v, account %q", raw, q.limit, from, account)
			}
			var again place
			(&query{values: map[string][]string{"cursor": {cursorOf(at)}}}).cursor(&again)
			if diff := cmp.Diff(at, again); diff != "" {
				t.Errorf("%q: the cursor is read otherwise when it is written again:\n%s", raw, diff)
			}
			return
		}
		var input *license.InputError
		var said *problem
		if !errors.As(q.err, &input) && (!errors.As(q.err, &said) || said.status != http.StatusBadRequest) {
			t.Errorf("%q: %v", raw, q.err)
		}
	})
}
