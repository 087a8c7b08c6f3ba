package operator

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
)

// kind is a kind of problem: the end of its type, which never changes, its
// status, and its title.
type kind struct {
	name   string
	status int
	title  string
}

// The kinds of problems.
var (
	errInvalid       = kind{"invalid", http.StatusBadRequest, "The call is not valid"}
	errToken         = kind{"token", http.StatusUnauthorized, "An operator's token is needed"}
	errRole          = kind{"role", http.StatusForbidden, "The operator's role does not allow this"}
	errNotFound      = kind{"not-found", http.StatusNotFound, "There is no such thing"}
	errMethod        = kind{"method", http.StatusMethodNotAllowed, "The method is not for this path"}
	errSlow          = kind{"slow", http.StatusRequestTimeout, "The body did not come in time"}
	errExists        = kind{"exists", http.StatusConflict, "It exists already"}
	errInsufficient  = kind{"insufficient", http.StatusConflict, "The pool has fewer available licenses"}
	errDevices       = kind{"devices", http.StatusConflict, "Some of the SIMs cannot be taken"}
	errPolicy        = kind{"policy", http.StatusConflict, "The account's policy does not allow it"}
	errNotEnded      = kind{"not-ended", http.StatusConflict, "It has not ended"}
	errNoListener    = kind{"no-listener", http.StatusConflict, "The account has no listener"}
	errNotStuck      = kind{"not-stuck", http.StatusConflict, "The task is not stuck"}
	errSelf          = kind{"self", http.StatusConflict, "Not by oneself"}
	errPending       = kind{"pending", http.StatusConflict, "The call under this key has no answer yet"}
	errPrecondition  = kind{"precondition", http.StatusPreconditionFailed, "It was changed meanwhile"}
	errTooLarge      = kind{"too-large", http.StatusRequestEntityTooLarge, "The body is too large"}
	errMediaType     = kind{"media-type", http.StatusUnsupportedMediaType, "The body is of another media type"}
	errKeyReused     = kind{"key-reused", http.StatusUnprocessableEntity, "The idempotency key stands for another call"}
	errTooManyCalls  = kind{"too-many-calls", http.StatusTooManyRequests, "Too many calls from this address"}
	errImport        = kind{"import", http.StatusUnprocessableEntity, "Nothing was imported"}
	errUnavailable   = kind{"unavailable", http.StatusServiceUnavailable, "The database is out of reach"}
	errNotConfigured = kind{"not-configured", http.StatusServiceUnavailable, "The server is not set up for this"}
	errInternal      = kind{"internal", http.StatusInternalServerError, "Something is wrong with the server"}
)

// problem is an error with its kind.
type problem struct {
	kind

	detail string
	lines  []client.Line
	count  int
	after  time.Duration // Retry-After
}

func (p *problem) Error() string { return p.detail }

func problemf(k kind, format string, args ...any) *problem {
	return &problem{kind: k, detail: fmt.Sprintf(format, args...)}
}

// problemOf is the one place where errors become problems. What is not known is
// internal: the error itself is for the log.
func problemOf(err error) *problem {
	var known *problem
	var input *license.InputError
	var unavailable *license.UnavailableError
	var devices *license.DevicesError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &unavailable):
		p := problemf(errUnavailable, "%s", "the database is out of reach; try again")
		p.after = max(unavailable.After, time.Second)
		return p
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p := problemf(errUnavailable, "%s", "the call took too long; what it was to change may be changed all the same")
		p.after = time.Second
		return p
	case errors.As(err, &input):
		return problemf(errInvalid, "%v", input)
	case errors.As(err, &devices):
		return problemf(errNotFound, "%v", devices)
	}
	for _, known := range []struct {
		err  error
		kind kind
	}{
		{auth.ErrOperator, errToken},
		{license.ErrNotFound, errNotFound},
		{license.ErrExists, errExists},
		{license.ErrInsufficient, errInsufficient},
		{license.ErrNotEnded, errNotEnded},
		{license.ErrNoListener, errNoListener},
		{license.ErrKeyReused, errKeyReused},
		{license.ErrNotConfigured, errNotConfigured},
		{store.ErrPending, errPending},
	} {
		if errors.Is(err, known.err) {
			return problemf(known.kind, "%v", err)
		}
	}
	return problemf(errInternal, "%s", "the server's log has more under the request's id")
}

// wire is the problem as it is sent.
func (p *problem) wire(requestID string) client.Problem {
	return client.Problem{
		Type: client.TypePrefix + p.name, Title: p.title, Status: p.status, Detail: p.detail,
		Request: requestID, Lines: p.lines, LineCount: p.count,
	}
}
