package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/m2m"
)

// tally is what happened to the devices of all requests of one action and SKU.
type tally struct {
	action                             license.Action
	sku                                license.SKU
	accepted, done, refused, callbacks int
	latencies                          []time.Duration // from the request to the callback
}

// percentile is the smallest latency that a share of p of all do not exceed.
func (t *tally) percentile(p float64) time.Duration {
	if len(t.latencies) == 0 {
		return 0
	}
	slices.Sort(t.latencies)
	return t.latencies[max(0, int(math.Ceil(p*float64(len(t.latencies))))-1)]
}

// tallies counts what the listener received, by action and SKU.
func (d *demo) tallies() []*tally {
	var list []*tally
	for _, r := range d.requests {
		i := slices.IndexFunc(list, func(t *tally) bool { return t.action == r.action && t.sku == r.sku })
		if i < 0 {
			i = len(list)
			list = append(list, &tally{action: r.action, sku: r.sku})
		}
		t := list[i]
		t.accepted += len(r.devices)
		for iccid := range r.devices {
			a, ok := d.seen[r.id+"/"+iccid]
			if !ok {
				continue
			}
			t.callbacks++
			if t.latencies = append(t.latencies, a.at.Sub(r.sent)); a.ok() {
				t.done++
			} else {
				t.refused++
			}
		}
	}
	return list
}

// conclude prints the table of what happened and holds its numbers against each
// other.
func (d *demo) conclude(ctx context.Context) error {
	tallies := d.tallies()
	problems := d.compare(tallies)
	verified, err := d.verify(ctx)
	if err != nil {
		return err
	}
	statuses, err := d.statuses(ctx)
	if err != nil {
		return err
	}
	problems = append(append(problems, verified...), statuses...)
	d.table(d.streams.out, tallies)
	if len(problems) > 0 {
		return fmt.Errorf("the numbers disagree:\n  %s", strings.Join(problems, "\n  "))
	}
	say(d.streams.out, "\nChecked: one callback for each accepted device and none twice; the pools moved by what\n"+
		"the callbacks say; the status of all %d requests says the same; the ledger verifies\n(%s).", len(d.requests), d.checked)
	return nil
}

// compare holds the callbacks against the requests and the pools.
func (d *demo) compare(tallies []*tally) (problems []string) {
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	moved := map[license.SKU]int64{}
	counted := 0
	for _, t := range tallies {
		counted += t.callbacks
		if t.callbacks != t.accepted {
			wrong("%s of %s: %d devices accepted, callbacks for %d", t.action, t.sku, t.accepted, t.callbacks)
		}
		if t.action == license.Assign {
			moved[t.sku] += int64(t.done)
		} else {
			moved[t.sku] -= int64(t.done)
		}
	}
	if d.twice > 0 {
		wrong("%d callbacks came more than once", d.twice)
	}
	if counted != len(d.seen) {
		wrong("%d callbacks name no device of an accepted request", len(d.seen)-counted)
	}
	for sku, was := range d.before {
		is := d.after[sku]
		if is.LicensePurchased != was.LicensePurchased || is.LicenseAssigned != was.LicenseAssigned+moved[sku] ||
			is.LicenseAvailable != was.LicenseAvailable-moved[sku] {
			wrong("pool of %s: %+v became %+v, but the callbacks say that %d were assigned", sku, was, is, moved[sku])
		}
	}
	return append(problems, d.wrongMessages()...)
}

// wrongMessages finds callbacks that do not say what their request asked for.
func (d *demo) wrongMessages() (problems []string) {
	words := map[license.Action]string{license.Assign: "Assign", license.Unassign: "Unassign"}
	for _, r := range d.requests {
		want := m2m.SKUSubscriptionResponse{AccountName: d.scene.account, SKUNumber: string(r.sku), Action: words[r.action]}
		for iccid := range r.devices {
			a, ok := d.seen[r.id+"/"+iccid]
			m := a.message
			switch {
			case !ok: // told elsewhere
			case a.ok() && (m.DeviceResponse == nil || m.DeviceResponse.DeviceSKUSubscriptionResponse != want),
				!a.ok() && (m.FaultResponse == nil || m.FaultResponse.FaultCode != m2m.CodeCarrierRequestUnsuccessful):
				problems = append(problems, fmt.Sprintf("the callback for %s of request %s is not what was asked for", iccid, r.id))
			}
		}
	}
	return problems
}

