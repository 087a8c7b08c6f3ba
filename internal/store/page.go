package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// This file lists what an operator looks at, page by page: each list begins
// after a place in it and is as long as its reader wants.

// Account is an account as it is kept.
type Account struct {
	Name    license.AccountName
	Created time.Time
}

const (
	selectAccountsAfter = `SELECT name, created FROM account WHERE name > $1 ORDER BY name LIMIT $2`
	selectAccountRow    = `SELECT name, created FROM account WHERE name = $1`
	selectFolded        = `SELECT name, created FROM account WHERE replace(name, '-', '') = $1`
)

func scanAccount(scan func(...any) error) (a Account, err error) {
	var created int64
	err = scan(&a.Name, &created)
	a.Created = fromMicros(created)
	return a, err
}

// AccountsAfter lists accounts by name, from the one behind after on.
func (s *Store) AccountsAfter(ctx context.Context, after license.AccountName, limit int) ([]Account, error) {
	list, err := collect(s.reader(ctx), scanAccount, selectAccountsAfter, string(after), limit)
	return list, s.failed("listing accounts", err)
}

// Account reads an account by its name, with or without hyphens. It fails with
// license.ErrNotFound.
func (s *Store) Account(ctx context.Context, name license.AccountName) (Account, error) {
	a, err := collect(s.reader(ctx), scanAccount, selectAccountRow, string(name))
	if err == nil && len(a) == 0 {
		a, err = collect(s.reader(ctx), scanAccount, selectFolded, name.Folded())
	}
	if err == nil && len(a) == 0 {
		err = fmt.Errorf("account %s: %w", name, license.ErrNotFound)
	}
	if err != nil {
		return Account{}, s.failed("reading an account", err)
	}
	return a[0], nil
}

const selectApplicationsAfter = `SELECT name, hash, disabled, nonce, issued, token,
		COALESCE((SELECT o.ends FROM old_secret o WHERE o.application = credential.name), 0)
	FROM credential
	WHERE kind = 'application' AND name > $1 ORDER BY name LIMIT $2`

// ApplicationsAfter lists applications by key, from the one behind after on.
func (s *Store) ApplicationsAfter(ctx context.Context, after string, limit int) ([]auth.Application, error) {
	list, err := collect(s.reader(ctx), scanApplication, selectApplicationsAfter, after, limit)
	return list, s.failed("listing applications", err)
}

const selectUsersAfter = `SELECT name, hash, disabled FROM credential
	WHERE kind = 'user' AND name > $1 ORDER BY name LIMIT $2`

// UsersAfter lists users by name, from the one behind after on.
func (s *Store) UsersAfter(ctx context.Context, after string, limit int) ([]auth.User, error) {
	list, err := collect(s.reader(ctx), scanUser, selectUsersAfter, after, limit)
	for i := range list {
		if err == nil {
			list[i].Accounts, err = collect(s.reader(ctx), one[license.AccountName], userAccess, list[i].Name)
		}
	}
	return list, s.failed("listing users", err)
}

// RecordedPurchase is an entry of a pool's record of purchases.
type RecordedPurchase struct {
	license.Purchase
	Number int64 // counts the pool's purchases, from 1
	At     time.Time
}

const selectPurchases = `SELECT number, units, reference, reason, time FROM purchase
	WHERE account = $1 AND sku = $2 AND number < $3 ORDER BY number DESC LIMIT $4`

// Purchases lists a pool's purchases, the newest first, from the one before a
// number on; 0 begins with the newest.
func (s *Store) Purchases(ctx context.Context, account license.AccountName, sku license.SKU, before int64, limit int) ([]RecordedPurchase, error) {
	if before == 0 {
		before = math.MaxInt64
	}
	list, err := collect(s.reader(ctx), func(scan func(...any) error) (RecordedPurchase, error) {
		p := RecordedPurchase{Purchase: license.Purchase{Account: account, SKU: sku}}
		var at int64
		err := scan(&p.Number, &p.Units, &p.Reference, &p.Reason, &at)
		p.At = fromMicros(at)
		return p, err
	}, selectPurchases, string(account), string(sku), before, limit)
	return list, s.failed("listing purchases", err)
}

