package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// Codes of our own, where the reference has published none. They and those of
// package m2m are defined nowhere else; package recipe has them once more, and is
// held against them.
const (
	codeNoResource          = m2m.CodeResourceNotFound
	codeTooManyCalls        = m2m.CodeTooManyRequests
	codeContentType         = "UnifiedWebService.INPUT_INVALID.ContentType.Invalid"
	codeContentEncoding     = "UnifiedWebService.INPUT_INVALID.ContentEncoding.Invalid"
	codeTooLarge            = "UnifiedWebService.INPUT_INVALID.Request.TooLarge"
	codeSlowBody            = "UnifiedWebService.REQUEST_FAILED.RequestTimeout"
	codeUnavailable         = m2m.CodeUnavailable
	codeMalformed           = "UnifiedWebService.INPUT_INVALID.Request.Malformed"
	codeDryRun              = "UnifiedWebService.INPUT_INVALID.DryRun.Invalid"
	codeTokenRequest        = "UnifiedWebService.INPUT_INVALID.TokenRequest.Invalid"
	codeFilterInvalid       = "UnifiedWebService.INPUT_INVALID.Filter.Invalid"
	codeFilterNotSupported  = "UnifiedWebService.INPUT_INVALID.Filter.NotSupported"
	messageUnexpected       = "Unexpected error occurred. Could not complete request."
	messageAccountNotFound  = "The account was not found."
	messageWrongCredentials = "The user name or password is not correct."
)

// wireError is an error as a client sees it.
type wireError struct {
	status     int
	code       string
	message    string
	fault      *fault        // the gateway's form of it
	oauth      string        // the error of RFC 6749, where not what the status says
	retryAfter time.Duration // Retry-After
	allow      string        // Allow
	challenge  string        // WWW-Authenticate
	close      bool          // the connection is of no more use
}

func (e *wireError) Error() string { return e.code + ": " + e.message }

// fault is an error in the gateway's form (thingspace-api.md 4.3).
type fault struct {
	Code        string `json:"code"`
	Message     string `json:"message"`
	Description string `json:"description"`
}

// errorBody is the body of an error. Its first two members are always there.
type errorBody struct {
	Code             string `json:"errorCode"`
	Message          string `json:"errorMessage"`
	Fault            *fault `json:"fault,omitempty"`
	OAuthError       string `json:"error,omitempty"`
	OAuthDescription string `json:"error_description,omitempty"`
}

// maxMessage bounds an error's message, which may stand in its body twice.
const maxMessage = 2000

// body is the error as c is to see it: with the id to ask about where the fault
// is ours, and in the words of OAuth at the token endpoints.
func (e *wireError) body(c *call) errorBody {
	b := errorBody{Code: e.code, Message: e.message, Fault: e.fault}
	if e.code == m2m.CodeUnexpected {
		b.Message += " Correlation id: " + c.id
	}
	b.Message = printable(b.Message)
	if len(b.Message) > maxMessage {
		b.Message = strings.ToValidUTF8(b.Message[:maxMessage], "") + "…"
	}
	if c.family.context == tokenFamily().context {
		b.OAuthError, b.OAuthDescription = e.oauthError(), b.Message
	}
	return b
}

func (e *wireError) oauthError() string {
	switch {
	case e.oauth != "":
		return e.oauth
	case e.status == http.StatusUnauthorized:
		return "invalid_client"
	case e.status == http.StatusServiceUnavailable, e.status == http.StatusTooManyRequests:
		return "temporarily_unavailable"
	case e.status >= http.StatusInternalServerError:
		return "server_error"
	}
	return "invalid_request"
}

// wire is the table from errors to what a client sees of them. What it does not
// know is our own fault, and shows nothing of itself.
func wire(err error) *wireError {
	var said *wireError
	var documented *m2m.Error
	var slowed *auth.SlowedError
	var input *license.InputError
	var devices *license.DevicesError
	var policy *license.PolicyError
	var unavailable *license.UnavailableError
	switch {
	case errors.As(err, &said):
		return said
	case errors.As(err, &documented):
		return &wireError{status: documented.Status, code: documented.Code, message: documented.Message}
	case errors.As(err, &slowed):
		e := *wire(slowed.Err)
		e.oauth = e.oauthError() // the body is that of a checked try
		e.status, e.retryAfter = http.StatusTooManyRequests, max(slowed.After, time.Second)
		return &e
	case errors.As(err, &input):
		return wireInput(input)
	case errors.As(err, &policy):
		return &wireError{status: http.StatusBadRequest, code: m2m.CodePolicy, message: sentence(policy.Error())}
	case errors.As(err, &devices):
		return wireDevices(devices)
	case errors.As(err, &unavailable):
		return errUnavailable(unavailable.After)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errUnavailable(0)
	}
	return wireSentinel(err)
}

