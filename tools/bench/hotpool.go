package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// hotClients is how many clients work on the one pool.
const hotClients = 16

// hotPool measures one-device requests on one pool until each license is
// posted, against hand-written SQL on the same PostgreSQL server.
func (b *bench) hotPool(ctx context.Context) ([]row, error) {
	n := b.o.sizes.hot
	s, err := b.newSite(ctx, siteOptions{engine: postgres, sims: []int{n * (b.o.sizes.runs + 1)}})
	if err != nil {
		return nil, err
	}
	hand, err := b.newHandWritten(ctx, n*(b.o.sizes.runs+1))
	if err != nil {
		return nil, err
	}
	ours := contender{"simlatch", "devices/s", func(ctx context.Context) (float64, error) {
		w, err := s.take(0, n, 1)
		if err != nil {
			return 0, err
		}
		defer b.startProfile(s)()
		start := time.Now()
		if _, _, err := closedLoop(ctx, s.url, hotClients, w.requests); err != nil {
			return 0, err
		}
		// Both phases count, as they do for the reference.
		if err := s.assigned(ctx); err != nil {
			return 0, err
		}
		return float64(n) / time.Since(start).Seconds(), nil
	}}
	reference := contender{"two-phase SQL", "devices/s", func(ctx context.Context) (float64, error) { return hand.round(ctx, n) }}
	values, err := b.rounds(ctx, reference, ours)
	if err = errors.Join(err, hand.close(ctx), s.close(ctx)); err != nil {
		return nil, err
	}
	work := fmt.Sprintf("one hot pool, one device a request, %d clients, %s", hotClients, postgres)
	return []row{newRow(work, "devices/s", "hand-written two-phase SQL", values[1], values[0]).wanted(3, 10)}, nil
}

// handWritten is what one would write by hand to count licenses in two phases:
// reserve in one transaction, post in another. The pool comes last in both, to
// be locked for as short as can be.
type handWritten struct {
	b        *bench
	database string
	db       *sql.DB
	next     atomic.Int64
}

// The schema and the statements of handWritten.
const (
	handSchema = `CREATE TABLE pool (sku text PRIMARY KEY, purchased bigint NOT NULL, reserved bigint NOT NULL DEFAULT 0,
	assigned bigint NOT NULL DEFAULT 0, CHECK (reserved >= 0 AND assigned >= 0 AND reserved + assigned <= purchased)) WITH (fillfactor = 50);
CREATE TABLE sim (iccid bigint PRIMARY KEY, sku text NOT NULL DEFAULT '') WITH (fillfactor = 75);
CREATE TABLE request (id bigint PRIMARY KEY, iccid bigint NOT NULL, state text NOT NULL) WITH (fillfactor = 75);
INSERT INTO pool (sku, purchased) VALUES ('SIMSec-IoT', 1000000000);
INSERT INTO sim (iccid) SELECT generate_series(1, %d)`
	handRequest = `INSERT INTO request (id, iccid, state) VALUES ($1, $1, 'reserved')`
	handSIM     = `UPDATE sim SET sku = 'SIMSec-IoT' WHERE iccid = $1 AND sku = ''`
	handReserve = `UPDATE pool SET reserved = reserved + 1 WHERE sku = 'SIMSec-IoT' AND reserved + assigned < purchased`
	handDone    = `UPDATE request SET state = 'posted' WHERE id = $1 AND state = 'reserved'`
	handPost    = `UPDATE pool SET reserved = reserved - 1, assigned = assigned + 1 WHERE sku = 'SIMSec-IoT'`
	handVerify  = `SELECT reserved, assigned, (SELECT count(*) FROM sim WHERE sku <> ''), (SELECT count(*) FROM request WHERE state = 'posted') FROM pool`
)

func (b *bench) newHandWritten(ctx context.Context, sims int) (*handWritten, error) {
	database, err := b.database(ctx, postgres)
	if err != nil {
		return nil, err
	}
	h := &handWritten{b: b, database: database}
	if h.db, err = sql.Open("pgx", database); err != nil {
		return nil, err
	}
	h.db.SetMaxIdleConns(hotClients)
	for _, text := range []string{fmt.Sprintf(handSchema, sims), "VACUUM ANALYZE"} {
		if _, err := h.db.ExecContext(ctx, text); err != nil {
			return nil, fmt.Errorf("making the reference's tables: %w", err)
		}
	}
	return h, nil
}

// round reserves and posts n licenses from as many clients as the server gets.
func (h *handWritten) round(ctx context.Context, n int) (float64, error) {
	last := h.next.Load() + int64(n)
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	errs := make(chan error, hotClients)
	start := time.Now()
	for range hotClients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				id := h.next.Add(1)
				err := h.transaction(ctx, id, handRequest, handSIM, handReserve)
				if err == nil {
					err = h.transaction(ctx, id, handDone, handPost)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	var reserved, assigned, held, posted int64
	if err := h.db.QueryRowContext(ctx, handVerify).Scan(&reserved, &assigned, &held, &posted); err != nil {
		return 0, err
	}
	if reserved != 0 || assigned != last || held != last || posted != last {
		return 0, fmt.Errorf("the reference's ledger is wrong: %d reserved, %d assigned, %d held, %d posted, want %d", reserved, assigned, held, posted, last)
	}
	return float64(n) / took.Seconds(), nil
}

// transaction runs statements about one SIM, each of which must change a row.
func (h *handWritten) transaction(ctx context.Context, id int64, statements ...string) error {
	tx, err := h.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // without effect after the commit
	for _, text := range statements {
		args := []any{id}
		if text == handReserve || text == handPost {
			args = nil
		}
		result, err := tx.ExecContext(ctx, text, args...)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return fmt.Errorf("%s: changed %d rows, %w", text, n, err)
		}
	}
	return tx.Commit()
}

func (h *handWritten) close(ctx context.Context) error {
	return errors.Join(h.db.Close(), h.b.dropDatabase(ctx, h.database))
}
