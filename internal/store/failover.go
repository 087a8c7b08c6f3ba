package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// This file is how the store lives through the loss of PostgreSQL's primary:
// it stands between database/sql and pgx, gives every call a deadline of its
// own, and says of a commit that it succeeded only when it did.

// Time limits. A server whose process is frozen keeps its connections open and
// its kernel acknowledges what arrives, so only a deadline ends a call.
const (
	// connectTimeout bounds connecting to one of the servers in the URL.
	connectTimeout = 3 * time.Second
	// pingTimeout bounds the look at a connection that was idle.
	pingTimeout = 2 * time.Second
	// callTimeout bounds the wait for one statement or commit. It leaves room in
	// the 30 s that a call of the API may take.
	callTimeout = 10 * time.Second
	// statementTimeout is the server's own limit, below callTimeout: one slow
	// statement then ends with the server's word and not with the connection.
	statementTimeout = 9 * time.Second
	// idleTimeout ends a transaction whose node has stopped in the midst of it:
	// it holds rows that others wait for.
	idleTimeout = time.Minute
	// slowTimeout bounds a statement of what may take long: verifying,
	// importing, migrating.
	slowTimeout = time.Hour
	// repeatFor is how long a write is repeated before its caller is told.
	repeatFor = 5 * time.Second
)

// slowConns is how many connections there are for what may take long.
const slowConns = 4

var (
	// errSilent says that the server did not answer in time. What it did is
	// unknown.
	errSilent = errors.New("the database did not answer in time")
	// errUnknown says that a commit was answered with a warning. PostgreSQL 15
	// sends "canceling wait for synchronous replication due to user request"
	// (01000) and then COMMIT, though the standby may not have it.
	errUnknown = errors.New("committed, but perhaps not on the standby")
	errCancel  = errors.New("this store cancels nothing")
)

// connecting marks the contexts in which pgx may dial.
type connecting struct{}

// postgresConfig reads a URL, which may name several servers, and adds what
// keeps a store from waiting for a dead one and from writing to a standby.
func postgresConfig(rawURL string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(rawURL)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.ValidateConnect == nil { // the URL does not say target_session_attrs
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	config.DialFunc = dial
	config.OnNotice = keepWarning
	for name, value := range map[string]string{
		"application_name": "simlatch",
		// Rows are then met, and locked, in the order of the index.
		"enable_bitmapscan": "off",
		// So that the server lets go of what a vanished node held.
		"tcp_user_timeout": milliseconds(callTimeout), "tcp_keepalives_idle": "10",
		"tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
	} {
		if config.RuntimeParams[name] == "" {
			config.RuntimeParams[name] = value
		}
	}
	return config, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// openConns opens a pool of connections whose statements are bounded by limit.
// With bounded, the server knows a limit too. Pools of one server share an era.
func openConns(config *pgx.ConnConfig, conns int, limit time.Duration, bounded bool, era *atomic.Uint64) *sql.DB {
	config = config.Copy()
	if bounded {
		for name, value := range map[string]string{
			"statement_timeout":                   milliseconds(statementTimeout),
			"idle_in_transaction_session_timeout": milliseconds(idleTimeout),
			// Every short statement has an index and one right plan, which no
			// statistics, stale or missing, should talk the planner out of, nor make
			// it think of anew.
			"enable_seqscan": "off", "plan_cache_mode": "force_generic_plan",
			// A plan that scans all the same, of a table of few rows, is then thought so
			// dear that it would be compiled: 15 ms of a processor for two rows.
			"jit": "off",
			// What costs is rows that are read. Of a few, all of an account would else be
			// thought cheaper to read than some by their keys.
			"cpu_tuple_cost": "10", "max_parallel_workers_per_gather": "0",
		} {
			if config.RuntimeParams[name] == "" {
				config.RuntimeParams[name] = value
			}
		}
	}
	db := sql.OpenDB(&connector{Connector: stdlib.GetConnector(*config), limit: limit, era: era})
	db.SetMaxOpenConns(conns)
	return db
}

// dial connects to a server, and only that: pgx also dials to cancel what runs
// on a connection it gives up. A commit that waits for its synchronous standby
// and is cancelled counts as done without it, so nothing is ever cancelled;
// statements end by statement_timeout.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	if ctx.Value(connecting{}) == nil {
		return nil, errCancel
	}
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
		Control:         setUserTimeout,
	}
	return d.DialContext(ctx, network, address)
}

