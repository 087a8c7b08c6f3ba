package sandbox

import (
	"context"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// Provisioner is a carrier: provision.Carrier, told again since packages beside
// each other do not import one another.
type Provisioner interface {
	Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error)
}

// fatedCarrier is a carrier whose answers meet faults.
type fatedCarrier struct {
	box   *Box
	inner Provisioner
}

// held is when a task of a device that is held is asked about again, unless it is
// released before.
const held = 24 * time.Hour

// Provision asks the carrier behind it about the tasks that meet no fault.
func (c fatedCarrier) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	now := c.box.clock.Now()
	out := make([]license.Outcome, 0, len(tasks))
	var plain []license.Task
	names := map[string]string{} // of the faults that struck, by key
	for _, t := range tasks {
		if c.box.fate.holds(t.Device.ICCID) {
			out = append(out, license.Outcome{Task: t, Verdict: license.Later, Due: now.Add(held)})
			names[t.Key()] = "held"
			continue
		}
		then, name := c.box.fate.strike(event{
			on: OnCarrier, account: t.Account, sku: t.SKU, action: t.Action, iccid: t.Device.ICCID, attempt: t.Attempt + 1,
		})
		outcomes, struck := fated(t, then, now)
		if !struck {
			plain = append(plain, t)
			continue
		}
		names[t.Key()] = name
		out = append(out, outcomes...)
		if len(outcomes) == 0 {
			c.box.journal.add(carrierEntry(now, license.Outcome{Task: t}, name))
		}
	}
	if len(plain) > 0 {
		answers, err := c.inner.Provision(ctx, plain)
		if err != nil {
			return nil, err
		}
		out = append(out, answers...)
	}
	for _, o := range out {
		c.box.journal.add(carrierEntry(now, o, names[o.Task.Key()]))
	}
	return out, nil
}

// fated is what a carrier under an effect says of a task; struck is false where
// the effect, if any, leaves it to the carrier.
func fated(t license.Task, then Effect, now time.Time) (out []license.Outcome, struck bool) {
	done := license.Outcome{Task: t, Verdict: license.Done}
	switch then.Do {
	case Refuse:
		return []license.Outcome{{Task: t, Verdict: license.Refused, Code: then.Code, Comment: then.Text}}, true
	case Late:
		due := t.At.Add(time.Duration(then.Delay))
		if !now.Before(due) {
			return nil, false
		}
		return []license.Outcome{{Task: t, Verdict: license.Later, Due: due}}, true
	case Twice:
		return []license.Outcome{done, done}, true
	case Never:
		return nil, true
	case Contradict:
		return []license.Outcome{done, {Task: t, Verdict: license.Refused, Comment: "REQUEST_FAILED: The carrier contradicts itself."}}, true
	}
	return nil, false
}

// carrierEntry is the journal's line about one outcome.
func carrierEntry(now time.Time, o license.Outcome, fault string) Entry {
	t := o.Task
	e := Entry{
		Time: now, Kind: OnCarrier, RequestID: string(t.Request), Account: string(t.Account), SKU: string(t.SKU),
		Action: string(t.Action), ICCID: string(t.Device.ICCID), Attempt: t.Attempt + 1, Fault: fault,
		Outcome: o.Verdict.String(), Comment: o.Comment,
	}
	if o.Verdict == license.Retry {
		e.Outcome = "no answer"
	}
	return e
}
