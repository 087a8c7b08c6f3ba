package m2m

import (
	"fmt"
	"strings"
	"time"
)

// Error is an error answer of the API (sections 1.6 and 9).
type Error struct {
	Status     int           // of HTTP; 0 in what a callback tells
	Code       string        // errorCode, such as CodeSKUInvalid
	Message    string        // errorMessage
	RequestID  string        // the X-Request-ID of the answer
	RetryAfter time.Duration // when the server says when to try again
}

func (e *Error) Error() string {
	what := strings.TrimSuffix(e.Message, ".")
	if e.Status == 0 {
		return fmt.Sprintf("%s (%s)", what, e.Code)
	}
	return fmt.Sprintf("%s (%s, HTTP %d)", what, e.Code, e.Status)
}

// Is reports whether target is an *Error with the same code. As the reference
// advises, the service before the code's class is left out of the comparison; a
// target with a message must have the same message too, since one code stands
// for several errors. The class that some messages begin with does not count.
// ErrTooManyRequests and ErrUnavailable are known by their HTTP status as well.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	if !ok {
		return false
	}
	if t == ErrTooManyRequests || t == ErrUnavailable {
		return e.Status == t.Status || bare(e.Code) == bare(t.Code) // whoever sent it
	}
	return bare(e.Code) == bare(t.Code) && (t.Message == "" || text(t.Message) == text(e.Message))
}

// classes are the classes of error codes; what stands before one names a
// service (section 9.1).
var classes = []string{"INPUT_INVALID.", "REQUEST_FAILED.", "REQUEST_ONHOLD.", "REQUEST_CANCELLED."}

// gateway are the codes of the gateway before the platform, and those that say
// the same (section 4.3).
var gateway = map[string]string{
	"900901": CodeAuthorization,
	"900902": CodeAuthorization,
	"900906": CodeResourceNotFound,
}

// bare is a code without the service that sent it.
func bare(code string) string {
	if c, ok := gateway[code]; ok {
		code = c
	}
	for _, class := range classes {
		if i := strings.Index(code, class); i >= 0 {
			return code[i:]
		}
	}
	return code[strings.LastIndexByte(code, '.')+1:]
}

// text is a message without the class before it and the period behind it: the
// reference spells both in more than one way.
func text(message string) string {
	for _, class := range []string{"REQUEST_FAILED", "REQUEST FAILED"} {
		if rest, ok := strings.CutPrefix(message, class); ok {
			message = strings.TrimLeft(rest, ":. ")
		}
	}
	return strings.TrimSuffix(message, ".")
}

// The documented errors of assign and unassign, to the letter (section 1.6). Of the
// rest see ErrUnexpected and what follows it.
var (
	ErrAlreadyLicensed = &Error{
		Status: 400, Code: "REQUEST_FAILED.CarrierRequestUnsuccessful",
		Message: "REQUEST FAILED: Device already has license assigned.",
	}
	ErrLicenseHeld = &Error{
		Status: 400, Code: CodeCarrierRequestUnsuccessful,
		Message: "REQUEST_FAILED: At least one device exists with Assigned or Pending Assignment or Pending UnAssignment license status.",
	}
	ErrSKUNotDefined = &Error{
		Status: 400, Code: "Carrier.Service.INPUT_INVALID.SKUNumber.NotDefined",
		Message: "skuNumber is a required field.",
	}
	ErrActionNotDefined = &Error{
		Status: 400, Code: "Carrier.Service.INPUT_INVALID.Action.NotDefined",
		Message: "Action is required.",
	}
	ErrDevicesNotFound = &Error{
		Status: 400, Code: CodeCarrierRequestUnsuccessful,
		Message: "REQUEST_FAILED: Devices not found for the specified IMEI and ICCID.",
	}
	ErrGroupNotSupported = &Error{
		Status: 400, Code: "Carrier.Service.INPUT_INVALID.DeviceGroupName.NotSupported",
		Message: "The Device Group Name is not supported.",
	}
	ErrActionInvalid = &Error{
		Status: 400, Code: "Carrier.Service.INPUT_INVALID.Action.Invalid",
		Message: "The action was not recognized as valid.",
	}
	ErrDeviceNotDefined = &Error{
		Status: 400, Code: "UnifiedWebService.INPUT_INVALID.DeviceNotDefined",
		Message: "A device must be defined.",
	}
	ErrIdentifiersNull = &Error{
		Status: 400, Code: "CarrierService.INPUT_INVALID.DeviceIdentifierCollection.Null",
		Message: "A device identifier collection may not be null.",
	}
	ErrUnassignLifetime = &Error{
		Status: 400, Code: "UnifiedWebService.INPUT_INVALID.Unassign.NotSupported",
		Message: "The unassign action is not supported for SIM-Secure lifetime.",
	}
	ErrInsufficientLicense = &Error{
		Status: 400, Code: "INPUT_INVALID.InsufficientLicense.Invalid",
		Message: "You do not have required licenses to perform this action.",
	}
)

