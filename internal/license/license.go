// Package license is the domain of Simlatch: what a SIM, a pool, a request and
// a task are, and the rules that need no database. It imports nothing of ours
// and only the standard library.
//
// Values are made by functions that check them (ParseICCID, ParseSKU,
// NewRequest); what exists is valid, so nothing behind the edge checks again.
// Rules that need stored facts are single transactions of package store.
package license

import (
	"fmt"
	"strings"
	"time"
)

// AccountName names a billing account, such as "0000123456-00001". Leading
// zeros are kept. Two names that differ only by hyphens are the same account.
type AccountName string

// maxAccountName is the longest account name the reference's clients can send
// (thingspace-api.md 1.1).
const maxAccountName = 32

// ParseAccountName checks s as the name of an account: 3 to 32 ASCII letters,
// digits and hyphens, at least one of them no hyphen.
func ParseAccountName(s string) (AccountName, error) {
	if len(s) < 3 || len(s) > maxAccountName {
		return "", &InputError{Field: FieldAccount, Value: s, Reason: "an account name has 3 to 32 characters"}
	}
	for i := range len(s) {
		c := s[i]
		if !isDigit(c) && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return "", &InputError{Field: FieldAccount, Value: s, Reason: "an account name has letters, digits and hyphens only"}
		}
	}
	if AccountName(s).Folded() == "" {
		return "", &InputError{Field: FieldAccount, Value: s, Reason: "an account name needs a letter or digit"}
	}
	return AccountName(s), nil
}

// Folded is the name without its hyphens: the form in which two names are
// compared, since some clients can send no hyphen (thingspace-api.md 3).
func (a AccountName) Folded() string { return strings.ReplaceAll(string(a), "-", "") }

// SKU names a type of license.
type SKU string

// The SKUs of the reference (thingspace-api.md 1.2).
const (
	SKULifetime     SKU = "SIMSec-IoT-Lt"               // for the life of the SIM, never unassigned
	SKUFlexible     SKU = "SIMSec-IoT"                  // assigned and unassigned at will
	SKUBundle       SKU = "TS-BUNDLE-KTO-SIMSEC-MRC"    // flexible, sold with other services
	SKUIntelligence SKU = "TSS-IOT-INTLG-TIERED-SIMSEC" // flexible, part of the intelligence bundle
)

// SKUs lists every SKU there is, in the order of the reference.
func SKUs() []SKU { return []SKU{SKULifetime, SKUFlexible, SKUBundle, SKUIntelligence} }

// ParseSKU checks that s is one of the known SKUs, letter for letter.
func ParseSKU(s string) (SKU, error) {
	for _, k := range SKUs() {
		if s == string(k) {
			return k, nil
		}
	}
	return "", &InputError{Field: FieldSKU, Value: s, Reason: "unknown SKU; known are " + joinSKUs()}
}

func joinSKUs() string {
	var names []string
	for _, k := range SKUs() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// Lifetime reports whether licenses of the SKU stay for the life of the SIM.
func (k SKU) Lifetime() bool { return k == SKULifetime }

// Label is the SKU's licenseType in the list of subscriptions. Of the four the
// reference attests only "Flexible Bundle" (thingspace-api.md 3).
func (k SKU) Label() string {
	switch k {
	case SKULifetime:
		return "Lifetime"
	case SKUBundle:
		return "Flexible Bundle"
	case SKUIntelligence:
		return "Intelligence Bundle"
	default:
		return "Flexible"
	}
}

// Action is what a request asks for.
type Action string

// The two actions.
const (
	Assign   Action = "assign"
	Unassign Action = "unassign"
)

// Phase is where the work for one device stands.
type Phase string

// The phases of a task, in the order it passes through them.
const (
	PhaseCarrier  Phase = "carrier"  // the carrier has not answered yet
	PhaseListener Phase = "listener" // settled; the listener has not acknowledged yet
	PhaseEnded    Phase = "ended"    // nothing more will be done
	PhaseStuck    Phase = "stuck"    // the carrier stayed silent too long; an operator must decide
)

// Pool is what one account holds of one SKU.
type Pool struct {
	Account   AccountName
	SKU       SKU
	Purchased int64 // licenses bought, less those withdrawn
	Reserved  int64 // set aside for assignments the carrier has not answered
	Assigned  int64 // held by SIMs, those being unassigned included
	Threshold int64 // with fewer available the pool is low; 0: it never is
}

// Available is the number of licenses that can still be assigned.
func (p Pool) Available() int64 { return p.Purchased - p.Assigned - p.Reserved }

// Low reports whether fewer licenses are available than the operators want.
func (p Pool) Low() bool { return p.Available() < p.Threshold }

// Alert is an operator's news that a pool has run low.
type Alert struct {
	Number    int64 // rising, in the order in which they came
	At        time.Time
	Account   AccountName
	SKU       SKU
	Available int64 // when it came
	Threshold int64
	Attempt   int // of its message, from 1, when it is claimed
}

// Purchase is one entry of the record of licenses bought (positive) or
// withdrawn (negative); a pool's Purchased is their sum.
type Purchase struct {
	Account   AccountName
	SKU       SKU
	Units     int64
	Reference string // an order number or the like; may be empty
	Reason    string
}

// Drift is one place where pools, entitlements and postings disagree, as found
// by verifying the ledger.
type Drift struct {
	Account AccountName
	SKU     SKU // empty where the finding concerns no single pool
	What    string
}

func (d Drift) String() string {
	if d.SKU == "" {
		return fmt.Sprintf("account %s: %s", d.Account, d.What)
	}
	return fmt.Sprintf("account %s, SKU %s: %s", d.Account, d.SKU, d.What)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
