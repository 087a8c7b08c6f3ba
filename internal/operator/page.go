package operator

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// How much of a list one answer has, unless the caller says so, and at most.
const (
	pageSize    = 100
	maxPageSize = 1000
)

// query is the query of a call, read by parameters that it knows; its err is the
// first thing wrong with it.
type query struct {
	values url.Values
	limit  int
	err    error
}

// query reads the call's query, which may have the named parameters, and those
// that page.
func (c *call) query(names ...string) *query {
	q := &query{limit: pageSize}
	if q.values, q.err = url.ParseQuery(c.r.URL.RawQuery); q.err != nil {
		q.err = problemf(errInvalid, "the query: %v", q.err)
		return q
	}
	names = append(names, "limit", "cursor")
	for name, values := range q.values {
		if !slices.Contains(names, name) {
			q.fail("the query has %.40q; known here are %s", name, strings.Join(names, ", "))
		} else if len(values) > 1 && name != "state" {
			q.fail("the query has %s twice", name)
		}
	}
	if text := q.get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPageSize {
			q.fail("limit %.40q: it is a number from 1 to %d", text, maxPageSize)
		}
		q.limit = n
	}
	return q
}

func (q *query) fail(format string, args ...any) {
	if q.err == nil {
		q.err = problemf(errInvalid, format, args...)
	}
}

func (q *query) note(err error) {
	if q.err == nil {
		q.err = err
	}
}

func (q *query) get(name string) string { return q.values.Get(name) }

// time reads a parameter that is a time; zero where it is not there.
func (q *query) time(name string) time.Time {
	text := q.get(name)
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() < 1970 {
		q.fail("%s %.40q: it is a time, such as 2026-01-05T08:00:00Z", name, text)
	}
	return t
}

// oneOf reads a parameter that has one of some values; zero where it is not
// there.
func oneOf[T ~string](q *query, name string, values ...T) T {
	v := T(q.get(name))
	if v != "" && !slices.Contains(values, v) {
		q.fail("%s %.40q: it is one of %q", name, v, values)
	}
	return v
}

// parsed reads a parameter by a function that checks it; zero where it is not
// there.
func parsed[T ~string](q *query, name string, parse func(string) (T, error)) (v T) {
	if text := q.get(name); text != "" {
		var err error
		v, err = parse(text)
		q.note(err)
	}
	return v
}

// cursor reads where a list is to go on.
func (q *query) cursor(into any) {
	text := q.get("cursor")
	if text == "" {
		return
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(data, into, json.RejectUnknownMembers(true))
	}
	if err != nil {
		q.fail("the cursor is none of this list's")
	}
}

// cursorOf is where a list goes on, for whoever reads it to hand back.
func cursorOf(place any) string {
	data, err := json.Marshal(place)
	if err != nil { // places are strings and numbers
		panic("encoding a cursor: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

// place is where a list that goes account by account is: in an account, and at a
// place of the list's own kind in it.
type place struct {
	Account license.AccountName `json:"a"`
	After   string              `json:"p,omitzero"`
}

// accountsLook bounds the accounts that one call looks into; where they have
// nothing that is wanted, its page is short.
const accountsLook = 500

// across reads a page of a list that goes account by account, or of one account's
// where the query names one. read gives at most n entries of an account behind a
// place in it, and the place to go on from; "" where nothing is left of it.
func across[T any](ctx context.Context, c *call, q *query,
	read func(ctx context.Context, account license.AccountName, after string, n int) (list []T, next string, err error),
) (page client.Page[T], err error) {
	var at place
	q.cursor(&at)
	if q.err != nil {
		return page, q.err
	}
	page.List = []T{}
	accounts, err := c.accountsFrom(ctx, q, at)
	if err != nil {
		return page, err
	}
	for i, account := range accounts {
		if i == accountsLook || len(page.List) == q.limit {
			page.NextCursor = cursorOf(place{Account: account})
			break
		}
		after := ""
		if account == at.Account {
			after = at.After
		}
		list, next, err := read(ctx, account, after, q.limit-len(page.List))
		if err != nil {
			return page, err
		}
		page.List = append(page.List, list...)
		if next != "" {
			page.NextCursor = cursorOf(place{account, next})
			break
		}
	}
	return page, nil
}

// accountsFrom are the accounts to look into, from a place on: one more than one
// call looks into, so that it shows whether others are left.
func (c *call) accountsFrom(ctx context.Context, q *query, at place) (names []license.AccountName, err error) {
	if name := q.get("account"); name != "" {
		account, err := c.api.findAccount(ctx, name)
		return []license.AccountName{account}, err
	}
	if at.Account != "" {
		names = append(names, at.Account)
	}
	list, err := c.api.cfg.Store.AccountsAfter(ctx, at.Account, accountsLook+1)
	for _, a := range list {
		names = append(names, a.Name)
	}
	return names, err
}

// findAccount finds an account by its name, with or without hyphens.
func (a *API) findAccount(ctx context.Context, name string) (license.AccountName, error) {
	wanted, err := license.ParseAccountName(name)
	if err != nil {
		return "", err
	}
	account, err := a.cfg.Store.Account(ctx, wanted)
	return account.Name, err
}

// account is the account in the call's path.
func (c *call) account(ctx context.Context) (license.AccountName, error) {
	return c.api.findAccount(ctx, c.r.PathValue("account"))
}

// cut makes a page of a list that has one entry more than is wanted where there
// are more.
func cut[T any](list []T, limit int, placeOf func(T) any) client.Page[T] {
	page := client.Page[T]{List: list}
	if len(list) > limit {
		page.List = list[:limit]
		page.NextCursor = cursorOf(placeOf(list[limit-1]))
	}
	if page.List == nil {
		page.List = []T{}
	}
	return page
}

// tag is the ETag of what can be changed of something.
func tag(parts ...any) string {
	data, err := json.Marshal(parts)
	if err != nil { // they are strings, numbers and lists of them
		panic("encoding an ETag: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// match checks If-Match, where it is given, against what stands.
func (c *call) match(etag string) error {
	values := c.r.Header.Values("If-Match")
	if len(values) == 0 {
		return nil
	}
	for _, want := range strings.Split(strings.Join(values, ","), ",") {
		if want = strings.TrimSpace(want); want == "*" || want == etag {
			return nil
		}
	}
	return problemf(errPrecondition, "it was changed since it was read: its ETag is now %s", etag)
}
