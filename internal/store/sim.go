package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// The filters that a list of devices combines with AND. Every one is either
// wide open or decided by an index; the order is that of the number, by which
// lists are paged.
const selectSIMs = `SELECT account, iccid, imei, imsi, mdn, state, generation, number, added, sku, request
	FROM sim
	WHERE account = $1 AND number > $2 AND ($3 = '' OR state = $3)
		AND (CAST($4 AS BIGINT) = 0 OR added >= $4) AND (CAST($5 AS BIGINT) = 0 OR added < $5)
		AND NOT EXISTS (SELECT 1 FROM {each $7 kind TEXT, pattern TEXT} WHERE
			CASE kind WHEN 'ICCID' THEN iccid WHEN 'IMEI' THEN imei ELSE mdn END NOT LIKE pattern)
	ORDER BY number LIMIT $6`

const (
	selectSIMsByICCID = `SELECT account, iccid, imei, imsi, mdn, state, generation, number, added, sku, request
		FROM sim WHERE account = $1 AND iccid {any $2}`
	selectICCIDByIMEI = `SELECT iccid FROM sim WHERE account = $1 AND imei {any $2}`
	selectByMDN       = `SELECT iccid FROM sim WHERE account = $1 AND mdn <> '' AND mdn {any $2}`
)

// Devices lists SIMs by number. All of a filter's conditions must hold; of
// Device and Devices, one device must fit in all the identifiers it is given
// by.
func (s *Store) Devices(ctx context.Context, f license.DeviceFilter) ([]license.SIM, error) {
	if f.Device != (license.Device{}) {
		f.Devices = append(slices.Clone(f.Devices), f.Device)
	}
	var all []license.SIM
	for _, account := range f.Accounts {
		list := s.listDevices
		if len(f.Devices) > 0 {
			list = s.findDevices
		}
		sims, err := list(ctx, account, f)
		if err != nil {
			return nil, s.failed("listing devices", err)
		}
		all = append(all, sims...)
	}
	slices.SortFunc(all, func(a, b license.SIM) int { return cmp.Compare(a.Number, b.Number) })
	return all[:min(len(all), f.Limit)], nil
}

// listDevices reads an account's SIMs in the order of their numbers.
func (s *Store) listDevices(ctx context.Context, account license.AccountName, f license.DeviceFilter) ([]license.SIM, error) {
	return collect(s.reader(ctx), scanSIM, selectSIMs, string(account), f.After, string(f.State),
		micros(f.Earliest), micros(f.Latest), f.Limit, likes(f.Match))
}

// findDevices looks up the SIMs that a filter names, and holds them against the
// rest of it.
func (s *Store) findDevices(ctx context.Context, account license.AccountName, f license.DeviceFilter) ([]license.SIM, error) {
	var iccids []license.ICCID
	var imeis []license.IMEI
	var mdns []license.MDN
	for _, d := range f.Devices {
		switch {
		case d.ICCID != "":
			iccids = append(iccids, d.ICCID)
		case d.IMEI != "":
			imeis = append(imeis, d.IMEI)
		case d.MDN != "":
			mdns = append(mdns, d.MDN)
		}
	}
	byIMEI, err := lookUp(ctx, s, selectICCIDByIMEI, account, imeis)
	if err != nil {
		return nil, err
	}
	byMDN, err := lookUp(ctx, s, selectByMDN, account, mdns)
	if err != nil {
		return nil, err
	}
	sims, err := collect(s.reader(ctx), scanSIM, selectSIMsByICCID, string(account), only(slices.Concat(iccids, byIMEI, byMDN)))
	return slices.DeleteFunc(sims, func(sim license.SIM) bool { return !selects(f, sim) }), err
}

// lookUp finds the ICCIDs of an account's SIMs by another identifier.
func lookUp[T ~string](ctx context.Context, s *Store, text string, account license.AccountName, ids []T) ([]license.ICCID, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return collect(s.reader(ctx), one[license.ICCID], text, string(account), only(ids))
}

