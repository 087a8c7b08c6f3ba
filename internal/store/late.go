package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// The tasks that are still the carrier's are taken over, whoever has a lease on
// them: the fencing number rises, so that a call in flight has lost. What is
// inserted instead, at number 0, which no task has, was never a task or is one no
// more.
const takeOver = `INSERT INTO task (account, request, iccid, phase, lease)
	SELECT $1, request, iccid, 'carrier', 0 FROM {each $2 request TEXT, iccid TEXT} WHERE true
	ON CONFLICT (account, request, iccid) DO UPDATE SET lease = task.lease + 1
	WHERE task.phase IN ('carrier', 'stuck')
	RETURNING request, iccid, lease, attempt`

// SettleLate writes down what a carrier brought by itself: the tasks that are
// at the carrier or stuck are settled as SettleTasks would, whoever holds a lease
// on them; all others stay as they are, and each outcome's result tells why.
// Strange ones are kept (StrangeOutcomes). It may be repeated: what was settled is
// then told as repeated. Outcomes of one task that contradict each other settle
// nothing.
func (s *Store) SettleLate(ctx context.Context, p license.LateParams) (settled license.LateSettlement, err error) {
	if i := slices.IndexFunc(p.Outcomes, func(o license.LateOutcome) bool {
		return o.Verdict != license.Done && o.Verdict != license.Refused
	}); i >= 0 {
		return settled, fmt.Errorf("settling late outcomes: %v ends no task", p.Outcomes[i].Verdict)
	}
	if len(p.Outcomes) == 0 {
		return settled, nil
	}
	err = s.write(ctx, p.Account, len(p.Outcomes), func(tx *tx) error {
		crash.At(crash.LateBegun)
		l := newLateSettlement(tx, p)
		err := l.run()
		crash.At(crash.LateWritten)
		settled = license.LateSettlement{Results: l.results(), More: l.more}
		return err
	})
	if err != nil {
		return license.LateSettlement{}, s.failed("settling late outcomes", err)
	}
	crash.At(crash.LateCommitted)
	return settled, nil
}

// lateSettlement is one call of SettleLate.
type lateSettlement struct {
	tx *tx
	p  license.LateParams

	keys    []taskKey // each once, in the order in which tasks are locked
	said    map[taskKey]license.LateOutcome
	unclear map[taskKey]bool // two outcomes contradict each other
	// result is of each key; the outcomes that say no more than the first one of
	// their key have repeated it.
	result map[taskKey]license.LateResult
	more   bool
}

func lateKey(o license.LateOutcome) taskKey { return taskKey{o.Request, o.ICCID} }

func newLateSettlement(tx *tx, p license.LateParams) *lateSettlement {
	l := &lateSettlement{
		tx: tx, p: p, said: map[taskKey]license.LateOutcome{}, unclear: map[taskKey]bool{},
		result: map[taskKey]license.LateResult{},
	}
	for _, o := range p.Outcomes {
		key := lateKey(o)
		first, there := l.said[key]
		switch {
		case !there:
			l.said[key], l.keys = o, append(l.keys, key)
		case first.Verdict != o.Verdict:
			l.unclear[key] = true
		}
	}
	slices.SortFunc(l.keys, taskKey.compare)
	return l
}

func (l *lateSettlement) run() error {
	// An account that is not there has no tasks, and nothing is kept of it: nobody
	// would ever purge it.
	n, err := count(l.tx, selectAccount, string(l.p.Account))
	if err != nil || n == 0 {
		return err
	}
	plain := slices.DeleteFunc(slices.Clone(l.keys), func(key taskKey) bool { return l.unclear[key] })
	taken, err := l.take(plain)
	if err != nil {
		return err
	}
	crash.At(crash.LateTaken)
	if err := l.settle(taken); err != nil {
		return err
	}
	if err := l.compare(); err != nil {
		return err
	}
	return l.keepStrange()
}

