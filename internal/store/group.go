package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

const levelRetry = slog.LevelDebug

func errAttr(err error) slog.Attr { return slog.Any("error", err) }

// maxGroup bounds the rows that one transaction of a group writes. A call that
// writes more goes alone.
const maxGroup = 1000

// heavyShare is how many times more a heavy call writes than may pass it while it
// waits: enough for callbacks to flow, and little beside its own time.
const heavyShare = 8

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
	light  lines
	heavy  lines // calls that go alone
	passed int   // what light calls wrote while a heavy one waited
	closed bool
}

// lines are calls that wait, a line for each account.
type lines struct {
	of    map[license.AccountName][]*call
	turns []license.AccountName // those with calls, in the order of their turns
}

// A call is one transaction that somebody waits for.
type call struct {
	ctx    context.Context // of whoever waits; never used for a statement
	weight int
	fn     func(*tx) error
	err    error
	done   chan struct{}
}

func newGroup(s *Store, db *sql.DB, conn *sql.Conn, c *checkpointer) *group {
	g := &group{
		s: s, db: db, conn: conn, stmts: map[string]*sql.Stmt{}, done: make(chan struct{}),
		wake: make(chan struct{}, 1), light: newLines(), heavy: newLines(), checkpointer: c,
	}
	go g.run()
	return g
}

// do has fn run and committed. A caller whose context ends before its turn gets
// that context's error and nothing is done; after that the work is finished and
// its result returned, whatever the context says.
func (g *group) do(ctx context.Context, account license.AccountName, weight int, fn func(*tx) error) error {
	c := &call{ctx: ctx, weight: weight, fn: fn, done: make(chan struct{})}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed
	}
	g.linesFor(c).add(account, c)
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
	if g.withdraw(account, c) {
		return ctx.Err()
	}
	<-c.done
	return c.err
}

func newLines() lines { return lines{of: map[license.AccountName][]*call{}} }

// linesFor is where a call waits; mu is held.
func (g *group) linesFor(c *call) *lines {
	if c.weight > maxGroup {
		return &g.heavy
	}
	return &g.light
}

func (l *lines) add(account license.AccountName, c *call) {
	if len(l.of[account]) == 0 {
		l.turns = append(l.turns, account)
	}
	l.of[account] = append(l.of[account], c)
}

// first is the call whose turn it is, or nil.
func (l *lines) first() *call {
	if len(l.turns) == 0 {
		return nil
	}
	return l.of[l.turns[0]][0]
}

// next takes the first call; the account's next turn is after the others'.
func (l *lines) next() *call {
	account := l.turns[0]
	line := l.of[account]
	l.turns = l.turns[1:]
	if len(line) == 1 {
		delete(l.of, account)
	} else {
		l.of[account] = line[1:]
		l.turns = append(l.turns, account)
	}
	return line[0]
}

// remove takes a call out, if it is there.
func (l *lines) remove(account license.AccountName, c *call) bool {
	line := l.of[account]
	i := slices.Index(line, c)
	if i < 0 {
		return false
	}
	if l.of[account] = slices.Concat(line[:i], line[i+1:]); len(line) == 1 {
		// Its turn too, or whoever queues up next would get another.
		delete(l.of, account)
		l.turns = slices.DeleteFunc(l.turns, func(a license.AccountName) bool { return a == account })
	}
	return true
}

// withdraw takes a call back, unless its turn has come.
func (g *group) withdraw(account license.AccountName, c *call) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.linesFor(c).remove(account, c)
}

// take takes the next calls out of the lines: one of each account in turn, as
// long as they fit into one transaction, or a heavy one. While a heavy one waits,
// others may write a share of what it will before it: a client that sends one
// large request after the other does not keep what was accepted from being done.
func (g *group) take() (calls []*call, closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if heavy := g.heavy.first(); heavy != nil && (g.light.first() == nil || g.passed >= heavy.weight/heavyShare) {
		g.passed = 0
		return []*call{g.heavy.next()}, g.closed
	}
	weight := 0
	for c := g.light.first(); c != nil && (len(calls) == 0 || weight+c.weight <= maxGroup); c = g.light.first() {
		weight += c.weight
		calls = append(calls, g.light.next())
	}
	if g.heavy.first() != nil {
		g.passed += weight
	}
	return calls, g.closed
}

// run commits groups until the store is closed.
func (g *group) run() {
	defer close(g.done)
	for {
		calls, closed := g.take()
		if len(calls) == 0 {
			if closed {
				return
			}
			<-g.wake
			continue
		}
		g.commit(calls)
		if g.checkpointer != nil {
			g.checkpointer.committed()
		}
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
	for _, l := range []*lines{&g.light, &g.heavy} {
		for l.first() != nil {
			l.next().finish(errClosed)
		}
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
