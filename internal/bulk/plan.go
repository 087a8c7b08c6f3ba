// Package bulk assigns and unassigns the licenses of whole fleets, by way of the
// API alone: against Simlatch or any server that speaks the same.
//
// It is two steps with a file between them that people read. Make checks each
// row of a Fleet, with a dry run on the server where that is Simlatch, and with
// what the API tells of devices and pools where it is not, and makes a Plan. A
// Run carries a plan out:
//
//	fleet, err := bulk.ReadFleet(f, "fleet.csv")
//	plan, err := bulk.Make(ctx, bulk.MakeParams{Client: c, Fleet: fleet, …})
//	err = plan.WriteFile("fleet.plan")
//	…
//	plan, err := bulk.ReadPlan("fleet.plan")
//	run, err := bulk.Open(plan, "fleet.plan")
//	err = run.Apply(ctx, bulk.Config{Client: c})
//
// A run may end anywhere, by kill -9 or a power cut, and be opened again. What it
// is about to send is in its journal, on the disk, before it is sent. A request
// whose answer is not there has been accepted or has not: Simlatch is asked again
// under the same Idempotency-Key, and of another server it is found out by
// asking, not by sending. Everything known of a run is what its journal says
// (state.go), so the first run and the tenth are the same code.
package bulk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// planVersion is the version of the plan file's form.
const planVersion = 1

// Plan is what is to be done to a fleet, and what stands against it.
type Plan struct {
	Version int       `json:"simlatchPlan"`
	Digest  string    `json:"digest"` // of the file, but for the digest itself
	Made    time.Time `json:"made"`
	Server  string    `json:"server"`
	Account string    `json:"account"`
	Action  string    `json:"action"` // assign or unassign
	SKU     string    `json:"sku"`
	File    string    `json:"file,omitempty"` // the fleet's

	// Irreversible plans assign licenses that nobody can take back.
	Irreversible bool `json:"irreversible"`
	// DryRun plans were checked by the server itself, which is Simlatch.
	DryRun bool `json:"dryRun"`
	// Unchecked says what nobody could check.
	Unchecked []string `json:"unchecked,omitempty"`
	// SkipBad plans may be applied without the rows that are not OK.
	SkipBad bool `json:"skipBad"`

	Before m2m.Subscription `json:"poolBefore"`
	After  m2m.Subscription `json:"poolAfter"`
	Rows   []Row            `json:"rows"`
}

// Irreversible reports whether an action cannot be undone. A SKU that is not
// documented is taken for one that cannot.
func Irreversible(action license.Action, sku string) bool {
	known, err := license.ParseSKU(sku)
	return action == license.Assign && (err != nil || known.Lifetime())
}

// OK counts the rows that nothing speaks against.
func (p *Plan) OK() int {
	n := 0
	for i := range p.Rows {
		if p.Rows[i].OK() {
			n++
		}
	}
	return n
}

// Short is how many licenses the pool lacked for the plan when it was made.
func (p *Plan) Short() int {
	if p.Action != string(license.Assign) {
		return 0
	}
	return max(0, p.OK()-int(p.Before.LicenseAvailable))
}

// Count is how many rows have one verdict.
type Count struct {
	Rows    int
	Verdict string // in a few words
	Code    string
}

// Verdicts counts the rows by what stands against them, the most frequent first.
func (p *Plan) Verdicts() []Count {
	var counts []Count
	for i := range p.Rows {
		r := &p.Rows[i]
		if r.OK() {
			continue
		}
		verdict := Verdict(r.Code, r.Message)
		at := slices.IndexFunc(counts, func(c Count) bool { return c.Verdict == verdict && c.Code == r.Code })
		if at < 0 {
			at = len(counts)
			counts = append(counts, Count{Verdict: verdict, Code: r.Code})
		}
		counts[at].Rows++
	}
	slices.SortStableFunc(counts, func(a, b Count) int { return b.Rows - a.Rows })
	return counts
}

