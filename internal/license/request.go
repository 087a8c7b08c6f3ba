package license

import (
	"cmp"
	"encoding/hex"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RequestID names an accepted request: a UUID in its canonical lower-case form.
type RequestID string

// NewRequestID makes a UUID of version 7 (RFC 9562, 5.7) from the caller's
// clock, so that ids made later sort later also when that clock is a simulated
// one. It panics when random runs dry, which crypto/rand.Reader never does.
func NewRequestID(now time.Time, random io.Reader) RequestID {
	var b [16]byte
	if _, err := io.ReadFull(random, b[6:]); err != nil {
		panic("reading randomness: " + err.Error())
	}
	ms := now.UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (8 * (5 - i))) //nolint:gosec // the low byte is what is meant
	}
	b[6] = b[6]&0x0f | 0x70
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return RequestID(s[:])
}

// Time is when a request that NewRequestID named was made, to the millisecond; of
// other names it is some time or none.
func (id RequestID) Time() time.Time {
	if len(id) < 13 {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(string(id[:8]+id[9:13]), 16, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// ParseRequestID checks s as the name of a request: a UUID, in either case of
// letters.
func ParseRequestID(s string) (RequestID, error) {
	wrong := len(s) != len("00000000-0000-0000-0000-000000000000")
	for i := 0; !wrong && i < len(s); i++ {
		switch c := s[i]; i {
		case 8, 13, 18, 23:
			wrong = c != '-'
		default:
			wrong = !isDigit(c) && (c < 'a' || c > 'f') && (c < 'A' || c > 'F')
		}
	}
	if wrong {
		return "", &InputError{Field: FieldRequest, Value: s, Reason: "a request's ID is a UUID of 36 characters"}
	}
	return RequestID(strings.ToLower(s)), nil
}

// Request is an assign or unassign of one SKU for many devices of one account:
// accepted, or about to be.
type Request struct {
	ID      RequestID
	Account AccountName
	SKU     SKU
	Action  Action
	Devices []Device // sorted by ICCID, then IMEI; no identifier twice
	At      time.Time
}

// NewRequest puts a request together. It sorts devices in place, so that
// whoever locks them does so in one order.
//
// The errors, in the order they are looked for: an *InputError where there is
// no device, a *DevicesError of ErrDuplicate where one is named twice, and
// ErrLifetime for the unassignment of a lifetime SKU.
func NewRequest(id RequestID, account AccountName, sku SKU, action Action, devices []Device, at time.Time) (*Request, error) {
	if len(devices) == 0 {
		return nil, &InputError{Field: FieldDevices, Reason: "a device must be defined"}
	}
	if twice := SortDevices(devices); len(twice) > 0 {
		return nil, &DevicesError{Err: ErrDuplicate, Devices: twice}
	}
	if action == Unassign && sku.Lifetime() {
		return nil, ErrLifetime
	}
	return &Request{ID: id, Account: account, SKU: sku, Action: action, Devices: devices, At: at}, nil
}

// SortDevices sorts devices by ICCID, then IMEI, and returns those that are
// named twice: by one ICCID, or by one IMEI with no ICCID beside it.
func SortDevices(devices []Device) (twice []Device) {
	slices.SortFunc(devices, func(a, b Device) int {
		if c := cmp.Compare(a.ICCID, b.ICCID); c != 0 {
			return c
		}
		return cmp.Compare(a.IMEI, b.IMEI)
	})
	for i := 1; i < len(devices); i++ {
		a, b := devices[i-1], devices[i]
		if a.ICCID == b.ICCID && (a.ICCID != "" || a.IMEI == b.IMEI) {
			twice = append(twice, b)
		}
	}
	return twice
}

// Status is how a request stands as a whole.
type Status string

// The statuses of a request, as the API spells them (thingspace-api.md 7).
const (
	StatusPending Status = "Pending" // the carrier has not answered for every device
	StatusSuccess Status = "Success" // every device succeeded
	StatusFailure Status = "Failure" // every device was answered for, not all with success
)

// Progress counts how far a request has come.
type Progress struct {
	ID      RequestID
	Account AccountName
	SKU     SKU
	Action  Action
	At      time.Time
	Total   int
	Done    int       // settled with success
	Failed  int       // settled with a refusal
	Purged  time.Time // when its tasks were deleted; zero: they are there
}

// Status sums the progress up: pending until the outcome of every device is
// settled, whatever became of the callbacks (behaviour.md 6).
func (p Progress) Status() Status {
	switch {
	case p.Done+p.Failed < p.Total:
		return StatusPending
	case p.Failed == 0:
		return StatusSuccess
	default:
		return StatusFailure
	}
}

// Plan is what a request would do, device by device, were it made now.
type Plan struct {
	Pool    Pool    // as it is
	Devices []error // of each of the request's devices, in their order; nil where it would succeed
	Err     error   // of the request as a whole: ErrInsufficient, a *PolicyError or nil
}
