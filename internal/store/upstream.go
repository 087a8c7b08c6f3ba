package store

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

const (
	insertUpstream = `INSERT INTO upstream (account, request, key, sku, action, sent, tried) VALUES ($1, $2, $3, $4, $5, $6, $6)
		ON CONFLICT (account, request, key) DO NOTHING`
	// A repeat finds its own rows.
	sendUpstream = `INSERT INTO upstream_task (account, request, iccid, imei, batch)
		SELECT $1, CAST($2 AS TEXT), iccid, imei, CAST($3 AS TEXT) FROM {each $4 iccid TEXT, imei TEXT} WHERE true
		ON CONFLICT (account, request, iccid) DO UPDATE SET batch = excluded.batch, imei = excluded.imei
		WHERE upstream_task.outcome = '' AND (upstream_task.batch = '' OR upstream_task.batch = excluded.batch)
		RETURNING iccid`
)

// errSentBefore says that some tasks of a batch are in another one.
var errSentBefore = errors.New("sent before")

// BeginUpstream writes a batch down that is about to be sent. It reports false,
// and writes nothing, where any of its tasks was sent in another.
func (s *Store) BeginUpstream(ctx context.Context, b license.UpstreamBatch) (bool, error) {
	devices := slices.SortedFunc(slices.Values(b.Devices), func(a, b license.Device) int { return cmp.Compare(a.ICCID, b.ICCID) })
	iccid, imei := make([]string, len(devices)), make([]string, len(devices))
	for i, d := range devices {
		iccid[i], imei[i] = string(d.ICCID), string(d.IMEI)
	}
	err := s.write(ctx, b.Account, len(devices), func(tx *tx) error {
		if _, err := tx.exec(insertUpstream, string(b.Account), string(b.Request), b.Key, string(b.SKU), string(b.Action), micros(b.Sent)); err != nil {
			return err
		}
		n, err := count(tx, sendUpstream, string(b.Account), string(b.Request), b.Key, list{iccid, imei})
		if err == nil && n < len(devices) {
			err = errSentBefore
		}
		return err
	})
	if errors.Is(err, errSentBefore) {
		return false, nil
	}
	return err == nil, s.failed("writing down what is sent upstream", err)
}

const nameUpstream = `UPDATE upstream SET remote = $4 WHERE account = $1 AND request = $2 AND key = $3 AND remote = ''`

// NameUpstream remembers the upstream's requestId of a batch, once.
func (s *Store) NameUpstream(ctx context.Context, b license.UpstreamBatch) error {
	err := s.write(ctx, b.Account, 1, func(tx *tx) error {
		_, err := tx.exec(nameUpstream, string(b.Account), string(b.Request), b.Key, b.Remote)
		return err
	})
	return s.failed("remembering an upstream's requestId", err)
}

const retryUpstream = `UPDATE upstream SET tried = $4
	WHERE account = $1 AND request = $2 AND key = $3 AND remote = '' AND tried <= $5`

// RetryUpstream allows one caller to send a batch again under its key, whose
// answer is not known and which nobody has sent since a time.
func (s *Store) RetryUpstream(ctx context.Context, b license.UpstreamBatch, now, since time.Time) (allowed bool, err error) {
	err = s.write(ctx, b.Account, 1, func(tx *tx) error {
		n, err := tx.exec(retryUpstream, string(b.Account), string(b.Request), b.Key, micros(now), micros(since))
		allowed = n > 0
		return err
	})
	return allowed && err == nil, s.failed("writing down that a request is sent upstream again", err)
}

const (
	releaseUpstream = `UPDATE upstream_task SET batch = '', most = $4
		WHERE account = $1 AND request = $2 AND batch = $3 AND outcome = ''`
	deleteUpstream = `DELETE FROM upstream WHERE account = $1 AND request = $2 AND key = $3`
)

// ReleaseUpstream says that a batch was not carried out: its tasks may be sent
// again, at most so many together where most is not zero.
func (s *Store) ReleaseUpstream(ctx context.Context, b license.UpstreamBatch, most int) error {
	err := s.write(ctx, b.Account, len(b.Devices), func(tx *tx) error {
		if _, err := tx.exec(releaseUpstream, string(b.Account), string(b.Request), b.Key, most); err != nil {
			return err
		}
		_, err := tx.exec(deleteUpstream, string(b.Account), string(b.Request), b.Key)
		return err
	})
	return s.failed("taking back what was not done upstream", err)
}

const decideUpstream = `UPDATE upstream_task SET outcome = $4, code = $5, comment = $6
	WHERE account = $1 AND request = $2 AND batch = $3 AND outcome = ''`

// DecideUpstream writes down how the tasks of a batch ended whose outcome is not
// known: license.Done or license.Refused.
func (s *Store) DecideUpstream(ctx context.Context, b license.UpstreamBatch, v license.Verdict, code, comment string) error {
	err := s.write(ctx, b.Account, len(b.Devices), func(tx *tx) error {
		_, err := tx.exec(decideUpstream, string(b.Account), string(b.Request), b.Key, v.String(), clean(code, maxCode), clean(comment, maxComment))
		return err
	})
	return s.failed("writing down what an upstream did", err)
}