// take takes over the tasks that are still the carrier's.
func (l *lateSettlement) take(keys []taskKey) (taken []claimed, err error) {
	var inserted []taskKey
	got, err := collect(l.tx, func(scan func(...any) error) (c claimed, err error) {
		return c, scan(&c.key.request, &c.key.iccid, &c.lease, &c.attempt)
	}, takeOver, string(l.p.Account), listOf(keys))
	if err != nil {
		return nil, err
	}
	for _, c := range got {
		if c.lease == 0 {
			inserted = append(inserted, c.key)
			continue
		}
		taken = append(taken, c)
	}
	slices.SortFunc(taken, func(a, b claimed) int { return a.key.compare(b.key) })
	return taken, removeInserted(l.tx, l.p.Account, inserted)
}

// listOf is the list of an {each} of requests and ICCIDs.
func listOf(keys []taskKey) list {
	request, iccid := make([]string, len(keys)), make([]string, len(keys))
	for i, key := range keys {
		request[i], iccid[i] = string(key.request), string(key.iccid)
	}
	return list{request, iccid}
}

// settle settles what was taken over, under the lease that this gave.
func (l *lateSettlement) settle(taken []claimed) error {
	if len(taken) == 0 {
		return nil
	}
	devices, requests, err := describe(l.tx, l.p.Account, taken, requestsOf(taken))
	if err != nil {
		return err
	}
	outcomes := make([]license.Outcome, len(taken))
	for i, c := range taken {
		t, said := requests[c.key.request], l.said[c.key]
		t.Device, t.Lease, t.Attempt = devices[c.key.iccid], c.lease, c.attempt
		t.Device.ICCID = c.key.iccid
		outcomes[i] = license.Outcome{Task: t, Verdict: said.Verdict}
		if said.Verdict == license.Refused {
			outcomes[i].Code, outcomes[i].Comment = said.Code, said.Comment
		}
		l.result[c.key] = license.LateSettled
	}
	var settled license.Settled
	st := newSettlement(l.tx, license.SettleParams{Now: l.p.Now}, l.p.Account, outcomes)
	if err := st.run(&settled); err != nil {
		return err
	}
	if settled.Counted != len(taken) { // they are locked
		return fmt.Errorf("of %d tasks taken over %d were settled", len(taken), settled.Counted)
	}
	l.more = settled.More
	return nil
}

const (
	outcomesOf   = `SELECT iccid, outcome FROM task WHERE account = $1 AND request = $2 AND iccid {any $3}`
	selectPurged = `SELECT id, purged FROM request WHERE account = $1 AND id {any $2}`
)

// compare finds what stands in the place of each outcome that settled nothing. The
// tasks are read before the requests are: one that is purged in between has ended.
func (l *lateSettlement) compare() error {
	for _, of := range l.open() {
		if err := l.compareRequest(of.id, of.iccids); err != nil {
			return err
		}
	}
	open := l.open()
	if len(open) == 0 {
		return nil
	}
	ids := make([]license.RequestID, len(open))
	for i, of := range open {
		ids[i] = of.id
	}
	purged := map[license.RequestID]bool{}
	_, err := collect(l.tx, func(scan func(...any) error) (struct{}, error) {
		var id license.RequestID
		var at int64
		err := scan(&id, &at)
		purged[id] = at > 0
		return struct{}{}, err
	}, selectPurged, string(l.p.Account), only(ids))
	for _, of := range open {
		for _, iccid := range of.iccids {
			if purged[of.id] {
				l.result[taskKey{of.id, iccid}] = license.LateEnded
			}
		}
	}
	return err
}

// someOf are SIMs of one request.
type someOf struct {
	id     license.RequestID
	iccids []license.ICCID
}

// open are the keys that have no result, by request. What has none in the end is
// unknown.
func (l *lateSettlement) open() (open []someOf) {
	for _, key := range l.keys {
		if _, known := l.result[key]; known {
			continue
		}
		if len(open) == 0 || open[len(open)-1].id != key.request {
			open = append(open, someOf{id: key.request})
		}
		last := &open[len(open)-1]
		last.iccids = append(last.iccids, key.iccid)
	}
	return open
}

