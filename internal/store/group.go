package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

const levelRetry = slog.LevelDebug

func errAttr(err error) slog.Attr { return slog.Any("error", err) }

var (
	errClosed = errors.New("the store is closed")
	// errBegin is nobody's fault in the group: another process is writing, or
	// the disk is gone.
	errBegin = errors.New("beginning a transaction")
)

// A group is the one writer of a SQLite database. It takes the calls that have
// queued up, in turns between accounts, into one transaction with a savepoint
// for each, so that one sync of the disk pays for all.
type group struct {
	s    *Store
	db   *sql.DB
	conn *sql.Conn
	// checkpointer is nil for a database in memory, which has no log.
	checkpointer *checkpointer

	stmts  map[string]*sql.Stmt // owned by run
	done   chan struct{}        // closed when run has returned
	wake   chan struct{}
	mu     sync.Mutex // guards what follows
	queue  queue
	closed bool
}

// A call is one transaction that somebody waits for.
type call struct {
	ctx     context.Context // of whoever waits; never used for a statement
	account license.AccountName
	weight  int
	most    int       // of its weight, what is the account's
	held    time.Time // since when it is held, if it has the turn and is
	fn      func(*tx) error
	err     error
	done    chan struct{}
}

func newGroup(s *Store, db *sql.DB, conn *sql.Conn, c *checkpointer) *group {
	g := &group{
		s: s, db: db, conn: conn, stmts: map[string]*sql.Stmt{}, done: make(chan struct{}),
		wake: make(chan struct{}, 1), queue: newQueue(), checkpointer: c,
	}
	go g.run()
	return g
}

// do has fn run and committed. A caller whose context ends before its turn gets
// that context's error and nothing is done; after that the work is finished and
// its result returned, whatever the context says.
// Of its weight most is the account's.
func (g *group) do(ctx context.Context, account license.AccountName, most, weight int, fn func(*tx) error) error {
	if most <= littleMost {
		g.s.littles.begin(account)
		defer g.s.littles.end(account)
	}
	c := &call{ctx: ctx, account: account, most: most, weight: weight, fn: fn, done: make(chan struct{})}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed
	}
	g.queue.add(c)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	if g.withdraw(c) {
		return ctx.Err()
	}
	<-c.done
	return c.err
}

// withdraw takes a call back, unless its turn has come.
func (g *group) withdraw(c *call) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queue.remove(c)
}

// take takes the next calls out of the queue: little ones, light ones, one of each
// account in turn, as long as they fit into one transaction, or a heavy one. With
// none, it says when to come back, if nobody wakes the writer before; 0 is never.
func (g *group) take() (calls []*call, again time.Duration, closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if calls = g.queue.takeLittles(); len(calls) > 0 {
		return calls, 0, g.closed
	}
	if heavy := g.queue.heavyTurn(); heavy != nil {
		again = g.hold(heavy)
		if again == 0 {
			return []*call{g.queue.takeHeavy()}, 0, g.closed
		}
	}
	weight, most := 0, maxGroup
	if c := g.queue.light.first(); c != nil && c.most > littleMost {
		if lately, _, _ := g.s.littles.beside(c.account); lately {
			most = maxGroup / 2 // they come while it runs
		}
	}
	for c := g.queue.light.first(); c != nil && (len(calls) == 0 || weight+c.weight <= most); c = g.queue.light.first() {
		weight += c.weight
		calls = append(calls, g.queue.takeLight())
	}
	return calls, again, g.closed
}

// hold is how long to wait with a heavy call whose turn it is, for the little ones
// of others that must follow promptly.
func (g *group) hold(heavy *call) time.Duration {
	if _, now, _ := g.s.littles.beside(heavy.account); !now {
		return 0
	}
	if heavy.held.IsZero() {
		heavy.held = time.Now()
	}
	return max(0, min(promptly/4, holdMost-time.Since(heavy.held)))
}

// run commits groups until the store is closed.
func (g *group) run() {
	defer close(g.done)
	for {
		calls, again, closed := g.take()
		if len(calls) == 0 {
			if closed {
				return
			}
			g.wait(again)
			continue
		}
		g.commit(calls)
		if g.checkpointer != nil {
			g.checkpointer.committed()
		}
	}
}

