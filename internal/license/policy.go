package license

import (
	"errors"
	"fmt"
	"time"
)

// ErrPolicy says that the account's policy does not allow a request.
var ErrPolicy = errors.New("the account's policy does not allow it")

// Policy is what an account may do of the work that cannot be undone. The zero
// value allows everything. Unassigning is always allowed: it gives back.
type Policy struct {
	Account AccountName
	// RefuseLifetime refuses assignments of lifetime SKUs.
	RefuseLifetime bool
	// DailyDevices is the most devices the account may have accepted for
	// assignment in one UTC day of the service's clock; 0 is no limit.
	DailyDevices int64
}

// Free reports whether the policy allows everything.
func (p Policy) Free() bool { return !p.RefuseLifetime && p.DailyDevices == 0 }

// Check holds an assignment of devices against the policy, when accepted have
// been accepted that day. The error is a *PolicyError.
func (p Policy) Check(sku SKU, devices int, accepted int64) error {
	switch {
	case p.RefuseLifetime && sku.Lifetime():
		return &PolicyError{Rule: RuleLifetime}
	case p.DailyDevices > 0 && accepted+int64(devices) > p.DailyDevices:
		return &PolicyError{Rule: RuleDaily, Limit: p.DailyDevices, Accepted: accepted, Devices: devices}
	}
	return nil
}

// Day is the first moment of the UTC day that t is in, by which devices are
// counted.
func Day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// Rule is a part of a policy.
type Rule string

// The rules.
const (
	RuleLifetime Rule = "lifetime"
	RuleDaily    Rule = "daily"
)

// PolicyError says which rule of a policy a request breaks. It is an ErrPolicy.
type PolicyError struct {
	Rule Rule
	// Of RuleDaily: the limit, what was accepted that day, and what the request
	// would have added.
	Limit, Accepted int64
	Devices         int
}

func (e *PolicyError) Error() string {
	if e.Rule == RuleLifetime {
		return "assignments of lifetime licenses are not allowed on this account"
	}
	return fmt.Sprintf("at most %d devices may be assigned on this account in a day (UTC): %d have been, and %d more are asked for",
		e.Limit, e.Accepted, e.Devices)
}

func (e *PolicyError) Unwrap() error { return ErrPolicy }