// sentence writes a message of ours as the platform writes its own.
func sentence(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:] + "."
}

// wireSentinel is the part of the table about errors that say no more than
// which they are.
func wireSentinel(err error) *wireError {
	bad := func(code, message string) *wireError {
		return &wireError{status: http.StatusBadRequest, code: code, message: message}
	}
	switch {
	case errors.Is(err, license.ErrHeld):
		return wire(m2m.ErrLicenseHeld)
	case errors.Is(err, license.ErrUnknownDevice):
		return wire(m2m.ErrDevicesNotFound)
	case errors.Is(err, license.ErrInsufficient):
		return wire(m2m.ErrInsufficientLicense)
	case errors.Is(err, license.ErrLifetime):
		return wire(m2m.ErrUnassignLifetime)
	case errors.Is(err, license.ErrKeyReused):
		return bad(m2m.CodeKeyReused, "The Idempotency-Key was used before with another request.")
	case errors.Is(err, license.ErrMultiple):
		return bad(m2m.CodeMultipleAccounts, "accountName is required: the user has access to more than one account.")
	case errors.Is(err, license.ErrNoAccounts):
		return bad(m2m.CodeNoAccounts, "The user has access to no account.")
	case errors.Is(err, license.ErrNotActive):
		return bad(m2m.CodeDeviceState, "A device is not active.")
	case errors.Is(err, license.ErrNotEligible):
		return bad(m2m.CodeDeviceNotEligible, "A device is not a 4G device.")
	case errors.Is(err, license.ErrNotHeld):
		return bad(m2m.CodeNotAssigned, "A device has no license of this SKU.")
	case errors.Is(err, license.ErrDuplicate):
		return bad(m2m.CodeDeviceDuplicate, "A device is named twice.")
	case errors.Is(err, auth.ErrSession):
		return bad(m2m.CodeSessionExpired, "The session has expired")
	case errors.Is(err, auth.ErrPassword):
		return bad(m2m.CodeAuthentication, messageWrongCredentials)
	case errors.Is(err, auth.ErrClient):
		return errInvalidClient(tokenFamily())
	}
	return &wireError{status: http.StatusInternalServerError, code: m2m.CodeUnexpected, message: messageUnexpected}
}

// wireInput is the part of the table about values that are wrong by themselves.
func wireInput(e *license.InputError) *wireError {
	bad := func(code, format string, args ...any) *wireError {
		return &wireError{status: http.StatusBadRequest, code: code, message: fmt.Sprintf(format, args...)}
	}
	switch e.Field {
	case license.FieldSKU:
		if e.Value == "" {
			return wire(m2m.ErrSKUNotDefined)
		}
		return bad(m2m.CodeSKUInvalid, "The skuNumber was not recognized as valid.")
	case license.FieldDevices:
		return wire(m2m.ErrDeviceNotDefined)
	case license.FieldDeviceKind:
		return bad(m2m.CodeKindInvalid, "The device identifier kind %s is not valid: %s.", quote(e.Value), e.Reason)
	case license.FieldDeviceID:
		return bad(m2m.CodeIdentifierInvalid, "The device identifier %s is not valid: %s.", quote(e.Value), e.Reason)
	case license.FieldState:
		return bad(m2m.CodeDeviceState, "The device state %s is not valid: %s.", quote(e.Value), e.Reason)
	case license.FieldAccount:
		return bad(m2m.CodeAccountNotFound, messageAccountNotFound)
	case license.FieldService:
		return bad(m2m.CodeCallbackService, "The callback service %s is not valid: %s.", quote(e.Value), e.Reason)
	case license.FieldURL:
		return bad(m2m.CodeCallbackURL, "The callback URL %s is not valid: %s.", quote(e.Value), e.Reason)
	case license.FieldCredential:
		return bad(m2m.CodeCallbackCredentials, "The callback credentials are not valid: %s.", e.Reason)
	case license.FieldGeneration, license.FieldUnits, license.FieldRequest, license.FieldRole: // never of a request to this API
	}
	return wireSentinel(e)
}

