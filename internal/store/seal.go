package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// sealBatch is how many entries one sealing takes into the chain.
const sealBatch = 500

// head is the end of the chain, and its anchor, the entry before its first one.
type head struct {
	number, anchor   int64
	hash, anchorHash string
}

const (
	selectHead = `SELECT number, hash, anchor_number, anchor_hash FROM seal WHERE name = 'audit'`
	// moveHead is what lets one node seal at a time: another that has read the
	// same head waits here, and then finds it moved.
	moveHead    = `UPDATE seal SET number = $2, hash = $3 WHERE name = 'audit' AND number = $1`
	sealEntry   = `UPDATE audit SET number = $2, hash = $3 WHERE id = $1 AND number IS NULL`
	anyUnsealed = `SELECT 1 FROM audit WHERE number IS NULL LIMIT 1`
)

func scanHead(scan func(...any) error) (h head, err error) {
	return h, scan(&h.number, &h.hash, &h.anchor, &h.anchorHash)
}

// errSealing says that another node sealed meanwhile.
var errSealing = errors.New("another node is sealing")

// SealAudit takes entries that are not in the hash chain yet into it, some at a
// time, and returns how many. Any number of nodes may call it: one at a time
// seals, the others do nothing, and no writer ever waits for it.
func (s *Store) SealAudit(ctx context.Context) (sealed int, err error) {
	for {
		waiting, err := count(s.reader(ctx), anyUnsealed)
		if err != nil || waiting == 0 {
			return sealed, s.failed("looking for what to seal", err)
		}
		var n int
		err = s.write(ctx, "", sealBatch, func(tx *tx) error {
			n, err = sealSome(tx)
			return err
		})
		if errors.Is(err, errSealing) {
			return sealed, nil
		}
		if err != nil {
			return sealed, s.failed("sealing the audit", err)
		}
		crash.At(crash.SealCommitted)
		if sealed += n; n < sealBatch {
			return sealed, nil
		}
	}
}

func sealSome(tx *tx) (int, error) {
	h, err := first(tx, scanHead, selectHead)
	if err != nil {
		return 0, err
	}
	entries, err := collect(tx, scanAudit, selectUnsealed, sealBatch)
	if err != nil || len(entries) == 0 {
		return 0, err
	}
	from, hash := h.number, h.hash
	for i := range entries {
		e := &entries[i]
		e.Number = from + int64(i) + 1
		hash = e.Link(hash)
		e.Hash = hash
	}
	// The head first: who loses the race has changed nothing.
	n, err := tx.exec(moveHead, from, from+int64(len(entries)), hash)
	if err == nil && n == 0 {
		err = errSealing
	}
	if err != nil {
		return 0, err
	}
	crash.At(crash.SealMoved)
	for _, e := range entries {
		n, err := tx.exec(sealEntry, e.ID, e.Number, e.Hash)
		if err == nil && n == 0 {
			err = fmt.Errorf("entry %s is sealed already", e.ID)
		}
		if err != nil {
			return 0, err
		}
	}
	crash.At(crash.SealWritten)
	return len(entries), nil
}

const (
	// firstYoung is the first sealed entry that is kept; those before it are a
	// whole beginning of the chain, whatever their times.
	firstYoung  = `SELECT coalesce(min(number), 0) FROM audit WHERE number IS NOT NULL AND time >= $1`
	hashAt      = `SELECT hash FROM audit WHERE number = $1`
	moveAnchor  = `UPDATE seal SET anchor_number = $2, anchor_hash = $3 WHERE name = 'audit' AND anchor_number = $1`
	deleteAudit = `DELETE FROM audit WHERE number <= $1`
)

