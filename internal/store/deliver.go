package store

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/simlatch/simlatch/internal/license"
)

// The tasks are there: an update by key, as in settleTasks.
const finishTasks = `INSERT INTO task (account, request, iccid, lease, phase, due_at, attempt, status, latency, ended)
	SELECT $1, value ->> 0, value ->> 1, CAST(value ->> 2 AS BIGINT), value ->> 3, CAST(value ->> 4 AS BIGINT),
		CAST(value ->> 5 AS BIGINT), CAST(value ->> 6 AS BIGINT), CAST(value ->> 7 AS BIGINT), CAST(value ->> 8 AS BIGINT)
	FROM {each $2} WHERE true
	ON CONFLICT (account, request, iccid) DO UPDATE SET phase = excluded.phase, due_at = excluded.due_at, leased = 0,
		lease = task.lease + 1, attempt = task.attempt + excluded.attempt, status = excluded.status,
		latency = excluded.latency, ended = excluded.ended
	WHERE task.lease = excluded.lease AND task.phase = 'listener'
	RETURNING request, iccid, lease`

const insertAttempts = `INSERT INTO attempt (account, request, iccid, round, number, time, status, latency, answer)
	SELECT $1, value ->> 0, value ->> 1, CAST(value ->> 2 AS BIGINT), CAST(value ->> 3 AS BIGINT),
		CAST(value ->> 4 AS BIGINT), CAST(value ->> 5 AS BIGINT), CAST(value ->> 6 AS BIGINT), value ->> 7
	FROM {each $2} WHERE true
	ON CONFLICT (account, request, iccid, round, number) DO NOTHING`

// FinishCallbacks writes down how attempts to deliver callbacks ended. Those
// whose lease is no longer the task's own change nothing. It alone counts
// attempts, so that a crash or a lost lease uses none up.
func (s *Store) FinishCallbacks(ctx context.Context, now time.Time, ends []license.Delivery) error {
	if len(ends) == 0 {
		return nil
	}
	byAccount := map[license.AccountName][]license.Delivery{}
	for _, d := range ends {
		byAccount[d.Callback.Account] = append(byAccount[d.Callback.Account], d)
	}
	accounts := slices.Sorted(maps.Keys(byAccount))
	err := s.write(ctx, accounts[0], len(ends), func(tx *tx) error {
		for _, account := range accounts {
			if err := finishAccount(tx, account, now, byAccount[account]); err != nil {
				return err
			}
		}
		return nil
	})
	return s.failed("finishing callbacks", err)
}

func finishAccount(tx *tx, account license.AccountName, now time.Time, ends []license.Delivery) error {
	given := make(map[taskKey]license.Delivery, len(ends))
	for _, d := range ends {
		key := taskKey{d.Callback.Request, d.Callback.Device.ICCID}
		if d.Callback.Lease >= given[key].Callback.Lease {
			given[key] = d
		}
	}
	list := make(rows, 0, len(given))
	for _, key := range sortedKeys(given) {
		list = append(list, finishLine(given[key], now))
	}
	param, err := list.param()
	if err != nil {
		return err
	}
	var inserted []taskKey
	won, err := collect(tx, func(scan func(...any) error) (key taskKey, err error) {
		var lease int64
		err = scan(&key.request, &key.iccid, &lease)
		if c := given[key].Callback; err == nil && lease != c.Lease+1 {
			inserted = append(inserted, key)
		}
		return key, err
	}, finishTasks, string(account), param)
	if err != nil {
		return err
	}
	if err := removeInserted(tx, account, inserted); err != nil {
		return err
	}
	won = slices.DeleteFunc(won, func(key taskKey) bool { return slices.Contains(inserted, key) })
	return insertFailures(tx, account, won, given)
}

// finishLine is the row of finishTasks for one end.
func finishLine(d license.Delivery, now time.Time) []any {
	line := []any{
		d.Callback.Request, d.Callback.Device.ICCID, d.Callback.Lease, license.PhaseEnded, nil, 1,
		d.Status, d.Latency.Microseconds(), micros(now),
	}
	switch d.Verdict {
	case license.Again:
		line[3], line[4], line[8] = license.PhaseListener, micros(d.Due), 0
	case license.Unsent:
		line[5] = 0
	case license.Delivered, license.Exhausted:
	}
	return line
}

// insertFailures keeps the attempts that failed, of the tasks that were won.
func insertFailures(tx *tx, account license.AccountName, won []taskKey, given map[taskKey]license.Delivery) error {
	var attempts rows
	for _, key := range won {
		if d := given[key]; d.Verdict == license.Again || d.Verdict == license.Exhausted {
			attempts = append(attempts, []any{
				key.request, key.iccid, d.Callback.Round, d.Callback.Attempt + 1,
				micros(d.At), d.Status, d.Latency.Microseconds(), clean(string(d.Answer), maxAnswer),
			})
		}
	}
	if len(attempts) == 0 {
		return nil
	}
	param, err := attempts.param()
	if err != nil {
		return err
	}
	_, err = tx.exec(insertAttempts, string(account), param)
	return err
}

// How many bytes are kept of what others say.
const (
	maxAnswer  = 256  // a listener's answer
	maxCode    = 128  // a carrier's code
	maxComment = 1024 // a carrier's words
)

// clean is the beginning of a text in a form that both engines keep: valid
// UTF-8 and no NUL, which PostgreSQL refuses.
func clean(text string, most int) string {
	if len(text) > most {
		text = text[:most]
		for n := 0; n < utf8.UTFMax-1 && len(text) > 0; n++ { // a rune cut at the end
			if r, size := utf8.DecodeLastRuneInString(text); r != utf8.RuneError || size != 1 {
				break
			}
			text = text[:len(text)-1]
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