// wireDevices is the part of the table about errors that name devices. Where the
// reference has fixed the message it names none.
func wireDevices(e *license.DevicesError) *wireError {
	w := *wireSentinel(e.Err)
	one := len(e.Devices) == 1
	var says string
	switch {
	case len(e.Devices) == 0:
		return &w
	case errors.Is(e.Err, license.ErrNotActive):
		says = plural(one, "The device is not active", "Devices are not active")
	case errors.Is(e.Err, license.ErrNotEligible):
		says = plural(one, "The device is not a 4G device", "Devices are not 4G devices")
	case errors.Is(e.Err, license.ErrNotHeld):
		says = plural(one, "The device has no license of this SKU", "Devices have no license of this SKU")
	case errors.Is(e.Err, license.ErrDuplicate):
		says = plural(one, "The device is named more than once", "Devices are named more than once")
	default:
		return &w
	}
	w.message = says + ": " + nameDevices(e.Devices) + "."
	return &w
}

func plural(one bool, single, several string) string {
	if one {
		return single
	}
	return several
}

// maxNamed is how many devices a message names.
const maxNamed = 10

func nameDevices(devices []license.Device) string {
	var names []string
	for _, d := range devices[:min(len(devices), maxNamed)] {
		names = append(names, clip(d.String()))
	}
	list := strings.Join(names, ", ")
	if others := len(devices) - maxNamed; others > 0 {
		list += fmt.Sprintf(" and %d others", others)
	}
	return list
}

func errActionInvalid() error    { return m2m.ErrActionInvalid }
func errActionNotDefined() error { return m2m.ErrActionNotDefined }
func errIdentifiersNull() error  { return m2m.ErrIdentifiersNull }
func errGroup() error            { return m2m.ErrGroupNotSupported }

func errNoResource(f family) error {
	return &wireError{
		status: http.StatusNotFound, code: codeNoResource,
		message: "No matching resource found in the API for the given request",
		fault: &fault{
			Code: "900906", Message: "No matching resource found in the API for the given request",
			Description: "Access failure for API: " + f.context + ", version: v1. Check the API documentation and add a proper REST resource path to the invocation URL",
		},
	}
}

func errMethod(method string, allow []string) error {
	list := strings.Join(allow, ", ")
	return &wireError{
		status: http.StatusMethodNotAllowed, code: m2m.CodeMethodNotAllowed, allow: list,
		message: "The method " + quote(method) + " is not allowed here; allowed: " + list + ".",
	}
}

func errMissing(scheme string) error {
	description := `Required OAuth credentials not provided. Make sure your API invocation call has a header: "Authorization: ` + scheme + ` ACCESS_TOKEN"`
	return &wireError{
		status: http.StatusUnauthorized, code: m2m.CodeAuthorization, message: "Missing Credentials",
		challenge: scheme + ` realm="simlatch"`,
		fault:     &fault{Code: "900902", Message: "Missing Credentials", Description: description},
	}
}

func errMissingBearer() error { return errMissing("Bearer") }
func errMissingClient() error { return errMissing("Basic") }

func errInvalidBearer(f family) error {
	return errInvalidCredentials(f, `Bearer realm="simlatch", error="invalid_token"`)
}

func errInvalidClient(f family) *wireError {
	return errInvalidCredentials(f, `Basic realm="simlatch"`)
}

func errInvalidCredentials(f family, challenge string) *wireError {
	return &wireError{
		status: http.StatusUnauthorized, code: m2m.CodeAuthorization, message: "Invalid Credentials",
		challenge: challenge,
		fault: &fault{
			Code: "900901", Message: "Invalid Credentials",
			Description: "Access failure for API: " + f.context + ", version: v1. Make sure you have given the correct access token",
		},
	}
}

func errSessionInvalid(message string) error {
	return &wireError{status: http.StatusBadRequest, code: m2m.CodeSessionInvalid, message: message}
}

func errTokenRequest(message string) error {
	return &wireError{status: http.StatusBadRequest, code: codeTokenRequest, message: message}
}