// KeptRequest is a request as it is kept.
type KeptRequest struct {
	license.Progress
	Ended       int    // callbacks that ended, acknowledged or not
	Unacked     int    // those of them that were not
	Application string // that made it
	User        string
	Trace       string // W3C traceparent of the call; may be empty
}

// RequestFilter selects the requests of an account. The zero value of another
// field selects all.
type RequestFilter struct {
	Account license.AccountName
	// Since and Until bound when the request was accepted. Since is within.
	Since, Until time.Time
	Action       license.Action
	SKU          license.SKU
	Status       license.Status
	Before       license.RequestID // only those listed behind this one
	Limit        int
}

const (
	selectRequestsBefore = `SELECT id, account, sku, action, time, total, succeeded, failed, ended, unacked, purged, application, username, trace
		FROM request WHERE account = $1 AND time >= $2 AND (time, id) < ($3, $4)
		ORDER BY time DESC, id DESC LIMIT $5`
	selectRequestRow = `SELECT id, account, sku, action, time, total, succeeded, failed, ended, unacked, purged, application, username, trace
		FROM request WHERE account = $1 AND id = $2`
)

func scanRequest(scan func(...any) error) (r KeptRequest, err error) {
	var at, purged int64
	err = scan(&r.ID, &r.Account, &r.SKU, &r.Action, &at, &r.Total, &r.Done, &r.Failed, &r.Ended, &r.Unacked, &purged,
		&r.Application, &r.User, &r.Trace)
	r.At, r.Purged = fromMicros(at), fromMicros(purged)
	return r, err
}

// Request reads one request. It fails with license.ErrNotFound.
func (s *Store) Request(ctx context.Context, account license.AccountName, id license.RequestID) (KeptRequest, error) {
	r, err := first(s.reader(ctx), scanRequest, selectRequestRow, string(account), string(id))
	return r, s.failed("reading a request", err)
}

// requestLook is how many requests one call of Requests looks at, so that a
// filter that selects few of very many costs a bounded time.
const requestLook = 20 * requestPage

// Requests lists the requests that a filter selects, the newest first. more
// says that there may be others behind last, which is the last one it looked at:
// a page can be short, or empty, and still not be the end. A filter that begins
// behind a request that does not exist is license.ErrNotFound.
func (s *Store) Requests(ctx context.Context, f RequestFilter) (list []KeptRequest, last license.RequestID, more bool, err error) {
	at, id := int64(math.MaxInt64), license.RequestID("")
	if !f.Until.IsZero() {
		at = micros(f.Until)
	}
	if f.Before != "" {
		p, err := s.Progress(ctx, f.Account, f.Before)
		if err != nil {
			return nil, "", false, err
		}
		at, id = micros(p.At), p.ID
	}
	for looked := 0; looked < requestLook; {
		n := min(requestPage, requestLook-looked)
		page, err := collect(s.reader(ctx), scanRequest, selectRequestsBefore, string(f.Account), micros(f.Since), at, string(id), n)
		if err != nil {
			return nil, "", false, s.failed("listing requests", err)
		}
		for i, r := range page {
			at, id = micros(r.At), r.ID
			if f.selects(r) {
				list = append(list, r)
			}
			if len(list) == f.Limit {
				return list, id, i < len(page)-1 || len(page) == n, nil
			}
		}
		if len(page) < n {
			return list, id, false, nil
		}
		looked += n
	}
	return list, id, true, nil
}

func (f RequestFilter) selects(r KeptRequest) bool {
	return (f.Action == "" || r.Action == f.Action) && (f.SKU == "" || r.SKU == f.SKU) &&
		(f.Status == "" || r.Status() == f.Status)
}

const selectRequestRows = `SELECT id, account, sku, action, time, total, succeeded, failed, ended, unacked, purged, application, username, trace
	FROM request WHERE account = $1 AND id {any $2}`

// RequestsByID reads those of an account's requests that there are.
func (s *Store) RequestsByID(ctx context.Context, account license.AccountName, ids []license.RequestID) ([]KeptRequest, error) {
	list, err := collect(s.reader(ctx), scanRequest, selectRequestRows, string(account), only(ids))
	return list, s.failed("reading requests", err)
}