// verdicts are a few words for each of the errors that a device can meet.
var verdicts = []struct {
	err   *m2m.Error
	words string
}{
	{m2m.ErrIdentifierInvalid, "bad identifier"},
	{m2m.ErrDeviceDuplicate, "named twice"},
	{m2m.ErrDevicesNotFound, "not known"},
	{m2m.ErrDeviceState, "not active"},
	{m2m.ErrDeviceNotEligible, "not 4G"},
	{m2m.ErrLicenseHeld, "licensed already, or on the way"},
	{m2m.ErrAlreadyLicensed, "licensed already"},
	{m2m.ErrNotAssigned, "holds no such license"},
	{m2m.ErrUnassignLifetime, "lifetime cannot be unassigned"},
	{m2m.ErrInsufficientLicense, "no license left"},
	{m2m.ErrPolicy, "against the account's policy"},
}

// refused is the verdict where we have no better words.
const refused = "refused"

// Verdict is a code in a few words; "refused" where it is none of the documented.
func Verdict(code, message string) string {
	e := &m2m.Error{Code: code, Message: message}
	for _, v := range verdicts {
		if errors.Is(e, v.err) {
			return v.words
		}
	}
	return refused
}

// WriteFile writes the plan: JSON, a row a line. A plan that is being applied is
// not overwritten, since its journal would then tell of another one.
func (p *Plan) WriteFile(path string) error {
	if _, err := os.Stat(JournalPath(path)); err == nil {
		return fmt.Errorf("the plan %s has been applied, or has begun to be, as its journal %s says: 'simlatch apply %s' goes on; "+
			"for a new plan give another --out, or move the two away", path, JournalPath(path), path)
	}
	p.Version, p.Digest = planVersion, ""
	text, err := p.encode()
	if err != nil {
		return err
	}
	p.Digest = digest(text)
	text = bytes.Replace(text, []byte(`"digest": ""`), []byte(`"digest": "`+p.Digest+`"`), 1)
	return writeFile(path, text)
}

// encode is the plan as JSON with each row on one line, for people and diff.
func (p *Plan) encode() ([]byte, error) {
	head := *p
	head.Rows = []Row{}
	text, err := json.MarshalIndent(head, "", "  ")
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(text, []byte("[]\n}")))
	b.WriteString("[")
	separator := "\n    "
	for i := range p.Rows {
		row, err := json.Marshal(&p.Rows[i])
		if err != nil {
			return nil, err
		}
		b.WriteString(separator)
		b.Write(row)
		separator = ",\n    "
	}
	b.WriteString("\n  ]\n}\n")
	return b.Bytes(), nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// digestLine is where the digest stands: near the beginning, before anything
// that comes from somewhere else.
var digestLine = regexp.MustCompile(`"digest": "(sha256:[0-9a-f]{64})"`)

// ReadPlan reads a plan and fails when it is not as WriteFile wrote it: somebody
// has looked at it and agreed to it as it was.
func ReadPlan(path string) (*Plan, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the plan: %w", err)
	}
	var p Plan
	if err := json.Unmarshal(text, &p); err != nil || p.Version == 0 {
		return nil, fmt.Errorf("%s is no plan; 'simlatch plan' makes one: %w", path, errors.Join(err, errNoPlan))
	}
	if p.Version > planVersion {
		return nil, fmt.Errorf("the plan %s has version %d, and this simlatch knows %d: it was made by a newer one", path, p.Version, planVersion)
	}
	found := digestLine.FindSubmatchIndex(text[:min(len(text), 1024)])
	if found == nil || digest(slices.Concat(text[:found[2]], text[found[3]:])) != p.Digest {
		return nil, fmt.Errorf("the plan %s has been changed since it was made: make a new one with 'simlatch plan', from a fleet file that says what you want", path)
	}
	return &p, nil
}

var errNoPlan = errors.New("it does not begin as one")

// beside is the path of a file that belongs to a plan.
func beside(plan, extension string) string { return strings.TrimSuffix(plan, ".plan") + extension }

// JournalPath is where the journal of a plan stands.
func JournalPath(plan string) string { return beside(plan, ".journal") }

// ResultPath is where the result of a plan is put.
func ResultPath(plan string) string { return beside(plan, ".result.csv") }

// writeFile writes a file whole or not at all. Only its owner may read it: it
// names somebody's fleet.
func writeFile(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
