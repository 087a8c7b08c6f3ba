package store

import (
	"context"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// Overview is how an installation stands.
type Overview struct {
	Pools    []license.Pool // those of which the least is left, by share
	AllPools int
	Low      int // pools that are below their threshold
	Stuck    int
	Hours    []Hour // the last 24, the oldest first; the last one is not over
	// Bounded is that only the newest requests were counted: hours before them are
	// left empty.
	Bounded bool
	Carrier license.Due // work that is due, of all accounts
	Sender  license.Due
	Trouble []Trouble
}

// Hour is what came of the requests that were accepted in an hour.
type Hour struct {
	At                        time.Time
	Requests, Devices         int64
	Done, Refused             int64 // devices
	Delivered, Unacknowledged int64 // callbacks that ended
}

// Trouble is a listener that left callbacks of the last 24 hours unacknowledged.
type Trouble struct {
	Listener license.Listener // its URL is empty where none is registered
	Unacked  int64
	Last     KeptCallback // the newest of them
}

// How much an overview looks at.
const (
	overviewHours    = 24
	overviewAccounts = 500
	// overviewRequests is how many requests of the last hours are counted, of all
	// accounts: some 30 ms.
	overviewRequests = 20_000
	overviewPools    = 12
	overviewTrouble  = 10
)

// An hour's requests, of the newest $4 of an account since $2; hours count from $2.
const sumHours = `SELECT hour, count(*), sum(total), sum(succeeded), sum(failed), sum(ended), sum(unacked), min(time)
	FROM (SELECT (time - $2) / 3600000000 AS hour, time, total, succeeded, failed, ended, unacked
		FROM request WHERE account = $1 AND time >= $2 AND time < $3 ORDER BY time DESC LIMIT $4) AS newest
	GROUP BY hour`

const newestUnacked = `SELECT id FROM request WHERE account = $1 AND time >= $2 AND unacked > 0 AND purged = 0 ORDER BY time DESC LIMIT 1`

const countStuck = `SELECT count(*) FROM task WHERE account = $1 AND carrier_due = 4611686018427387904`

// Overview tells how all stands at now. What it costs is bounded, however much is
// stored.
func (s *Store) Overview(ctx context.Context, now time.Time) (o Overview, err error) {
	first := now.UTC().Truncate(time.Hour).Add(-(overviewHours - 1) * time.Hour)
	o.Hours = make([]Hour, overviewHours)
	for i := range o.Hours {
		o.Hours[i].At = first.Add(time.Duration(i) * time.Hour)
	}
	accounts, err := s.AccountsAfter(ctx, "", overviewAccounts+1)
	if err != nil {
		return o, err
	}
	if len(accounts) > overviewAccounts {
		accounts, o.Bounded = accounts[:overviewAccounts], true
	}
	for _, a := range accounts {
		if err := s.overviewOf(ctx, &o, a.Name, now); err != nil {
			return o, s.failed("looking at an account", err)
		}
	}
	slices.SortStableFunc(o.Pools, func(a, b license.Pool) int {
		return int(a.Available()*max(b.Purchased, 1)) - int(b.Available()*max(a.Purchased, 1))
	})
	o.AllPools = len(o.Pools)
	o.Pools = o.Pools[:min(len(o.Pools), overviewPools)]
	slices.SortStableFunc(o.Trouble, func(a, b Trouble) int { return int(b.Unacked - a.Unacked) })
	o.Trouble = o.Trouble[:min(len(o.Trouble), overviewTrouble)]
	for i := range o.Trouble {
		if err := s.describeTrouble(ctx, &o.Trouble[i], first); err != nil {
			return o, s.failed("looking at a listener", err)
		}
	}
	for phase, due := range map[license.Phase]*license.Due{license.PhaseCarrier: &o.Carrier, license.PhaseListener: &o.Sender} {
		if *due, err = s.dueInAll(ctx, phase, now); err != nil {
			return o, err
		}
	}
	return o, nil
}

// overviewOf adds what is known of an account.
func (s *Store) overviewOf(ctx context.Context, o *Overview, account license.AccountName, now time.Time) error {
	pools, err := s.Pools(ctx, account)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if o.Pools = append(o.Pools, p); p.Low() {
			o.Low++
		}
	}
	stuck, err := first(s.reader(ctx), one[int], countStuck, string(account))
	if err != nil {
		return err
	}
	o.Stuck += stuck
	counted := int64(0)
	for _, h := range o.Hours {
		counted += h.Requests
	}
	room := max(0, overviewRequests-counted)
	if room == 0 {
		o.Bounded = true
		return nil
	}
	return s.hoursOf(ctx, o, account, now, room)
}

// hoursOf adds an account's requests of the last hours, at most so many.
func (s *Store) hoursOf(ctx context.Context, o *Overview, account license.AccountName, now time.Time, room int64) error {
	type sums struct {
		hour, ended, unacked, oldest int64
		Hour
	}
	list, err := collect(s.reader(ctx), func(scan func(...any) error) (x sums, err error) {
		return x, scan(&x.hour, &x.Requests, &x.Devices, &x.Done, &x.Refused, &x.ended, &x.unacked, &x.oldest)
	}, sumHours, string(account), micros(o.Hours[0].At), micros(now.Add(time.Hour)), room)
	if err != nil {
		return err
	}
	seen, unacked := int64(0), int64(0)
	for _, x := range list {
		seen += x.Requests
		unacked += x.unacked
		h := &o.Hours[min(max(x.hour, 0), overviewHours-1)] // a node's clock may be ahead
		h.Requests += x.Requests
		h.Devices += x.Devices
		h.Done += x.Done
		h.Refused += x.Refused
		h.Delivered += x.ended - x.unacked
		h.Unacknowledged += x.unacked
	}
	o.Bounded = o.Bounded || seen >= room
	if unacked > 0 {
		o.Trouble = append(o.Trouble, Trouble{Listener: license.Listener{Account: account, Service: license.CarrierService}, Unacked: unacked})
	}
	return nil
}

// describeTrouble finds the listener, and the newest callback that it left
// unacknowledged.
func (s *Store) describeTrouble(ctx context.Context, t *Trouble, since time.Time) error {
	account := t.Listener.Account
	listeners, err := s.Listeners(ctx, account)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		if l.Service == license.CarrierService {
			t.Listener = l
		}
	}
	ids, err := collect(s.reader(ctx), one[license.RequestID], newestUnacked, string(account), micros(since))
	if err != nil || len(ids) == 0 {
		return err
	}
	f := CallbackFilter{Account: account, Request: ids[0], States: []CallbackState{CallbackUndelivered, CallbackUnsent}, Page: 1}
	for c, err := range s.Callbacks(ctx, f) {
		if err != nil {
			return err
		}
		t.Last = c
		break
	}
	return nil
}

// dueInAll is the work that is due in a phase, of all accounts together.
func (s *Store) dueInAll(ctx context.Context, phase license.Phase, now time.Time) (all license.Due, err error) {
	list, err := s.due(ctx, phase, now)
	for _, d := range list {
		if all.Count += d.Count; all.Oldest.IsZero() || d.Oldest.Before(all.Oldest) {
			all.Oldest = d.Oldest
		}
	}
	return all, err
}
