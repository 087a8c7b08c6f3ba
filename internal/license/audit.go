package license

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// Via is the way by which somebody changed something.
type Via string

// The ways.
const (
	ViaAPI     Via = "api"     // a client's or an operator's program
	ViaConsole Via = "console" // an operator's page
	ViaCLI     Via = "cli"     // a command on the database
	ViaSystem  Via = "system"  // the service by itself: a purge, a seed
)

// Actor is who changes something. The zero value is the service itself.
type Actor struct {
	Name string // of the operator, user or machine account; never a secret
	Via  Via
	From string // the address, host or node it came from; may be empty
}

// AuditEntry is one line of the audit: who did what, when and from where, and how
// it was before and after.
type AuditEntry struct {
	Number int64  // its place in the chain, from 1; 0 until it is sealed
	ID     string // unique, and known before it is sealed
	At     time.Time
	Actor
	Action  string      // what was done, such as "pool.purchase": the kind of thing, and the deed
	Account AccountName // empty for what concerns no single account
	Target  string      // what it was done to: a SKU, an ICCID, a name; may be empty
	Before  string      // a JSON value without secrets, or empty
	After   string      // the same
	Hash    string      // of the chain up to this entry; empty until it is sealed
}

// Kind is the kind of thing that was changed, such as "pool".
func (e AuditEntry) Kind() string {
	kind, _, _ := strings.Cut(e.Action, ".")
	return kind
}

// Link is the hash that stands for the chain up to this entry: the SHA-256, in
// hexadecimal digits, of the previous entry's hash (empty before the first), the
// number and the microseconds since 1970 as decimal numbers, the ID, name, via,
// from, action, account, target, before and after, each written as its length in
// bytes, a colon, itself and a comma.
func (e AuditEntry) Link(previous string) string {
	var b []byte
	for _, field := range []string{
		previous, strconv.FormatInt(e.Number, 10), strconv.FormatInt(e.At.UnixMicro(), 10), e.ID, e.Name, string(e.Via),
		e.From, e.Action, string(e.Account), e.Target, e.Before, e.After,
	} {
		b = strconv.AppendInt(b, int64(len(field)), 10)
		b = append(b, ':')
		b = append(b, field...)
		b = append(b, ',')
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