const (
	upstreamTasks = `SELECT iccid, batch, most, outcome, code, comment FROM upstream_task
		WHERE account = $1 AND request = $2 AND iccid {any $3}`
	upstreamBatches = `SELECT key, sku, action, sent, remote FROM upstream WHERE account = $1 AND request = $2 AND key {any $3}`
	upstreamDevices = `SELECT iccid, imei, outcome FROM upstream_task
		WHERE account = $1 AND request = $2 AND batch = $3 ORDER BY iccid`
)

// verdictOf reads an outcome as it is stored.
func verdictOf(outcome string) license.Verdict {
	switch outcome {
	case license.Done.String():
		return license.Done
	case license.Refused.String():
		return license.Refused
	}
	return license.Later
}

// UpstreamTasks tells what is known upstream of tasks of one request; those that
// were never sent are not among them.
func (s *Store) UpstreamTasks(ctx context.Context, account license.AccountName, request license.RequestID, iccids []license.ICCID) ([]license.UpstreamTask, error) {
	keys := map[string]bool{}
	tasks, err := collect(s.reader(ctx), func(scan func(...any) error) (t license.UpstreamTask, err error) {
		var outcome string
		err = scan(&t.ICCID, &t.Key, &t.Most, &outcome, &t.Code, &t.Comment)
		t.Verdict = verdictOf(outcome)
		if t.Key != "" {
			keys[t.Key] = true
		}
		return t, err
	}, upstreamTasks, string(account), string(request), only(iccids))
	if err != nil || len(keys) == 0 {
		return tasks, s.failed("reading what was sent upstream", err)
	}
	batches, err := s.upstreams(ctx, account, request, slices.Sorted(maps.Keys(keys)))
	for i := range tasks {
		b := batches[tasks[i].Key]
		tasks[i].Sent, tasks[i].Remote = b.Sent, b.Remote
	}
	return tasks, s.failed("reading what was sent upstream", err)
}

func (s *Store) upstreams(ctx context.Context, account license.AccountName, request license.RequestID, keys []string) (map[string]license.UpstreamBatch, error) {
	batches := map[string]license.UpstreamBatch{}
	_, err := collect(s.reader(ctx), func(scan func(...any) error) (struct{}, error) {
		b := license.UpstreamBatch{Account: account, Request: request}
		var sent int64
		err := scan(&b.Key, &b.SKU, &b.Action, &sent, &b.Remote)
		b.Sent = fromMicros(sent)
		batches[b.Key] = b
		return struct{}{}, err
	}, upstreamBatches, string(account), string(request), only(keys))
	return batches, err
}

// UpstreamBatch tells all that is known of a batch. It fails with
// license.ErrNotFound.
func (s *Store) UpstreamBatch(ctx context.Context, account license.AccountName, request license.RequestID, key string) (license.UpstreamBatch, error) {
	batches, err := s.upstreams(ctx, account, request, []string{key})
	b, ok := batches[key]
	if err == nil && !ok {
		err = license.ErrNotFound
	}
	if err != nil {
		return b, s.failed("reading what was sent upstream", err)
	}
	b.Devices, err = collect(s.reader(ctx), func(scan func(...any) error) (d license.Device, err error) {
		var outcome string
		err = scan(&d.ICCID, &d.IMEI, &outcome)
		switch verdictOf(outcome) {
		case license.Done:
		case license.Refused:
			b.Refused++
		case license.Retry, license.Later, license.Stuck:
			b.Waiting = append(b.Waiting, d.ICCID)
		}
		return d, err
	}, upstreamDevices, string(account), string(request), key)
	return b, s.failed("reading what was sent upstream", err)
}

const forgetUpstream = `UPDATE upstream_task SET batch = '', most = 1
	WHERE account = $1 AND request = $2 AND iccid = $3 AND outcome = ''`

// forgetUpstream lets a task be sent upstream again, by an operator's word.
func (s *Store) forgetUpstream(ctx context.Context, t license.Task) error {
	return s.write(ctx, t.Account, 1, func(tx *tx) error {
		_, err := tx.exec(forgetUpstream, string(t.Account), string(t.Request), string(t.Device.ICCID))
		return err
	})
}