// PurgeAudit deletes the sealed entries from before a time, and keeps the hash of
// the last of them as the anchor from which the rest of the chain is checked. It
// returns how many it deleted.
func (s *Store) PurgeAudit(ctx context.Context, before time.Time) (deleted int, err error) {
	e := s.entry("audit.purge", "", "")
	err = s.write(ctx, "", maxGroup+1, func(tx *tx) error {
		deleted = 0
		h, err := first(tx, scanHead, selectHead)
		if err != nil {
			return err
		}
		last, err := first(tx, one[int64], firstYoung, micros(before))
		if err != nil {
			return err
		}
		if last--; last < 0 { // all are old
			last = h.number
		}
		if last <= h.anchor {
			return nil
		}
		hash, err := first(tx, one[string], hashAt, last)
		if err != nil {
			return fmt.Errorf("entry %d of the audit: %w", last, err)
		}
		// Another node that purges too finds the anchor moved.
		n, err := tx.exec(moveAnchor, h.anchor, last, hash)
		if err != nil || n == 0 {
			return err
		}
		gone, err := tx.exec(deleteAudit, last)
		if err != nil {
			return err
		}
		deleted = int(gone)
		return tx.record(e, facts{"first": h.anchor + 1}, facts{"first": last + 1, "anchor": hash})
	})
	return deleted, s.failed("purging the audit", err)
}

// AuditCheck is what VerifyAudit looked at.
type AuditCheck struct {
	Sealed   int64  // entries in the chain
	Unsealed int64  // entries that wait to be sealed
	Anchor   int64  // the number of the last entry that was deleted for its age; 0: none was
	Head     int64  // the number of the last entry
	Hash     string // of the last entry: who keeps it elsewhere can prove later that nothing before it was changed
}

const countUnsealed = `SELECT count(*) FROM audit WHERE number IS NULL`

// VerifyAudit follows the hash chain of the audit from its anchor to its head, in
// one snapshot, and reports each entry that was changed, removed or inserted.
func (s *Store) VerifyAudit(ctx context.Context, report func(finding string)) (c AuditCheck, err error) {
	err = s.snapshot(ctx, func(q querier) error {
		h, err := first(q, scanHead, selectHead)
		if err != nil {
			return err
		}
		c = AuditCheck{Anchor: h.anchor, Head: h.number, Hash: h.hash}
		if c.Unsealed, err = first(q, one[int64], countUnsealed); err != nil {
			return err
		}
		w := chainWalk{report: report, head: h, number: h.anchor, hash: h.anchorHash}
		for after := int64(math.MinInt64); ; {
			page, err := collect(q, scanAudit, selectChain, after, sealBatch)
			if err != nil {
				return err
			}
			for _, e := range page {
				w.step(e)
				after = e.Number
			}
			if c.Sealed += int64(len(page)); len(page) < sealBatch {
				w.end()
				return nil
			}
		}
	})
	return c, s.failed("verifying the audit", err)
}

// A chainWalk follows the chain: number and hash are of the entry last seen.
type chainWalk struct {
	report func(string)
	head   head
	number int64
	hash   string
}

func (w *chainWalk) step(e license.AuditEntry) {
	switch {
	case e.Number <= w.head.anchor:
		w.report(fmt.Sprintf("entry %d (%s): it was inserted before the beginning of the chain", e.Number, e.ID))
		return
	case e.Number > w.head.number:
		w.report(fmt.Sprintf("entry %d (%s): it was inserted after the end of the chain", e.Number, e.ID))
		return
	case e.Number > w.number+1:
		w.missing(e.Number - 1)
	case e.Link(w.hash) != e.Hash:
		w.report(fmt.Sprintf("entry %d (%s): it was changed", e.Number, e.ID))
	}
	// Its own hash leads on, so that one change is told once.
	w.number, w.hash = e.Number, e.Hash
}

func (w *chainWalk) end() {
	switch {
	case w.number < w.head.number:
		w.missing(w.head.number)
	case w.hash != w.head.hash:
		w.report(fmt.Sprintf("entry %d: its hash is not that of the chain's end", w.number))
	}
}

func (w *chainWalk) missing(last int64) {
	if first := w.number + 1; first < last {
		w.report(fmt.Sprintf("entries %d to %d were removed", first, last))
	} else {
		w.report(fmt.Sprintf("entry %d was removed", last))
	}
}
