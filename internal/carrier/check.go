package carrier

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// Provisioner is provision.Carrier, which this package does not import.
type Provisioner interface {
	Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error)
}

// CheckConfig says what the checks ask a carrier for: made-up requests for SIMs
// that there are not.
type CheckConfig struct {
	Account license.AccountName // empty: a made-up one
	SKU     license.SKU         // empty: license.SKUFlexible
	// ICCIDPrefix begins the ICCIDs, which have 20 digits; empty: CheckPrefix.
	ICCIDPrefix string
	// Patience is how long a carrier may answer later or retry before it must say
	// done or refused; zero wants that at once.
	Patience time.Duration
	// Large is the largest batch; 0: 500, what the workers send at most.
	Large int
}

// CheckPrefix begins the ICCIDs of checks: 89, and a country that there is not.
const CheckPrefix = "8999999"

// Finding is what one check found.
type Finding struct {
	Check  string
	Faults []string // what is wrong, in words; empty: nothing
}

// fault adds what is wrong; of many, the first few.
func (f *Finding) fault(format string, args ...any) {
	const most = 3
	switch n := len(f.Faults); {
	case n < most:
		f.Faults = append(f.Faults, fmt.Sprintf(format, args...))
	case n == most:
		f.Faults = append(f.Faults, "and more")
	}
}

// checker runs checks on one carrier.
type checker struct {
	cfg  CheckConfig
	of   Provisioner
	next int // the number of the next SIM
	// between, when not nil, is called after each call of a check, for faults that
	// the outcomes do not show.
	between func(*Finding)
}

// Check holds a carrier against what provision.Carrier promises, for both
// actions, and reports what each check found. The carrier is given tasks that
// nobody asked for: it should be one for tests.
func Check(ctx context.Context, c Provisioner, cfg CheckConfig) []Finding {
	return newChecker(c, cfg).run(ctx)
}

func newChecker(c Provisioner, cfg CheckConfig) *checker {
	if cfg.Account == "" {
		cfg.Account = "0000123456-00001"
	}
	if cfg.SKU == "" {
		cfg.SKU = license.SKUFlexible
	}
	if cfg.ICCIDPrefix == "" {
		cfg.ICCIDPrefix = CheckPrefix
	}
	if cfg.Large == 0 {
		cfg.Large = 500
	}
	return &checker{cfg: cfg, of: c}
}

func (c *checker) run(ctx context.Context) (findings []Finding) {
	for _, action := range []license.Action{license.Assign, license.Unassign} {
		c.next = 0 // so that what was assigned is unassigned
		for _, check := range []struct {
			name string
			run  func(context.Context, *Finding, license.Action)
		}{
			{"one outcome for each task", c.oneEach},
			{"a batch of the largest size", c.large},
			{"the same answer under the same key", c.sameKey},
			{"several callers at once", c.manyCallers},
			{"the tasks stay as they were", c.unchanged},
			{"a caller who hangs up", c.endedContext},
		} {
			f := Finding{Check: string(action) + ": " + check.name}
			check.run(ctx, &f, action)
			findings = append(findings, f)
		}
	}
	return findings
}

// tasks are n new tasks of one request for SIMs of their own.
func (c *checker) tasks(n int, action license.Action) []license.Task {
	now := time.Now() // what a check asks for was accepted just now
	id := license.NewRequestID(now, rand.NewChaCha8(seed()))
	tasks := make([]license.Task, n)
	for i := range tasks {
		tasks[i] = license.Task{
			Request: id, Account: c.cfg.Account, SKU: c.cfg.SKU, Action: action, At: now, Lease: int64(i + 1), Until: now.Add(20 * time.Second),
			Device: license.Device{
				ICCID: license.ICCID(c.cfg.ICCIDPrefix + fmt.Sprintf("%0*d", 20-len(c.cfg.ICCIDPrefix), c.next)),
				IMEI:  license.IMEI(withCheckDigit(fmt.Sprintf("35%012d", c.next))),
				MDN:   license.MDN(fmt.Sprintf("555%07d", c.next)),
			},
		}
		c.next++
	}
	return tasks
}

func seed() (s [32]byte) {
	for i := range s {
		s[i] = byte(rand.Uint32()) //nolint:gosec // a key that must be new, and may be guessed
	}
	return s
}

// withCheckDigit appends the digit that Luhn's formula gives, as an IMEI has it.
func withCheckDigit(digits string) string {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return digits + fmt.Sprint((10-sum%10)%10)
}

