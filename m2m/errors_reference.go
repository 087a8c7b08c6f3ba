package m2m

// Errors that the reference documents and Simlatch never sends, since it has
// another for the case or none of what they are about (section 9.2).
var (
	ErrSessionFormat     = &Error{Code: "REQUEST_FAILED.SessionToken.Format"}     // no session token in the header
	ErrAccountNotDefined = &Error{Code: "INPUT_INVALID.Account.NotDefined"}       // no account named
	ErrAccountName       = &Error{Code: "REQUEST_FAILED.AccountName"}             // not one of the user's accounts
	ErrInvalidCharacter  = &Error{Code: "INPUT_INVALID.Request.InvalidCharacter"} // one of ' < \ in the input
	ErrNumberOfDevices   = &Error{Code: "INPUT_INVALID.NumberofDevices"}          // more than 200 in a request
	ErrDeviceNotFound    = &Error{Code: "REQUEST_FAILED.DeviceNotFound"}
	ErrDeviceAccount     = &Error{Code: "INPUT_INVALID.Device.Account.Invalid"} // a device of another account
)
