package store

import (
	"errors"
	"net/url"
	"strings"
)

// errNotURL says what to do about what is no URL, or reads otherwise than it was meant.
// It repeats nothing of it, since that may be a part of the password.
var errNotURL = errors.New("the URL cannot be read: it is postgres://USER:PASSWORD@HOST/NAME, and in each of these @ is written as %40, / as %2F, ? as %3F, # as %23 and % as %25")

// CheckURL refuses a URL of PostgreSQL in whose password something stands that ends it:
// the rest would be taken for the name of a host or a database, which errors tell.
func CheckURL(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil || u.Opaque != "" || u.Fragment != "" || strings.Contains(u.Path, "@") {
		return errNotURL
	}
	_, rest, _ := strings.Cut(rawURL, "://")
	authority, _, _ := strings.Cut(rest, "/")
	authority, _, _ = strings.Cut(authority, "?")
	if strings.Count(authority, "@") > 1 {
		return errNotURL
	}
	for name := range u.Query() {
		if strings.Contains(name, "@") {
			return errNotURL
		}
	}
	return nil
}
