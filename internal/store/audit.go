package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// As is the same store, used by someone: what is changed through it is audited as
// their deed. Through the store itself it is the service's own.
func (s *Store) As(who license.Actor) *Store { return &Store{shared: s.shared, actor: who} }

// An entry is a line of the audit that waits for its transaction. It is made
// before that begins, so that one that is run twice writes it once.
type entry license.AuditEntry

// entry begins a line of the audit: what is about to be done, and to what.
func (s *Store) entry(action string, account license.AccountName, target string) entry {
	now := s.clock.Now()
	e := entry{
		ID: string(license.NewRequestID(now, rand.Reader)), At: now, Actor: s.actor, Action: action, Account: account, Target: target,
	}
	if e.Via == "" {
		e.Actor = license.Actor{Name: "simlatch", Via: license.ViaSystem}
	}
	return e
}

// part is one of several lines that tell of one deed.
func (e entry) part(i int) entry {
	e.ID = fmt.Sprintf("%s-%d", e.ID, i)
	return e
}

const insertAudit = `INSERT INTO audit (id, time, who, via, origin, action, account, target, before, after)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING`

// facts are what an entry tells of before or after a change; nil tells nothing.
type facts map[string]any

// record writes an entry of the audit beside the change that it tells of.
func (t *tx) record(e entry, before, after facts) error {
	_, err := t.exec(insertAudit, e.ID, micros(e.At), e.Name, string(e.Via), e.From, e.Action, string(e.Account), e.Target,
		before.text(), after.text())
	return err
}

func (f facts) text() string {
	if f == nil {
		return ""
	}
	b, err := json.Marshal(f)
	if err != nil {
		panic("facts are numbers, texts and lists of them: " + err.Error())
	}
	return string(b)
}

// Record writes an entry of the audit for a deed that changes nothing else here,
// such as signing in. detail may be nil.
func (s *Store) Record(ctx context.Context, action string, account license.AccountName, target string, detail map[string]any) error {
	e := s.entry(action, account, target)
	err := s.write(ctx, account, 1, func(tx *tx) error { return tx.record(e, nil, detail) })
	return s.failed("writing an entry of the audit", err)
}

const (
	selectAudit = `SELECT id, time, who, via, origin, action, account, target, before, after, coalesce(number, 0), hash FROM audit
		WHERE (time, id) < ($1, $2) AND time >= $3 AND ($4 = '' OR account = $4) AND ($5 = '' OR who = $5)
			AND ($6 = '' OR target = $6) AND ($7 = '' OR action LIKE $7)
		ORDER BY time DESC, id DESC LIMIT $8`
	selectChain = `SELECT id, time, who, via, origin, action, account, target, before, after, number, hash FROM audit
		WHERE number > $1 ORDER BY number LIMIT $2`
	selectUnsealed = `SELECT id, time, who, via, origin, action, account, target, before, after, 0, hash FROM audit
		WHERE number IS NULL ORDER BY time, id LIMIT $1`
)

func scanAudit(scan func(...any) error) (e license.AuditEntry, err error) {
	var at int64
	err = scan(&e.ID, &at, &e.Name, &e.Via, &e.From, &e.Action, &e.Account, &e.Target, &e.Before, &e.After, &e.Number, &e.Hash)
	e.At = fromMicros(at)
	return e, err
}

// AuditFilter selects entries of the audit; what is empty selects all.
type AuditFilter struct {
	Account license.AccountName
	Who     string
	Target  string
	Action  string    // such as "pool.purchase", or "pool" for all that was done to pools
	Since   time.Time // inclusive
	Before  AuditPlace
	Limit   int // 0 means 100
}

// AuditPlace is a place in the list of entries, from which it can be read on: the
// time and ID of the entry last seen. The zero value is the newest end.
type AuditPlace struct {
	At time.Time
	ID string
}

// Audit lists entries, the newest first, sealed or not.
func (s *Store) Audit(ctx context.Context, f AuditFilter) ([]license.AuditEntry, error) {
	at, action := int64(math.MaxInt64), f.Action
	if f.Before != (AuditPlace{}) {
		at = micros(f.Before.At)
	}
	if action != "" && !strings.Contains(action, ".") {
		action += ".%"
	}
	if f.Limit == 0 {
		f.Limit = 100
	}
	list, err := collect(s.reader(ctx), scanAudit, selectAudit, at, f.Before.ID, micros(f.Since), string(f.Account), f.Who, f.Target,
		action, f.Limit)
	return list, s.failed("listing the audit", err)
}

// SealedAfter lists sealed entries in the order of the chain, from the one after
// a number on. Nothing is ever sealed before what was: who remembers the last
// number sees every entry once.
func (s *Store) SealedAfter(ctx context.Context, number int64, limit int) ([]license.AuditEntry, error) {
	list, err := collect(s.reader(ctx), scanAudit, selectChain, number, limit)
	return list, s.failed("reading the audit", err)
}

// Unsealed lists entries that are not in the chain yet, the oldest first.
func (s *Store) Unsealed(ctx context.Context, limit int) ([]license.AuditEntry, error) {
	list, err := collect(s.reader(ctx), scanAudit, selectUnsealed, limit)
	return list, s.failed("reading the audit", err)
}