// Posting is one line of the ledger.
type Posting struct {
	Number int64 // counts the request's postings, from 1
	Kind   string
	Units  int64
	At     time.Time
}

const selectPostings = `SELECT number, kind, units, time FROM posting
	WHERE account = $1 AND request = $2 AND number > $3 ORDER BY number LIMIT $4`

// Postings lists a request's lines of the ledger, from the one behind a number
// on.
func (s *Store) Postings(ctx context.Context, account license.AccountName, request license.RequestID, after int64, limit int) ([]Posting, error) {
	list, err := collect(s.reader(ctx), func(scan func(...any) error) (p Posting, err error) {
		var at int64
		err = scan(&p.Number, &p.Kind, &p.Units, &at)
		p.At = fromMicros(at)
		return p, err
	}, selectPostings, string(account), string(request), after, limit)
	return list, s.failed("listing postings", err)
}

const (
	simHistory = `SELECT request, iccid, lease, attempt, round, outcome, code, comment, status, latency, settled, ended, coalesce(carrier_due, listener_due, lease_end), phase
		FROM task WHERE account = $1 AND iccid = $2 AND request < $3 ORDER BY request DESC LIMIT $4`
	// afterAllRequests is greater than each request's ID.
	afterAllRequests license.RequestID = "g"
)

// History lists what was done with a SIM, the newest first, from the request
// before one on; "" begins with the newest. It reaches as far back as ended work
// is kept.
func (s *Store) History(ctx context.Context, account license.AccountName, iccid license.ICCID, before license.RequestID, limit int) ([]KeptCallback, error) {
	if before == "" {
		before = afterAllRequests
	}
	list, err := collect(s.reader(ctx), scanCallback, simHistory, string(account), string(iccid), string(before), limit)
	if err != nil {
		return nil, s.failed("reading a SIM's history", err)
	}
	ids := make([]license.RequestID, len(list))
	for i, c := range list {
		ids[i] = c.Request
	}
	_, requests, err := describe(s.reader(ctx), account, nil, ids)
	for i, c := range list {
		r := requests[c.Request]
		list[i] = c.of(license.Progress{Account: account, SKU: r.SKU, Action: r.Action, At: r.At})
	}
	return list, s.failed("reading a SIM's history", err)
}

const selectPhase = `SELECT phase FROM task WHERE account = $1 AND request = $2 AND iccid = $3`

// Pending are those of some SIMs whose license is awaited, or awaits its end,
// with the action that is under way. The others with a SKU hold it.
func (s *Store) Pending(ctx context.Context, account license.AccountName, sims []license.SIM) (map[license.ICCID]license.Action, error) {
	pending := map[license.ICCID]license.Action{}
	var ids []license.RequestID
	requests := map[license.ICCID]license.RequestID{}
	for _, sim := range sims {
		if sim.SKU == "" {
			continue
		}
		phases, err := collect(s.reader(ctx), one[license.Phase], selectPhase, string(account), string(sim.Request), string(sim.Device.ICCID))
		if err != nil {
			return nil, s.failed("looking for pending SIMs", err)
		}
		if slices.ContainsFunc(phases, func(p license.Phase) bool { return p == license.PhaseCarrier || p == license.PhaseStuck }) {
			requests[sim.Device.ICCID] = sim.Request
			ids = append(ids, sim.Request)
		}
	}
	if len(ids) == 0 {
		return pending, nil
	}
	_, of, err := describe(s.reader(ctx), account, nil, ids)
	for iccid, request := range requests {
		pending[iccid] = of[request].Action
	}
	return pending, s.failed("looking for pending SIMs", err)
}

// OwnerOf is the account that a SIM belongs to. It fails with
// license.ErrNotFound.
func (s *Store) OwnerOf(ctx context.Context, iccid license.ICCID) (license.AccountName, error) {
	account, err := first(s.reader(ctx), one[license.AccountName], ownerOf, string(iccid))
	return account, s.failed("looking for a SIM", err)
}
