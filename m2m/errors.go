package m2m

import (
	"fmt"
	"strings"
	"time"
)

// Error is an error answer of the API (sections 1.6 and 9).
type Error struct {
	Status     int           // of HTTP
	Code       string        // errorCode, such as CodeSKUInvalid
	Message    string        // errorMessage
	RequestID  string        // the X-Request-ID of the answer
	RetryAfter time.Duration // when the server says when to try again
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s (%s, HTTP %d)", strings.TrimSuffix(e.Message, "."), e.Code, e.Status)
}

// Is reports whether target is an *Error with the same code. As the reference
// advises, the service before the code's class is left out of the comparison; a
// target with a message must have the same message too, since one code stands
// for several errors.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	if !ok {
		return false
	}
	return bare(e.Code) == bare(t.Code) && (t.Message == "" || t.Message == e.Message)
}

// classes are the classes of error codes; what stands before one names a
// service (section 9.1).
var classes = []string{"INPUT_INVALID.", "REQUEST_FAILED.", "REQUEST_ONHOLD.", "REQUEST_CANCELLED."}

func bare(code string) string {
	for _, class := range classes {
		if i := strings.Index(code, class); i >= 0 {
			return code[i:]
		}
	}
	return code[strings.LastIndexByte(code, '.')+1:]
}

// The documented errors of assign and unassign, to the letter (section 1.6).
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
)