// selects reports whether a filter selects a SIM of one of its accounts: what
// selectSIMs says in SQL, and the devices.
func selects(f license.DeviceFilter, sim license.SIM) bool {
	for _, m := range f.Match {
		var id string
		switch m.Kind {
		case license.KindICCID:
			id = string(sim.Device.ICCID)
		case license.KindIMEI:
			id = string(sim.Device.IMEI)
		case license.KindMDN:
			id = string(sim.Device.MDN)
		}
		if !strings.HasPrefix(id, m.Prefix) || !strings.HasSuffix(id, m.Suffix) || !strings.Contains(id, m.Contains) {
			return false
		}
	}
	return sim.Number > f.After && (f.State == "" || sim.State == f.State) &&
		(f.Earliest.IsZero() || !sim.Added.Before(f.Earliest)) && (f.Latest.IsZero() || sim.Added.Before(f.Latest)) &&
		slices.ContainsFunc(f.Devices, func(d license.Device) bool { return fits(sim.Device, d) })
}

// fits reports whether a SIM has all the identifiers that d gives.
func fits(sim, d license.Device) bool {
	return (d.ICCID == "" || d.ICCID == sim.ICCID) && (d.IMEI == "" || d.IMEI == sim.IMEI) && (d.MDN == "" || d.MDN == sim.MDN)
}