func errScope() error {
	return &wireError{
		status: http.StatusBadRequest, code: codeTokenRequest, oauth: "invalid_scope",
		message: "The scope is not valid.",
	}
}

func errTooManyCalls(wait time.Duration) error {
	return &wireError{
		status: http.StatusTooManyRequests, code: codeTooManyCalls, retryAfter: wait,
		message: "The application has made too many calls.",
	}
}

func errContentType(got, want string) error {
	return &wireError{
		status: http.StatusUnsupportedMediaType, code: codeContentType,
		message: "The Content-Type " + quote(got) + " is not supported; send " + want + ".",
	}
}

func errContentEncoding() error {
	return &wireError{
		status: http.StatusUnsupportedMediaType, code: codeContentEncoding,
		message: "A Content-Encoding is not supported; send the body as it is.",
	}
}

func errTooLarge() error {
	return &wireError{
		status: http.StatusRequestEntityTooLarge, code: codeTooLarge, close: true,
		message: "The body is larger than " + strconv.Itoa(maxBody) + " bytes.",
	}
}

func errSlowBody() error {
	return &wireError{
		status: http.StatusRequestTimeout, code: codeSlowBody, close: true,
		message: "The body did not arrive in time.",
	}
}

func errBlank() error {
	return &wireError{
		status: http.StatusBadRequest, code: m2m.CodeRequestUndefined,
		message: "Request cannot be blank. Please provide request details.",
	}
}

func errUnreadable(reason string) error {
	return &wireError{
		status: http.StatusBadRequest, code: m2m.CodeDeserialization,
		message: "The request could not be read: " + reason + ".",
	}
}

func errUnavailable(after time.Duration) *wireError {
	return &wireError{
		status: http.StatusServiceUnavailable, code: codeUnavailable, retryAfter: max(after, time.Second),
		message: "The service is not available for the moment. Please try again.",
	}
}

func errDryRun(got string) error {
	return &wireError{
		status: http.StatusBadRequest, code: codeDryRun,
		message: "The header " + m2m.DryRunHeader + " has the value " + quote(got) + "; it may only be true.",
	}
}

func errTooManyDevices(limit int) error {
	return &wireError{
		status: http.StatusBadRequest, code: m2m.CodeMaxRequestsExceeded,
		message: fmt.Sprintf("A request may name at most %d devices.", limit),
	}
}

func errFilter(member, reason string) error {
	return &wireError{status: http.StatusBadRequest, code: codeFilterInvalid, message: member + ": " + reason + "."}
}

func errFilterNotSupported(member, reason string) error {
	return &wireError{
		status: http.StatusBadRequest, code: codeFilterNotSupported,
		message: "Devices cannot be selected by " + member + ": " + reason + ".",
	}
}

// accountError, requestError and listenerError say what was not found.
func accountError(err error) error {
	if errors.Is(err, license.ErrNotFound) {
		return &wireError{status: http.StatusBadRequest, code: m2m.CodeAccountNotFound, message: messageAccountNotFound}
	}
	return err
}

func requestError(err error) error {
	if errors.Is(err, license.ErrNotFound) {
		return &wireError{status: http.StatusBadRequest, code: m2m.CodeRequestNotFound, message: "The request was not found."}
	}
	return err
}

func listenerError(service string, err error) error {
	if errors.Is(err, license.ErrNotFound) {
		return &wireError{
			status: http.StatusBadRequest, code: m2m.CodeCallbackNotFound,
			message: "No listener is registered for the service " + quote(service) + ".",
		}
	}
	return err
}

// maxQuoted is how many characters of a value a message shows.
const maxQuoted = 40

// clip cuts a value for a message and makes it printable.
func clip(s string) string {
	if utf8.RuneCountInString(s) <= maxQuoted {
		return printable(s)
	}
	n := 0
	for i := range s {
		if n == maxQuoted {
			return printable(s[:i]) + "…"
		}
		n++
	}
	return printable(s)
}

// printable escapes what is not printable, as Go would in a string. What is
// printable stays, so doing it twice does no harm.
func printable(s string) string {
	odd := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if strings.IndexFunc(s, odd) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if odd(r) {
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func quote(s string) string { return `"` + clip(s) + `"` }