// verify verifies the ledger in the database, as 'simlatch verify' does.
func (d *demo) verify(ctx context.Context) (problems []string, err error) {
	s, err := store.Open(ctx, "sqlite:"+d.database, store.Options{})
	if err != nil {
		return nil, fmt.Errorf("verifying: %w", err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	checked, err := s.Verify(ctx, func(drift license.Drift) { problems = append(problems, drift.String()) })
	if err != nil {
		return nil, fmt.Errorf("verifying: %w", err)
	}
	d.checked = fmt.Sprintf("%d pools, %s SIMs, %d postings, no difference", checked.Pools, thousands(int(checked.SIMs)), checked.Postings)
	if int(checked.SIMs) != d.scene.sims {
		problems = append(problems, fmt.Sprintf("%d SIMs were verified, but there are %d", checked.SIMs, d.scene.sims))
	}
	return problems, nil
}

// statuses holds the status of every request against its callbacks.
func (d *demo) statuses(ctx context.Context) (problems []string, err error) {
	for _, r := range d.requests {
		want := license.StatusSuccess
		for iccid := range r.devices {
			if a, ok := d.seen[r.id+"/"+iccid]; ok && !a.ok() {
				want = license.StatusFailure
			}
		}
		got, err := d.client.RequestStatus(ctx, d.scene.account, r.id)
		if err != nil {
			return nil, fmt.Errorf("reading the status of a request: %w", err)
		}
		if got.Status != string(want) {
			problems = append(problems, fmt.Sprintf("request %s has the status %s; by its callbacks it is %s", r.id, got.Status, want))
		}
	}
	return problems, nil
}

// table prints what happened.
func (d *demo) table(w io.Writer, tallies []*tally) {
	const what, pool = "%-28s%10s%10s%10s%11s%12s%12s", "%-28s%10s%10s%11s%10s%11s"
	say(w, "\n"+what, "", "ACCEPTED", "DONE", "REFUSED", "CALLBACKS", "P50", "P99")
	for _, t := range tallies {
		say(w, what, string(t.action)+" "+string(t.sku), thousands(t.accepted), thousands(t.done), thousands(t.refused),
			thousands(t.callbacks), milliseconds(t.percentile(0.50)), milliseconds(t.percentile(0.99)))
	}
	say(w, "\n%-28s%10s%21s%21s", "", "", "BEFORE", "AFTER")
	say(w, pool, "", "PURCHASED", "ASSIGNED", "AVAILABLE", "ASSIGNED", "AVAILABLE")
	for _, sku := range license.SKUs() {
		was, is := d.before[sku], d.after[sku]
		say(w, pool, sku, thousands(int(was.LicensePurchased)), thousands(int(was.LicenseAssigned)), thousands(int(was.LicenseAvailable)),
			thousands(int(is.LicenseAssigned)), thousands(int(is.LicenseAvailable)))
	}
	say(w, "\nREFUSED by the simulated carrier. P50 and P99 are from sending a request to its device's callback.")
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) + " ms"
}

// thousands is n with commas, as people read it.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// invite prints how to go on trying the server that stays up.
func (d *demo) invite() {
	s := d.scene
	say(d.streams.out, `
The server stays up on %[1]s until you press Ctrl-C.

  key       %[2]s
  secret    %[3]s
  username  %[4]s
  password  %[5]s
  account   %[6]s

Try it; these lines work as they are:

TOKEN=$(curl -sS -u '%[2]s:%[3]s' -d grant_type=client_credentials %[1]s/api/ts/v1/oauth2/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
SESSION=$(curl -sS -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"username":"%[4]s","password":"%[5]s"}' %[1]s/api/m2m/v1/session/login | sed 's/.*"sessionToken":"\([^"]*\)".*/\1/')
curl -sS -H "Authorization: Bearer $TOKEN" -H "VZ-M2M-Token: $SESSION" -H 'Content-Type: application/json' -d '{"accountName":"%[6]s"}' %[1]s/api/m2m/v1/accounts/subscriptions/actions/list

The API and its description: %[1]s/docs
`, d.url, s.key, s.secret, s.user, s.password, s.account)
}