// wait waits to be woken, or for the time to come back; 0 is never.
func (g *group) wait(again time.Duration) {
	if again == 0 {
		<-g.wake
		return
	}
	timer := time.NewTimer(again)
	defer timer.Stop()
	select {
	case <-g.wake:
	case <-timer.C:
	}
}

// commit runs the calls in one transaction. When something other than a call's
// own refusal ended it, nothing of it stands and each call is run again alone,
// so that only those hear of an error that meet it.
func (g *group) commit(calls []*call) {
	live := calls[:0]
	for _, c := range calls {
		if err := c.ctx.Err(); err != nil {
			c.finish(err)
			continue
		}
		live = append(live, c)
	}
	if len(live) == 0 {
		return
	}
	err := g.transact(live)
	switch {
	case err == nil:
		g.s.metrics.group.Observe(float64(len(live)))
		for _, c := range live {
			c.finish(c.err)
		}
	case len(live) == 1 || errors.Is(err, errBegin):
		for _, c := range live {
			c.finish(err)
		}
	default:
		g.s.log.Warn("a group of writes is run one by one", "writes", len(live), "error", err)
		for _, c := range live {
			g.commit([]*call{c})
		}
	}
}

func (c *call) finish(err error) {
	c.err = err
	close(c.done)
}

// transact runs the calls in one transaction and commits it. Each call's own
// error is left in the call; the one returned means that nothing stands.
func (g *group) transact(calls []*call) (err error) {
	t := &tx{ctx: context.Background(), dialect: g.s.dialect, run: g.exec, rows: g.query}
	if _, err := t.exec(`BEGIN IMMEDIATE`); err != nil {
		return errors.Join(errBegin, err)
	}
	defer func() {
		if err != nil {
			_, _ = g.exec(`ROLLBACK`, nil) // fails where SQLite has rolled back by itself
		}
	}()
	crash.At(crash.TxBegun)
	stands := false
	for _, c := range calls {
		if c.err, err = g.savepoint(t, c.fn); err != nil {
			return err
		}
		stands = stands || c.err == nil
	}
	if !stands {
		_, err := t.exec(`ROLLBACK`)
		return err
	}
	crash.At(crash.TxCommitting)
	if _, err := t.exec(`COMMIT`); err != nil {
		return fmt.Errorf("committing: %w", err)
	}
	crash.At(crash.TxCommitted)
	return nil
}

// savepoint runs fn so that what it did can be taken back by itself: refused is
// its own error, err one that ended the transaction.
func (g *group) savepoint(t *tx, fn func(*tx) error) (refused, err error) {
	if _, err := t.exec(`SAVEPOINT call`); err != nil {
		return nil, err
	}
	refused = runCall(t, fn)
	if t.broken != nil {
		if !errors.Is(refused, t.broken) {
			refused = errors.Join(t.broken, refused)
		}
		return nil, refused
	}
	if refused != nil {
		if _, err := t.exec(`ROLLBACK TO call`); err != nil {
			return nil, err
		}
	}
	_, err = t.exec(`RELEASE call`)
	return refused, err
}

// runCall turns a panic into the call's error: a bug in one must not stop the
// writing of all.
func runCall(t *tx, fn func(*tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a write panicked: %v", p)
		}
	}()
	return fn(t)
}

func (g *group) exec(text string, args []any) (sql.Result, error) {
	stmt, err := g.prepare(text) //nolint:sqlclosecheck // kept for the next time, until the group closes
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(context.Background(), args...)
}

func (g *group) query(text string, args []any) (*sql.Rows, error) {
	stmt, err := g.prepare(text) //nolint:sqlclosecheck // kept for the next time, until the group closes
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(context.Background(), args...)
}

func (g *group) prepare(text string) (*sql.Stmt, error) {
	if stmt, ok := g.stmts[text]; ok {
		return stmt, nil
	}
	stmt, err := g.conn.PrepareContext(context.Background(), g.s.texts.get(text))
	if err == nil {
		g.stmts[text] = stmt
	}
	return stmt, err
}

// close ends the writer after the group it is in; the calls still queued fail.
func (g *group) close() error {
	g.mu.Lock()
	g.closed = true
	for c := g.queue.takeTurn(); c != nil; c = g.queue.takeTurn() {
		c.finish(errClosed)
	}
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	<-g.done
	var errs []error
	if g.checkpointer != nil {
		errs = append(errs, g.checkpointer.close())
	}
	for _, stmt := range g.stmts {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, g.conn.Close(), g.db.Close())...)
}