// A connector makes the connections of one pool.
type connector struct {
	driver.Connector

	limit time.Duration // of each call
	// era rises when a connection is found dead. All made before are suspect
	// then, and not used again: they lead to the same server.
	era *atomic.Uint64
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	era := c.era.Load()
	inner, err := c.Connector.Connect(context.WithValue(ctx, connecting{}, true))
	if err != nil && ctx.Err() == nil && timedOut(err) {
		err = fmt.Errorf("%w: %v", errSilent, err) //nolint:errorlint // it is not the caller whose time is over
	}
	if err != nil {
		return nil, err
	}
	//nolint:forcetypeassert // it makes no other
	return &conn{Conn: inner.(*stdlib.Conn), from: c, era: era, plans: plans{made: time.Now()}}, nil
}

// A conn is a connection each of whose calls ends in time.
type conn struct {
	*stdlib.Conn

	from  *connector
	era   uint64
	begin string // the transaction that is promised and not begun
	plans plans
}

// plans is how old a connection's plans are. Each is made once, for tables as large
// as they are then: while an account has a few rows, all of them are cheaper to read
// than some by their keys, and a plan that does is kept while it gets a million.
type plans struct {
	uses, madeAt int // how often the connection was taken, in all and when they were made
	made         time.Time
}

// plansLast is how long plans are kept that were made for tables which may have
// grown since, whatever happens.
const plansLast = time.Minute

// old reports whether plans are to be made anew: that is when the connection was
// taken as often again as before, and after a while.
func (p *plans) old() bool {
	if p.uses++; p.uses < 2*p.madeAt && time.Since(p.made) < plansLast {
		return false
	}
	p.madeAt, p.made = p.uses, time.Now()
	return true
}

// judge says what err means: whether the server kept silent too long in ctx,
// though the caller's still lives, and whether the connection is dead.
func (c *conn) judge(caller, ctx context.Context, err error) error {
	if err == nil || caller.Err() != nil {
		return err
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %v", errSilent, err) //nolint:errorlint // it is not the caller whose time is over
	}
	if disconnected(err) {
		c.from.era.CompareAndSwap(c.era, c.era+1)
	}
	return err
}

// ResetSession looks at a connection before it is used again, and has plans made anew
// that are old.
func (c *conn) ResetSession(caller context.Context) error {
	if c.era != c.from.era.Load() {
		return driver.ErrBadConn
	}
	ctx, cancel := context.WithTimeout(caller, pingTimeout)
	defer cancel()
	if err := c.Conn.ResetSession(ctx); err != nil {
		_ = c.judge(caller, ctx, err)
		return driver.ErrBadConn // database/sql heeds no other
	}
	if c.plans.old() {
		if _, err := c.Conn.Conn().Exec(ctx, "discard plans", pgx.QueryExecModeSimpleProtocol); err != nil {
			_ = c.judge(caller, ctx, err)
			return driver.ErrBadConn
		}
	}
	return nil
}

func (c *conn) ExecContext(caller context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	ctx, cancel := context.WithTimeout(caller, c.from.limit)
	defer cancel()
	if err := c.open(ctx); err != nil {
		return nil, c.judge(caller, ctx, err)
	}
	result, err := c.Conn.ExecContext(ctx, text, args)
	return result, c.judge(caller, ctx, err)
}

func (c *conn) QueryContext(caller context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	ctx, cancel := context.WithTimeout(caller, c.from.limit)
	var inner driver.Rows
	err := c.open(ctx)
	if err == nil {
		inner, err = c.Conn.QueryContext(ctx, text, args)
	}
	if err != nil {
		err = c.judge(caller, ctx, err)
		cancel()
		return nil, err
	}
	return &answer{Rows: inner, conn: c, caller: caller, ctx: ctx, cancel: cancel}, nil
}