// HearUpstream writes down what an upstream's callbacks say of devices of one
// account, settles their tasks, whoever has a lease on them and also when they
// are stuck, and tells for each word what it meant, and whether callbacks of ours
// are due. What is written first stands.
func (s *Store) HearUpstream(ctx context.Context, now time.Time, account license.AccountName, words []license.UpstreamWord) (meant []license.UpstreamHearing, more bool, err error) {
	order := make([]int, len(words)) // in which rows are locked
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(words[a].Remote, words[b].Remote), cmp.Compare(words[a].ICCID, words[b].ICCID))
	})
	err = s.write(ctx, account, len(words), func(tx *tx) error {
		meant = make([]license.UpstreamHearing, len(words))
		late := license.LateParams{Account: account, Now: now}
		for _, i := range order {
			h := hearing{tx: tx, account: account, word: &words[i]}
			var err error
			if meant[i], err = h.hear(); err != nil {
				return err
			}
			if meant[i] == license.HearingTaken {
				late.Outcomes = append(late.Outcomes, h.outcome)
			}
		}
		l := newLateSettlement(tx, late)
		err := l.run()
		more = l.more
		return err
	})
	return meant, more, s.failed("writing down what an upstream said", err)
}

// hearing is the reading of one word.
type hearing struct {
	tx      *tx
	account license.AccountName
	word    *license.UpstreamWord
	outcome license.LateOutcome // of a word that was taken
}

const (
	upstreamsNamed = `SELECT request, key FROM upstream WHERE account = $1 AND remote = $2 AND remote <> ''`
	tasksOfSIM     = `SELECT request, batch FROM upstream_task WHERE account = $1 AND iccid = $2`
	oneUpstream    = `SELECT request, key, sku, action, remote FROM upstream WHERE account = $1 AND request = $2 AND key = $3`
	hearUpstream   = `UPDATE upstream_task SET outcome = $5, code = $6, comment = $7
		WHERE account = $1 AND request = $2 AND iccid = $3 AND batch = $4 AND outcome = '' RETURNING iccid`
	heardUpstream = `SELECT outcome FROM upstream_task WHERE account = $1 AND request = $2 AND iccid = $3 AND batch = $4`
)

func (h *hearing) hear() (license.UpstreamHearing, error) {
	named, err := h.batches(upstreamsNamed, h.word.Remote)
	if err != nil {
		return 0, err
	}
	for _, b := range named {
		if meant, err := h.of(b); err != nil || meant != license.HearingUnknown {
			return meant, err
		}
	}
	if len(named) > 0 {
		return license.HearingUnknown, nil
	}
	// Of a batch whose answer was lost, success says enough by itself: the license
	// is real on the SIM, or gone.
	meant := license.HearingUnknown
	sent, err := h.batches(tasksOfSIM, string(h.word.ICCID))
	if err != nil {
		return 0, err
	}
	for _, b := range sent {
		switch {
		case b.Remote == h.word.Remote: // it was named since it was looked for
			return h.of(b)
		case b.Remote != "":
		case h.word.OK && b.SKU == h.word.SKU && b.Action == h.word.Action:
			return h.of(b)
		default:
			meant = license.HearingEarly
		}
	}
	return meant, nil
}

// batches reads the batches whose requests and keys a statement finds.
func (h *hearing) batches(text, arg string) (list []license.UpstreamBatch, err error) {
	keys, err := collect(h.tx, func(scan func(...any) error) (k license.UpstreamBatch, err error) {
		return k, scan(&k.Request, &k.Key)
	}, text, string(h.account), arg)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		b, err := first(h.tx, func(scan func(...any) error) (b license.UpstreamBatch, err error) {
			return b, scan(&b.Request, &b.Key, &b.SKU, &b.Action, &b.Remote)
		}, oneUpstream, string(h.account), string(k.Request), k.Key)
		switch {
		case errors.Is(err, license.ErrNotFound): // it was released
		case err != nil:
			return nil, err
		default:
			list = append(list, b)
		}
	}
	return list, nil
}

// of reads the word as one about a task of a batch.
func (h *hearing) of(b license.UpstreamBatch) (license.UpstreamHearing, error) {
	w := h.word
	before, err := first(h.tx, one[string], heardUpstream, string(h.account), string(b.Request), string(w.ICCID), b.Key)
	if errors.Is(err, license.ErrNotFound) {
		return license.HearingUnknown, nil
	}
	outcome := license.Refused.String()
	if w.OK {
		outcome = license.Done.String()
	}
	switch {
	case err != nil:
		return 0, err
	case w.OK && (w.SKU != b.SKU || w.Action != b.Action), before != "" && before != outcome:
		return license.HearingContradicts, nil
	case before == outcome:
		return license.HearingRepeated, nil
	}
	n, err := count(h.tx, hearUpstream, string(h.account), string(b.Request), string(w.ICCID), b.Key, outcome,
		clean(w.Code, maxCode), clean(w.Comment, maxComment))
	if err != nil || n == 0 { // another was first
		return license.HearingRepeated, err
	}
	h.outcome = license.LateOutcome{Request: b.Request, ICCID: w.ICCID, Verdict: license.Refused, Code: w.Code, Comment: w.Comment}
	if w.OK {
		h.outcome.Verdict, h.outcome.Code, h.outcome.Comment = license.Done, "", ""
	}
	return license.HearingTaken, nil
}
