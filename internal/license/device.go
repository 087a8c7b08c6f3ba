package license

import (
	"strings"
	"time"
)

// ICCID identifies a SIM: 18 to 20 ASCII digits.
type ICCID string

// IMEI identifies the device a SIM is in: 15 ASCII digits.
type IMEI string

// MDN is a device's telephone number: up to 15 ASCII digits, or empty when it
// is not known.
type MDN string

// ParseICCID checks s as an ICCID. Check digits are not checked and nothing is
// trimmed: in a request an identifier is right as it stands or refused.
func ParseICCID(s string) (ICCID, error) {
	if len(s) < 18 || len(s) > 20 || !digits(s) {
		return "", &InputError{Field: FieldDeviceID, Value: s, Reason: "an ICCID has 18 to 20 decimal digits"}
	}
	return ICCID(s), nil
}

// ParseIMEI checks s as an IMEI of exactly 15 digits. The check digit is not
// checked: the reference's own sample fails it (behaviour.md 4).
func ParseIMEI(s string) (IMEI, error) {
	if len(s) != 15 || !digits(s) {
		return "", &InputError{Field: FieldDeviceID, Value: s, Reason: "an IMEI has 15 decimal digits"}
	}
	return IMEI(s), nil
}

// ParseMDN checks s as a telephone number of at most 15 digits (E.164). The
// empty string is an unknown number.
func ParseMDN(s string) (MDN, error) {
	if len(s) > 15 || !digits(s) {
		return "", &InputError{Field: FieldDeviceID, Value: s, Reason: "an MDN has at most 15 decimal digits"}
	}
	return MDN(s), nil
}

// ImportIMEI reads an IMEI as inventories write it: 14 digits get their check
// digit, 16 (an IMEISV) lose their software version and get theirs. A wrong
// check digit in 15 is accepted and described in warning.
func ImportIMEI(s string) (id IMEI, warning string, err error) {
	if !digits(s) {
		return "", "", &InputError{Field: FieldDeviceID, Value: s, Reason: "an IMEI has 14, 15 or 16 decimal digits"}
	}
	switch len(s) {
	case 14, 16:
		return IMEI(s[:14] + string(CheckDigit(s[:14]))), "", nil
	case 15:
		if want := CheckDigit(s[:14]); s[14] != want {
			warning = "the check digit of IMEI " + s + " should be " + string(want)
		}
		return IMEI(s), warning, nil
	}
	return "", "", &InputError{Field: FieldDeviceID, Value: s, Reason: "an IMEI has 14, 15 or 16 decimal digits"}
}

// CheckDigit is the digit to put behind the digits s, by Luhn (ISO/IEC 7812-1): of
// IMEIs and of ICCIDs.
func CheckDigit(s string) byte {
	sum := 0
	for i := range len(s) {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return byte('0' + (10-sum%10)%10)
}

func digits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return true
}

// Device is one SIM and the device it is in. In a request either identifier
// may be empty until the store has looked it up; the MDN always is until then.
type Device struct {
	ICCID ICCID
	IMEI  IMEI
	MDN   MDN
}

// String names the device as a message would: its ICCID, or its IMEI where that
// is all that is known.
func (d Device) String() string {
	if d.ICCID != "" {
		return string(d.ICCID)
	}
	return string(d.IMEI)
}

// State is where a SIM stands in its life on the network. Only an active SIM
// can be assigned a license (thingspace-api.md 1.3).
type State string

// The states of a SIM, spelled as device lists show them (thingspace-api.md 8.2).
const (
	StateActive    State = "active"
	StateSuspended State = "suspend"
	StateInactive  State = "deactive"
	StatePreActive State = "pre-active"
)

// ParseState checks s as the state of a SIM, in any case. The empty string is
// active, what an inventory without that column means.
func ParseState(s string) (State, error) {
	switch strings.ToLower(s) {
	case "", "active", "activate":
		return StateActive, nil
	case "suspend", "suspended":
		return StateSuspended, nil
	case "deactive", "deactivated", "inactive":
		return StateInactive, nil
	case "pre-active", "preactive":
		return StatePreActive, nil
	}
	return "", &InputError{Field: FieldState, Value: s, Reason: "a state is active, suspend, deactive or pre-active"}
}

// Generation is the network generation of a device. Only 4G devices can be
// assigned a license (thingspace-api.md 1.3).
type Generation string

// Generation4G is the one generation that is eligible.
const Generation4G Generation = "4G"

// ParseGeneration checks s as 2G, 3G, 4G or 5G, in any case. The empty string
// is 4G.
func ParseGeneration(s string) (Generation, error) {
	switch g := Generation(strings.ToUpper(s)); g {
	case "":
		return Generation4G, nil
	case "2G", "3G", "4G", "5G":
		return g, nil
	}
	return "", &InputError{Field: FieldGeneration, Value: s, Reason: "a generation is 2G, 3G, 4G or 5G"}
}

// SIM is a SIM of the inventory with the license it holds.
type SIM struct {
	Account    AccountName
	Device     Device
	IMSI       string
	State      State
	Generation Generation
	Number     int64     // given at import, rising: the DeviceId that device lists page by
	Added      time.Time // when it was imported
	SKU        SKU       // the license it holds or awaits; empty when none
	Request    RequestID // the request that last touched that license
}

// DeviceFilter selects SIMs of some accounts. The zero value of another field
// selects all.
type DeviceFilter struct {
	Accounts []AccountName
	Device   Device            // identifiers to match exactly; empty ones match all
	Devices  []Device          // any of these, each by the identifiers it has
	Match    []IdentifierMatch // all of these
	State    State
	After    int64 // only SIMs with a greater Number
	Earliest time.Time
	Latest   time.Time
	Limit    int
}

// IdentifierKind is one of the identifiers a SIM is known by.
type IdentifierKind string

// The kinds of identifiers.
const (
	KindICCID IdentifierKind = "ICCID"
	KindIMEI  IdentifierKind = "IMEI"
	KindMDN   IdentifierKind = "MDN"
)

// IdentifierMatch selects SIMs by parts of one identifier; empty parts match
// all. The parts are digits.
type IdentifierMatch struct {
	Kind     IdentifierKind
	Contains string
	Prefix   string
	Suffix   string
}