// together sends what is queued, and has the answers read.
func (c *conn) together(caller context.Context, queue func(*pgx.Batch), read func(pgx.BatchResults) error) error {
	ctx, cancel := context.WithTimeout(caller, c.from.limit)
	defer cancel()
	batch, begun := &pgx.Batch{}, c.begin == ""
	if !begun {
		batch.Queue(c.begin)
		c.begin = ""
	}
	queue(batch)
	results := c.Conn.Conn().SendBatch(ctx, batch)
	var err error
	if !begun {
		_, err = results.Exec()
	}
	if err == nil {
		err = read(results)
	}
	// What follows a failure fails as well.
	if closing := results.Close(); err == nil {
		err = closing
	}
	return c.judge(caller, ctx, err)
}

// An answer is the rows of a query, within its time.
type answer struct {
	driver.Rows

	conn        *conn
	caller, ctx context.Context
	cancel      context.CancelFunc
}

func (a *answer) Next(dest []driver.Value) error {
	err := a.Rows.Next(dest)
	if err == nil || errors.Is(err, io.EOF) {
		return err //nolint:wrapcheck // database/sql wants io.EOF itself
	}
	return a.conn.judge(a.caller, a.ctx, err)
}

func (a *answer) Close() error {
	defer a.cancel()
	return a.conn.judge(a.caller, a.ctx, a.Rows.Close())
}

func (c *conn) BeginTx(caller context.Context, o driver.TxOptions) (driver.Tx, error) {
	if c.Conn.Conn().IsClosed() {
		return nil, driver.ErrBadConn
	}
	c.begin = "begin"
	if o.ReadOnly {
		c.begin = "begin isolation level repeatable read read only"
	}
	return &transaction{conn: c, caller: caller}, nil
}

// open begins the transaction that BeginTx promised, before its first statement.
// together sends the two at once.
func (c *conn) open(ctx context.Context) error {
	if c.begin == "" {
		return nil
	}
	begin := c.begin
	c.begin = ""
	_, err := c.Conn.Conn().Exec(ctx, begin)
	return err
}

// A transaction is as database/sql ends it.
type transaction struct {
	conn   *conn
	caller context.Context
}

// end commits or rolls back, unless nothing was begun. A connection that fails to
// is of no more use.
func (t *transaction) end(ctx context.Context, how string) error {
	if t.conn.begin != "" {
		t.conn.begin = ""
		return nil
	}
	c := t.conn.Conn.Conn()
	tag, err := c.Exec(ctx, how)
	if err != nil {
		_ = c.Close(ctx) // err says what went wrong
		return err
	}
	if how == "commit" && tag.String() == "ROLLBACK" {
		return pgx.ErrTxCommitRollback
	}
	return nil
}

// Commit waits as long as the caller's time limit allows, even when the caller
// has gone meanwhile: an answer is worth more than none.
func (t *transaction) Commit() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.caller), t.conn.from.limit)
	defer cancel()
	if until, ok := t.caller.Deadline(); ok {
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	said := t.conn.Conn.Conn().PgConn().CustomData()
	delete(said, warningKey)
	err := t.end(ctx, "commit")
	if warning, ok := said[warningKey].(string); ok && err == nil {
		return fmt.Errorf("%w: %s", errUnknown, warning)
	}
	return t.conn.judge(t.caller, ctx, err)
}

func (t *transaction) Rollback() error {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	return t.end(ctx, "rollback")
}

// warningKey is where a connection keeps the last warning it was sent.
const warningKey = "simlatch warning"

// keepWarning remembers the warnings of class 01 for Commit.
func keepWarning(c *pgconn.PgConn, n *pgconn.Notice) {
	if strings.HasPrefix(n.Code, "01") {
		c.CustomData()[warningKey] = n.Message + " (" + n.Code + ")"
	}
}

// confirm makes the transaction's commit wait for every commit before it, even
// if it changes nothing else. What a repeated write finds done may be committed
// on the primary and not on its standby; a commit that wrote nothing would not
// wait for it, and say more than is known.
func (t *tx) confirm() error {
	if t.dialect.confirm == "" {
		return nil
	}
	_, err := t.exec(t.dialect.confirm)
	return err
}

// tired reports whether a write has been repeated for long enough.
func (s *Store) tired(begun time.Time) bool {
	return s.group == nil && time.Since(begun) > repeatFor
}