func (l *lateSettlement) compareRequest(id license.RequestID, iccids []license.ICCID) error {
	_, err := collect(l.tx, func(scan func(...any) error) (struct{}, error) {
		key := taskKey{request: id}
		var outcome string
		err := scan(&key.iccid, &outcome)
		l.result[key] = license.LateContradicts
		if !l.unclear[key] && outcome == l.said[key].Verdict.String() {
			l.result[key] = license.LateRepeated
		}
		return struct{}{}, err
	}, outcomesOf, string(l.p.Account), string(id), only(iccids))
	return err
}

// results gives each outcome its result.
func (l *lateSettlement) results() []license.LateResult {
	results := make([]license.LateResult, len(l.p.Outcomes))
	told := map[taskKey]bool{}
	for i, o := range l.p.Outcomes {
		key := lateKey(o)
		results[i] = l.result[key]
		if told[key] && results[i] == license.LateSettled {
			results[i] = license.LateRepeated
		}
		told[key] = true
	}
	return results
}

const keepStrange = `INSERT INTO strange_outcome (account, request, iccid, verdict, result, code, comment, first, last)
	SELECT $1, request, iccid, verdict, result, code, comment, CAST($2 AS BIGINT), CAST($2 AS BIGINT)
	FROM {each $3 request TEXT, iccid TEXT, verdict TEXT, result TEXT, code TEXT, comment TEXT} WHERE true
	ON CONFLICT (account, request, iccid, verdict) DO UPDATE SET times = strange_outcome.times + 1,
		result = excluded.result, code = excluded.code, comment = excluded.comment, last = excluded.last
	RETURNING request`

// keepStrange writes down what an operator should look into.
func (l *lateSettlement) keepStrange() error {
	var request, iccid, verdict, result, code, comment []string
	type word struct {
		taskKey
		license.Verdict
	}
	kept := map[word]bool{}
	strange := slices.DeleteFunc(slices.Clone(l.p.Outcomes), func(o license.LateOutcome) bool {
		r := l.result[lateKey(o)]
		return r == license.LateSettled || r == license.LateRepeated
	})
	slices.SortStableFunc(strange, func(a, b license.LateOutcome) int { return lateKey(a).compare(lateKey(b)) })
	for _, o := range strange {
		if w := (word{lateKey(o), o.Verdict}); !kept[w] {
			kept[w] = true
			request, iccid = append(request, string(o.Request)), append(iccid, string(o.ICCID))
			verdict, result = append(verdict, o.Verdict.String()), append(result, l.result[lateKey(o)].String())
			code, comment = append(code, clean(o.Code, maxCode)), append(comment, clean(o.Comment, maxComment))
		}
	}
	if len(request) == 0 {
		return nil
	}
	_, err := count(l.tx, keepStrange, string(l.p.Account), micros(l.p.Now), list{request, iccid, verdict, result, code, comment})
	return err
}

const (
	selectStrange = `SELECT request, iccid, verdict, result, code, comment, times, first, last
		FROM strange_outcome WHERE account = $1 ORDER BY last, request, iccid, verdict`
	purgeStrange = `DELETE FROM strange_outcome WHERE account = $1 AND last < $2`
)

// StrangeOutcomes lists the late outcomes of an account that settled nothing and
// repeated nothing, the last said last. They are purged after the retention.
func (s *Store) StrangeOutcomes(ctx context.Context, account license.AccountName) ([]license.StrangeOutcome, error) {
	list, err := collect(s.reader(ctx), func(scan func(...any) error) (license.StrangeOutcome, error) {
		o := license.StrangeOutcome{Account: account}
		var verdict, result string
		var first, last int64
		err := scan(&o.Request, &o.ICCID, &verdict, &result, &o.Code, &o.Comment, &o.Times, &first, &last)
		o.First, o.Last = fromMicros(first), fromMicros(last)
		if o.Verdict = license.Refused; verdict == license.Done.String() {
			o.Verdict = license.Done
		}
		if i := slices.IndexFunc(license.LateResults, func(r license.LateResult) bool { return r.String() == result }); i >= 0 {
			o.Result = license.LateResults[i]
		}
		return o, err
	}, selectStrange, string(account))
	return list, s.failed("listing strange outcomes", err)
}

func purgeStrangeOutcomes(tx *tx, account license.AccountName, before time.Time) error {
	_, err := tx.exec(purgeStrange, string(account), micros(before))
	return err
}