// likes are the patterns that identifiers must fit: rows of a kind and a
// pattern. What could be a wildcard in the parts, which are digits, is left out.
func likes(matches []license.IdentifierMatch) list {
	plain := strings.NewReplacer("%", "", "_", "", `\`, "").Replace
	kinds, patterns := []string{}, []string{}
	for _, m := range matches {
		kinds = append(kinds, string(m.Kind), string(m.Kind), string(m.Kind))
		patterns = append(patterns, plain(m.Prefix)+"%", "%"+plain(m.Contains)+"%", "%"+plain(m.Suffix))
	}
	return list{kinds, patterns}
}

func scanSIM(scan func(...any) error) (sim license.SIM, err error) {
	var added int64
	err = scan(&sim.Account, &sim.Device.ICCID, &sim.Device.IMEI, &sim.IMSI, &sim.Device.MDN, &sim.State, &sim.Generation,
		&sim.Number, &added, &sim.SKU, &sim.Request)
	sim.Added = fromMicros(added)
	return sim, err
}

const lockStates = `SELECT iccid, state FROM sim WHERE account = $1 AND iccid {any $2} ORDER BY iccid {wait}`

const setState = `UPDATE sim SET state = $2 WHERE account = $1 AND iccid {any $3} RETURNING iccid`

// SetState changes the state of SIMs; their licenses stay as they are. It fails
// with a *license.DevicesError of ErrUnknownDevice, and then changes none.
func (s *Store) SetState(ctx context.Context, account license.AccountName, iccids []license.ICCID, state license.State) (changed int, err error) {
	e := s.entry("sim.state", account, "")
	err = s.write(ctx, account, len(iccids), func(tx *tx) error {
		before := map[license.State][]license.ICCID{}
		_, err := collect(tx, func(scan func(...any) error) (struct{}, error) {
			var id license.ICCID
			var state license.State
			err := scan(&id, &state)
			before[state] = append(before[state], id)
			return struct{}{}, err
		}, lockStates, string(account), only(iccids))
		if err != nil {
			return err
		}
		found, err := collect(tx, one[license.ICCID], setState, string(account), string(state), only(iccids))
		if err != nil {
			return err
		}
		changed = len(found)
		slices.Sort(found)
		var unknown []license.Device
		for _, id := range iccids {
			if _, ok := slices.BinarySearch(found, id); !ok {
				unknown = append(unknown, license.Device{ICCID: id})
			}
		}
		if len(unknown) > 0 {
			return &license.DevicesError{Err: license.ErrUnknownDevice, Devices: unknown}
		}
		return recordStates(tx, e, before, state)
	})
	if err != nil {
		return 0, s.failed("changing the state of SIMs", err)
	}
	return changed, nil
}

// auditedSIMs is how many SIMs one entry of the audit names.
const auditedSIMs = 100

// recordStates has the new state of SIMs audited, by the state they had.
func recordStates(tx *tx, e entry, before map[license.State][]license.ICCID, state license.State) error {
	part := 0
	for _, old := range slices.Sorted(maps.Keys(before)) {
		for ids := range slices.Chunk(before[old], auditedSIMs) {
			line := e.part(part)
			if len(ids) == 1 {
				line.Target = string(ids[0])
			}
			if err := tx.record(line, facts{"state": old}, facts{"state": state, "iccids": ids}); err != nil {
				return err
			}
			part++
		}
	}
	return nil
}

// ConflictError says why a SIM cannot be imported beside what is stored.
type ConflictError struct {
	SIM    license.SIM
	Index  int // of the SIM in the sequence, from 1
	Reason string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("SIM %s of account %s: %s", e.SIM.Device.ICCID, e.SIM.Account, e.Reason)
}

// ConflictsError says why SIMs cannot be imported: of the first maxConflicts.
type ConflictsError struct{ Conflicts []*ConflictError }

// maxConflicts is how many conflicts an import looks for.
const maxConflicts = 100

func (e *ConflictsError) Error() string {
	first := e.Conflicts[0].Error()
	if len(e.Conflicts) == 1 {
		return first
	}
	return fmt.Sprintf("%s; and %d more", first, len(e.Conflicts)-1)
}

// Unwrap gives errors.As the first.
func (e *ConflictsError) Unwrap() error { return e.Conflicts[0] }

// numberSIMs reserves numbers for SIMs and returns the last.
const numberSIMs = `UPDATE counter SET value = value + $1 WHERE name = 'sim' RETURNING value`

// What it returns says what it did: Citus counts the rows that it was given.
const insertOwners = `INSERT INTO sim_owner (iccid, account)
	SELECT iccid, $1 FROM {each $2 iccid TEXT} WHERE true
	ON CONFLICT (iccid) DO NOTHING
	RETURNING 1`

const otherOwners = `SELECT iccid, account FROM sim_owner
	WHERE account <> $1 AND iccid {any $2}`

const insertSIMs = `INSERT INTO sim (account, iccid, imei, imsi, mdn, state, generation, number, added)
	SELECT $1, iccid, imei, imsi, mdn, state, generation, number, CAST($2 AS BIGINT)
	FROM {each $3 iccid TEXT, imei TEXT, imsi TEXT, mdn TEXT, state TEXT, generation TEXT, number BIGINT} WHERE true
	ON CONFLICT (account, iccid) DO NOTHING`

// countSIMs counts those that were added under the numbers reserved for them,
// for the same reason as in insertOwners, at less cost.
const countSIMs = `SELECT count(*) FROM sim WHERE account = $1 AND number > $2 AND number <= $3`

const selectIdentifiers = `SELECT iccid, imei, imsi, mdn FROM sim
	WHERE account = $1 AND iccid {any $2}`

// importBatch is how many SIMs one statement inserts.
const importBatch = 2000

// ImportResult counts what an import did.
type ImportResult struct {
	Added     int
	Unchanged int // were there already, with the same identifiers
}

// importer is one import under way, in one transaction.
type importer struct {
	tx        *tx
	now       time.Time
	progress  func(done int)
	result    ImportResult
	read      int
	entry     entry // of the audit
	entries   int   // how many of its parts are written
	batches   map[license.AccountName][]numberedSIM
	conflicts []*ConflictError
}

// conflict notes a conflict; it is an error when there are enough.
func (im *importer) conflict(c *ConflictError) error {
	if im.conflicts = append(im.conflicts, c); len(im.conflicts) < maxConflicts {
		return nil
	}
	return &ConflictsError{im.conflicts}
}

type numberedSIM struct {
	license.SIM
	index int
}

func (im *importer) add(sim license.SIM) error {
	im.read++
	batch, known := im.batches[sim.Account]
	if !known {
		err := needAccount(im.tx, sim.Account)
		if errors.Is(err, license.ErrNotFound) {
			return im.conflict(&ConflictError{SIM: sim, Index: im.read, Reason: "there is no such account"})
		}
		if err != nil {
			return err
		}
	}
	batch = append(batch, numberedSIM{sim, im.read})
	if len(batch) == importBatch {
		if err := im.flush(sim.Account, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	im.batches[sim.Account] = batch
	return nil
}

// flush inserts a batch of one account's SIMs and checks those that are there
// already.
func (im *importer) flush(account license.AccountName, batch []numberedSIM) error {
	if len(batch) == 0 {
		return nil
	}
	last, err := first(im.tx, one[int64], numberSIMs, len(batch))
	if err != nil {
		return err
	}
	n := len(batch)
	iccid, imei, imsi, mdn := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	state, generation, number := make([]string, n), make([]string, n), make([]int64, n)
	for i, sim := range batch {
		iccid[i], imei[i], imsi[i], mdn[i] = string(sim.Device.ICCID), string(sim.Device.IMEI), sim.IMSI, string(sim.Device.MDN)
		state[i], generation[i], number[i] = string(sim.State), string(sim.Generation), last-int64(n-1-i)
	}
	owned, err := count(im.tx, insertOwners, string(account), list{iccid})
	if err != nil {
		return err
	}
	crash.At(crash.ImportOwned)
	if _, err := im.tx.exec(insertSIMs, string(account), micros(im.now), list{iccid, imei, imsi, mdn, state, generation, number}); err != nil {
		return err
	}
	added, err := first(im.tx, one[int], countSIMs, string(account), last-int64(len(batch)), last)
	if err != nil {
		return err
	}
	if owned < len(batch) || added < len(batch) {
		if err := im.compare(account, batch); err != nil {
			return err
		}
	}
	if added > 0 {
		line := im.entry.part(im.entries)
		line.Account = account
		if err := im.tx.record(line, nil, facts{
			"added": added, "firstNumber": last - int64(n) + 1, "lastNumber": last,
		}); err != nil {
			return err
		}
		im.entries++
	}
	crash.At(crash.ImportFlushed)
	im.result.Added += added
	im.result.Unchanged += len(batch) - added
	if im.progress != nil {
		im.progress(im.result.Added + im.result.Unchanged)
	}
	return nil
}

// compare holds a batch, some of which was there before, against what is stored
// now.
func (im *importer) compare(account license.AccountName, batch []numberedSIM) error {
	iccids := make([]license.ICCID, len(batch))
	for i, sim := range batch {
		iccids[i] = sim.Device.ICCID
	}
	owners := map[license.ICCID]string{}
	_, err := collect(im.tx, func(scan func(...any) error) (struct{}, error) {
		var iccid license.ICCID
		var owner string
		err := scan(&iccid, &owner)
		owners[iccid] = owner
		return struct{}{}, err
	}, otherOwners, string(account), only(iccids))
	if err != nil {
		return err
	}
	stored := map[license.ICCID]license.SIM{}
	_, err = collect(im.tx, func(scan func(...any) error) (struct{}, error) {
		var sim license.SIM
		err := scan(&sim.Device.ICCID, &sim.Device.IMEI, &sim.IMSI, &sim.Device.MDN)
		stored[sim.Device.ICCID] = sim
		return struct{}{}, err
	}, selectIdentifiers, string(account), only(iccids))
	if err != nil {
		return err
	}
	for _, sim := range batch {
		have, reason := stored[sim.Device.ICCID], ""
		switch {
		case owners[sim.Device.ICCID] != "":
			reason = "the ICCID belongs to another account"
		case have.Device != sim.Device || have.IMSI != sim.IMSI:
			reason = fmt.Sprintf("it is there already with IMEI %q, MDN %q and IMSI %q", have.Device.IMEI, have.Device.MDN, have.IMSI)
		default:
			continue
		}
		if err := im.conflict(&ConflictError{SIM: sim.SIM, Index: sim.index, Reason: reason}); err != nil {
			return err
		}
	}
	return nil
}