// verdicts asks until every task is done or refused, and returns what they are by
// key, having looked at each answer.
func (c *checker) verdicts(ctx context.Context, f *Finding, tasks []license.Task) map[string]license.Verdict {
	got := map[string]license.Verdict{}
	deadline := time.Now().Add(c.cfg.Patience)
	for open := tasks; ; {
		out, err := c.of.Provision(ctx, slices.Clone(open))
		if err != nil {
			f.fault("a call with %d tasks failed: %v", len(open), err)
			return got
		}
		if c.between != nil {
			c.between(f)
		}
		due := lookAt(f, open, out, got)
		open = slices.DeleteFunc(slices.Clone(open), func(t license.Task) bool { _, ended := got[t.Key()]; return ended })
		if len(open) == 0 {
			return got
		}
		wait := min(max(time.Until(due), 100*time.Millisecond), time.Second)
		if time.Now().Add(wait).After(deadline) || !pause(ctx, wait) {
			for _, o := range out {
				if _, ended := got[o.Task.Key()]; !ended {
					f.fault("%s: %v after %v, where done or refused was waited for%s", o.Task.Key(), o.Verdict, c.cfg.Patience, because(o.Comment))
				}
			}
			return got
		}
		for i := range open {
			open[i].Attempt++
		}
	}
}

func because(comment string) string {
	if comment == "" {
		return ""
	}
	return " (" + comment + ")"
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// lookAt checks the outcomes of one call, adds those that end a task, and returns
// when the others want to be asked again.
func lookAt(f *Finding, tasks []license.Task, out []license.Outcome, got map[string]license.Verdict) (due time.Time) {
	asked := map[string]int{}
	for _, t := range tasks {
		asked[t.Key()] = 1
	}
	for _, o := range out {
		key := o.Task.Key()
		switch n := asked[key]; {
		case n == 0:
			f.fault("%s: an outcome of a task that was not asked for", key)
			continue
		case n == 2:
			f.fault("%s: two outcomes", key)
		}
		asked[key] = 2
		switch o.Verdict {
		case license.Done, license.Refused:
			got[key] = o.Verdict
			if o.Verdict == license.Refused && o.Comment == "" {
				f.fault("%s: refused without a word of why", key)
			}
		case license.Retry, license.Later:
			if o.Due.After(due) {
				due = o.Due
			}
		case license.Stuck:
			f.fault("%s: stuck is not a carrier's to say", key)
		}
	}
	for _, t := range tasks {
		if asked[t.Key()] == 1 {
			f.fault("%s: no outcome", t.Key())
		}
	}
	return due
}

func (c *checker) oneEach(ctx context.Context, f *Finding, action license.Action) {
	for _, n := range []int{1, 2, 20} {
		c.verdicts(ctx, f, c.tasks(n, action))
	}
}

func (c *checker) large(ctx context.Context, f *Finding, action license.Action) {
	c.verdicts(ctx, f, c.tasks(c.cfg.Large, action))
}

// sameKey asks again as a worker does after a timeout: another attempt and lease,
// another order, other tasks of the request beside it.
func (c *checker) sameKey(ctx context.Context, f *Finding, action license.Action) {
	tasks := c.tasks(60, action)
	first := c.verdicts(ctx, f, tasks)
	again := slices.Clone(tasks)
	slices.Reverse(again)
	for i := range again {
		again[i].Attempt++
		again[i].Lease += 7
		again[i].Until = again[i].Until.Add(time.Minute)
	}
	second := c.verdicts(ctx, f, again[:40])
	maps.Copy(second, c.verdicts(ctx, f, again[40:]))
	differ(f, first, second, "asked again under its key")
}

func differ(f *Finding, first, second map[string]license.Verdict, when string) {
	for _, key := range slices.Sorted(maps.Keys(first)) {
		if v, there := second[key]; there && v != first[key] {
			f.fault("%s: %v, and %v when %s", key, first[key], v, when)
		}
	}
}

func (c *checker) manyCallers(ctx context.Context, f *Finding, action license.Action) {
	tasks := c.tasks(50, action)
	answers, findings := make([]map[string]license.Verdict, 4), make([]Finding, 4)
	var wg sync.WaitGroup
	for i := range answers {
		// The hook is the checker's; callers at once would mix their answers up.
		caller := &checker{cfg: c.cfg, of: c.of}
		wg.Go(func() { answers[i] = caller.verdicts(ctx, &findings[i], slices.Clone(tasks)) })
	}
	wg.Wait()
	if c.between != nil {
		c.between(f)
	}
	for i := range answers {
		for _, fault := range findings[i].Faults {
			f.fault("%s", fault)
		}
		differ(f, answers[0], answers[i], "another caller asked at the same time")
	}
}

func (c *checker) unchanged(ctx context.Context, f *Finding, action license.Action) {
	tasks := c.tasks(20, action)
	before := slices.Clone(tasks)
	if _, err := c.of.Provision(ctx, tasks); err != nil {
		f.fault("a call with %d tasks failed: %v", len(tasks), err)
	}
	if !slices.Equal(before, tasks) {
		f.fault("the call changed the tasks that it was given")
	}
	c.verdicts(ctx, f, tasks)
}

// endedContext wants an error, or an answer that is whole all the same; and that
// nothing is broken afterwards.
func (c *checker) endedContext(ctx context.Context, f *Finding, action license.Action) {
	tasks := c.tasks(5, action)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if out, err := c.of.Provision(ended, tasks); err == nil && len(out) != len(tasks) {
		f.fault("a call whose caller had hung up gave %d outcomes for %d tasks and no error", len(out), len(tasks))
	}
	c.verdicts(ctx, f, tasks)
}

// words joins what was counted, leaving out what was not.
func words(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}