// CodeCarrierRequestUnsuccessful is the code of several errors, and the
// faultcode of a callback whose SIM the carrier refused.
const CodeCarrierRequestUnsuccessful = "UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful"

// Codes of the platform's other errors (section 9.2 and docs/compatibility.md).
const (
	CodeRequestUndefined    = "UnifiedWebService.INPUT_INVALID.RequestUndefined"
	CodeDeserialization     = "UnifiedWebService.DeserializationFailed"
	CodeUnexpected          = "UnifiedWebService.REQUEST_FAILED.UnexpectedError"
	CodeAuthorization       = "UnifiedWebService.REQUEST_FAILED.Authorization"
	CodeAuthentication      = "UnifiedWebService.REQUEST_FAILED.Authentication"
	CodeSessionExpired      = "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"
	CodeSessionInvalid      = "UnifiedWebService.INPUT_INVALID.SessionToken.Invalid"
	CodeMethodNotAllowed    = "UnifiedWebService.INPUT_INVALID.Method.NotAllowed"
	CodeSKUInvalid          = "Carrier.Service.INPUT_INVALID.SKUNumber.Invalid"
	CodeMultipleAccounts    = "UnifiedWebService.REQUEST_FAILED.MultipleAccounts"
	CodeNoAccounts          = "UnifiedWebService.REQUEST_FAILED.NoAccounts"
	CodeAccountNotFound     = "UnifiedWebService.REQUEST_FAILED.AccountNotFound"
	CodeKindInvalid         = "UnifiedWebService.INPUT_INVALID.Device.Kind.Invalid"
	CodeIdentifierInvalid   = "UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid"
	CodeDeviceDuplicate     = "UnifiedWebService.INPUT_INVALID.Device.Duplicate"
	CodeMaxRequestsExceeded = "UnifiedWebService.INPUT_INVALID.MaxRequestsExceeded"
	CodeDeviceState         = "UnifiedWebService.INPUT_INVALID.DeviceState.Invalid"
	CodeDeviceNotEligible   = "UnifiedWebService.INPUT_INVALID.Device.NotEligible"
	CodeNotAssigned         = "UnifiedWebService.REQUEST_FAILED.LicenseNotAssigned"
	CodePolicy              = "UnifiedWebService.REQUEST_FAILED.Policy"
	CodeCallbackService     = "UnifiedWebService.INPUT_INVALID.CallbackService.Invalid"
	CodeCallbackURL         = "UnifiedWebService.INPUT_INVALID.CallbackUrl.Invalid"
	CodeCallbackCredentials = "UnifiedWebService.INPUT_INVALID.CallbackCredentials.Invalid"
	CodeCallbackNotFound    = "UnifiedWebService.REQUEST_FAILED.CallbackNotRegistered"
	CodeRequestNotFound     = "UnifiedWebService.REQUEST_FAILED.RequestNotFound"
	CodeKeyReused           = "UnifiedWebService.INPUT_INVALID.IdempotencyKey.Reused"
	CodeResourceNotFound    = "UnifiedWebService.REQUEST_FAILED.ResourceNotFound"
	CodeTooManyRequests     = "UnifiedWebService.REQUEST_FAILED.TooManyRequests"
	CodeUnavailable         = "UnifiedWebService.REQUEST_FAILED.ServiceUnavailable"
	CodeInvalidClient       = "invalid_client" // of the token endpoint
)

