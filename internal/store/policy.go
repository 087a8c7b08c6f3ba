package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const selectPolicy = `SELECT account, refuse_lifetime, daily FROM policy WHERE account = $1`

// findPolicy reads an account's policy; the zero one where it has none.
func findPolicy(q querier, account license.AccountName) (license.Policy, error) {
	p, err := first(q, func(scan func(...any) error) (p license.Policy, err error) {
		var refuse int64
		err = scan(&p.Account, &refuse, &p.DailyDevices)
		p.RefuseLifetime = refuse != 0
		return p, err
	}, selectPolicy, string(account))
	if errors.Is(err, license.ErrNotFound) {
		return license.Policy{Account: account}, nil
	}
	return p, err
}

// Policy reads an account's policy; without one it allows everything. accepted is
// how many devices have been accepted for assignment on the day of now, where
// there is a daily limit.
func (s *Store) Policy(ctx context.Context, account license.AccountName, now time.Time) (p license.Policy, accepted int64, err error) {
	q := s.reader(ctx)
	if p, err = findPolicy(q, account); err == nil && p.DailyDevices > 0 {
		accepted, err = acceptedOn(q, account, license.Day(now))
	}
	return p, accepted, s.failed("reading a policy", err)
}

const (
	setPolicy = `INSERT INTO policy (account, refuse_lifetime, daily, changed) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account) DO UPDATE SET refuse_lifetime = excluded.refuse_lifetime, daily = excluded.daily, changed = excluded.changed`
	dropPolicy = `DELETE FROM policy WHERE account = $1`
	// Days without a limit were not counted; they are counted anew.
	dropDays  = `DELETE FROM policy_day WHERE account = $1`
	purgeDays = `DELETE FROM policy_day WHERE account = $1 AND day < $2`
)

// SetPolicy sets what an account may do; a policy that allows everything is the
// same as none. A daily limit counts what was accepted before on the same day. It
// fails with license.ErrNotFound for an unknown account.
func (s *Store) SetPolicy(ctx context.Context, p license.Policy, now time.Time) error {
	if p.DailyDevices < 0 {
		return &license.InputError{Field: license.FieldUnits, Reason: "a limit cannot be negative"}
	}
	e := s.entry("policy.set", p.Account, string(p.Account))
	err := s.write(ctx, p.Account, 1, func(tx *tx) error {
		if err := needAccount(tx, p.Account); err != nil {
			return err
		}
		before, err := findPolicy(tx, p.Account)
		if err == nil && before.DailyDevices == 0 {
			_, err = tx.exec(dropDays, string(p.Account))
		}
		switch {
		case err != nil:
		case p.Free():
			_, err = tx.exec(dropPolicy, string(p.Account))
		default:
			refuse := 0
			if p.RefuseLifetime {
				refuse = 1
			}
			_, err = tx.exec(setPolicy, string(p.Account), refuse, p.DailyDevices, micros(now))
		}
		if err != nil {
			return err
		}
		return tx.record(e, policyFacts(before), policyFacts(p))
	})
	return s.failed("setting a policy", err)
}

func policyFacts(p license.Policy) facts {
	return facts{"lifetime": !p.RefuseLifetime, "dailyDevices": p.DailyDevices}
}

const (
	selectDay = `SELECT devices FROM policy_day WHERE account = $1 AND day = $2`
	sumDay    = `SELECT coalesce(sum(total), 0) FROM request
		WHERE account = $1 AND action = 'assign' AND time >= $2 AND time < $3`
	countDay = `UPDATE policy_day SET devices = devices + $3
		WHERE account = $1 AND day = $2 AND devices + $3 <= $4`
	openDay = `INSERT INTO policy_day (account, day, devices)
		SELECT $1, CAST($2 AS BIGINT), CAST($3 AS BIGINT) WHERE true
		ON CONFLICT (account, day) DO NOTHING
		RETURNING 1`
)

// acceptedOn is how many devices have been accepted for assignment on a day: as
// counted or, on a day that nobody has counted on yet, by the requests.
func acceptedOn(q querier, account license.AccountName, day time.Time) (int64, error) {
	n, err := first(q, one[int64], selectDay, string(account), micros(day))
	if errors.Is(err, license.ErrNotFound) {
		return first(q, one[int64], sumDay, string(account), micros(day), micros(day.Add(24*time.Hour)))
	}
	return n, err
}

// obey holds the requests against the account's policy, and counts their devices
// where there is a daily limit: in one row for the account and the day, on which
// all nodes meet, so that together they never accept more.
func (a *acceptance) obey() error {
	policy, err := findPolicy(a.tx, a.account)
	if err != nil || policy.Free() {
		return err
	}
	byDay := map[int64]int{}
	for _, p := range a.params {
		r := p.Request
		if r.Action != license.Assign {
			continue
		}
		if err := policy.Check(r.SKU, 0, 0); err != nil {
			return err
		}
		byDay[micros(license.Day(r.At))] += len(r.Devices)
	}
	if policy.DailyDevices == 0 {
		return nil
	}
	for _, day := range slices.Sorted(maps.Keys(byDay)) {
		if err := a.countDay(policy, fromMicros(day), byDay[day]); err != nil {
			return err
		}
	}
	return nil
}

func (a *acceptance) countDay(policy license.Policy, day time.Time, devices int) error {
	add := func() (bool, error) {
		n, err := a.tx.exec(countDay, string(a.account), micros(day), devices, policy.DailyDevices)
		return n > 0, err
	}
	if done, err := add(); done || err != nil {
		return err
	}
	accepted, err := first(a.tx, one[int64], selectDay, string(a.account), micros(day))
	if errors.Is(err, license.ErrNotFound) {
		// The first of the day, or of the policy. The requests of this
		// acceptance are stored already.
		accepted, err = first(a.tx, one[int64], sumDay, string(a.account), micros(day), micros(day.Add(24*time.Hour)))
		if err != nil {
			return err
		}
		accepted -= int64(devices)
		if _, err := count(a.tx, openDay, string(a.account), micros(day), accepted); err != nil {
			return err
		}
		if done, err := add(); done || err != nil {
			return err
		}
		accepted, err = first(a.tx, one[int64], selectDay, string(a.account), micros(day))
	}
	if err != nil {
		return err
	}
	return &license.PolicyError{Rule: license.RuleDaily, Limit: policy.DailyDevices, Accepted: accepted, Devices: devices}
}

// refusal is why the policy of its account does not allow a request, or nil: what
// obey says, without counting.
func refusal(q querier, r *license.Request) error {
	if r.Action != license.Assign {
		return nil
	}
	policy, err := findPolicy(q, r.Account)
	if err != nil || policy.Free() {
		return err
	}
	var accepted int64
	if policy.DailyDevices > 0 {
		if accepted, err = acceptedOn(q, r.Account, license.Day(r.At)); err != nil {
			return err
		}
	}
	return policy.Check(r.SKU, len(r.Devices), accepted)
}
