package license

import (
	"errors"
	"fmt"
	"time"
)

// Errors that callers act on. They are compared with errors.Is.
var (
	ErrInsufficient  = errors.New("the pool has fewer available licenses than devices")
	ErrHeld          = errors.New("a device is assigned, or pending either way")
	ErrNotHeld       = errors.New("a device holds no license of this SKU")
	ErrUnknownDevice = errors.New("no such IMEI and ICCID on the account")
	ErrNotActive     = errors.New("a device is not active")
	ErrNotEligible   = errors.New("a device is not a 4G device")
	ErrDuplicate     = errors.New("a device is named twice")
	ErrLifetime      = errors.New("a lifetime license stays for the life of the SIM")
	ErrNotFound      = errors.New("not found")
	ErrExists        = errors.New("exists already")
	ErrKeyReused     = errors.New("the idempotency key was used with another body")
	ErrMultiple      = errors.New("the user has access to more than one account")
	ErrNoAccounts    = errors.New("the user has access to no account")
	ErrNotConfigured = errors.New("not configured")
	ErrNotEnded      = errors.New("not ended yet")
	ErrNoListener    = errors.New("the account has no listener")
)

// Field names what an InputError is about.
type Field string

// The fields of input that can be wrong by themselves.
const (
	FieldAccount    Field = "account"
	FieldSKU        Field = "skuNumber"
	FieldDevices    Field = "devices"
	FieldDeviceID   Field = "deviceId"
	FieldDeviceKind Field = "kind"
	FieldState      Field = "state"
	FieldGeneration Field = "generation"
	FieldService    Field = "service"
	FieldURL        Field = "url"
	FieldCredential Field = "credential"
	FieldUnits      Field = "units"
	FieldRequest    Field = "requestId"
	FieldRole       Field = "role"
)

// InputError says that a value is wrong by itself, whatever is stored.
type InputError struct {
	Field  Field
	Value  string // the value as given
	Reason string
}

func (e *InputError) Error() string {
	return fmt.Sprintf("%s %q: %s", e.Field, clip(e.Value), e.Reason)
}

// clip keeps a message short when it quotes input.
func clip(s string) string {
	const most = 40
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most]) + "…"
}

// DevicesError says which devices of a request one of the errors above is
// about.
type DevicesError struct {
	Err     error
	Devices []Device
}

func (e *DevicesError) Error() string {
	switch len(e.Devices) {
	case 0:
		return e.Err.Error()
	case 1:
		return fmt.Sprintf("%v: %s", e.Err, e.Devices[0])
	}
	return fmt.Sprintf("%v: %s and %d more", e.Err, e.Devices[0], len(e.Devices)-1)
}

func (e *DevicesError) Unwrap() error { return e.Err }

// UnavailableError says that the store, or what a call stands on, is out of
// reach for now: nothing is known to have changed and the call can be repeated.
type UnavailableError struct {
	Err   error
	After time.Duration // when it is worth trying again
}

func (e *UnavailableError) Error() string { return fmt.Sprintf("unavailable: %v", e.Err) }

func (e *UnavailableError) Unwrap() error { return e.Err }