// The platform's other errors, for errors.Is: whoever has the code is meant,
// whatever the message.
var (
	// Who calls.
	ErrInvalidClient  = &Error{Code: CodeInvalidClient}  // an unknown application, or a wrong secret
	ErrAuthorization  = &Error{Code: CodeAuthorization}  // the token is missing or no longer good
	ErrAuthentication = &Error{Code: CodeAuthentication} // an unknown user, or a wrong password
	ErrSessionExpired = &Error{Code: CodeSessionExpired}
	ErrSessionInvalid = &Error{Code: CodeSessionInvalid}

	// For which account.
	ErrAccountNotFound  = &Error{Code: CodeAccountNotFound} // or not one of the user's
	ErrMultipleAccounts = &Error{Code: CodeMultipleAccounts}
	ErrNoAccounts       = &Error{Code: CodeNoAccounts}

	// What is asked for.
	ErrSKUInvalid          = &Error{Code: CodeSKUInvalid}
	ErrKindInvalid         = &Error{Code: CodeKindInvalid}
	ErrIdentifierInvalid   = &Error{Code: CodeIdentifierInvalid}
	ErrDeviceDuplicate     = &Error{Code: CodeDeviceDuplicate}
	ErrMaxRequestsExceeded = &Error{Code: CodeMaxRequestsExceeded} // too many devices in one request
	ErrRequestUndefined    = &Error{Code: CodeRequestUndefined}
	ErrDeserialization     = &Error{Code: CodeDeserialization}
	ErrKeyReused           = &Error{Code: CodeKeyReused} // one Idempotency-Key, two requests

	// What cannot be done.
	ErrDeviceState       = &Error{Code: CodeDeviceState}                // not active
	ErrDeviceNotEligible = &Error{Code: CodeDeviceNotEligible}          // not 4G
	ErrNotAssigned       = &Error{Code: CodeNotAssigned}                // unassign: no license of this SKU
	ErrCarrierRefused    = &Error{Code: CodeCarrierRequestUnsuccessful} // with whatever message
	ErrPolicy            = &Error{Code: CodePolicy}

	// Listeners and requests.
	ErrCallbackService     = &Error{Code: CodeCallbackService}
	ErrCallbackURL         = &Error{Code: CodeCallbackURL}
	ErrCallbackCredentials = &Error{Code: CodeCallbackCredentials}
	ErrCallbackNotFound    = &Error{Code: CodeCallbackNotFound}
	ErrRequestNotFound     = &Error{Code: CodeRequestNotFound}

	// The service itself.
	ErrUnexpected       = &Error{Code: CodeUnexpected}
	ErrResourceNotFound = &Error{Code: CodeResourceNotFound} // no such path
	ErrMethodNotAllowed = &Error{Code: CodeMethodNotAllowed}
	ErrTooManyRequests  = &Error{Status: 429, Code: CodeTooManyRequests}
	ErrUnavailable      = &Error{Status: 503, Code: CodeUnavailable}
)

// Err is what the callback tells as an error, to be compared by errors.Is like
// that of a call; nil when the device succeeded.
func (m *CallbackMessage) Err() error {
	switch {
	case m.FaultResponse != nil:
		return &Error{Code: m.FaultResponse.FaultCode, Message: m.FaultResponse.FaultString}
	case m.Status != CallbackSuccess:
		return &Error{Code: CodeUnexpected, Message: m.Comment}
	}
	return nil
}
