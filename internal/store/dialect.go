package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// A dialect is what differs between the engines: every statement is written
// once, with these tokens where it must be.
//
// A list, which is always the last parameter, is never joined. Rows are looked up
// by {any}, which an index serves key by key, or written by INSERT … ON CONFLICT
// from {each}, which finds each by its key; neither leaves a planner without
// statistics a choice to get wrong. Joined, 500 tasks of 10,000 took 60 times as
// long on SQLite and on PostgreSQL.
type dialect struct {
	name string
	// list is {each $n name TYPE, …}, the rows of a list by these names, and
	// {any $n}, "is one of the values of a list".
	list func(kind string, n int, columns [][]string) string
	// nth is {nth $n index}, one number of a list of one column, counted from 1.
	nth func(n, index string) string
	// give makes a list the last arguments of a statement, until it is released.
	give          func(l list) (args []any, release func())
	skip          string // {skip}: pass over rows that another node has locked
	wait          string // {wait}: lock the rows, after an ORDER BY
	clustered     string // {clustered}: an account's rows lie together
	hot           string // {hot}: leave room in each page for a new version of each row
	slowReturning bool   // RETURNING costs much
	accepting     int    // how many transactions accept small requests of one account at once
	confirm       string // a statement that makes the commit wait for all before it, where commits can be waited for
	// retry reports whether a write that failed so is worth repeating: it lost
	// a race, or its outcome is unknown. Every write can be repeated.
	retry func(error) bool
	// constraint reports whether a statement was refused by the schema, which
	// leaves the transaction as it was.
	constraint func(error) bool
	// outage reports whether err says that the database cannot be had now.
	outage func(error) bool
	// readOnly reports whether err says that nothing can be written, though what is
	// there may be read.
	readOnly func(error) bool
}

var sqliteDialect = dialect{
	name:          "sqlite",
	list:          virtual,
	nth:           lookedUp,
	give:          lend,
	clustered:     "WITHOUT ROWID",
	slowReturning: true,
	accepting:     1, // there is one writer
	retry:         func(err error) bool { return sqliteCode(err)&0xff == sqlite3.SQLITE_BUSY },
	constraint:    func(err error) bool { return sqliteCode(err)&0xff == sqlite3.SQLITE_CONSTRAINT },
	outage: func(err error) bool {
		switch sqliteCode(err) & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
			sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM:
			return true
		}
		return errors.Is(err, driver.ErrBadConn)
	},
	// A file system that has become read-only shows as IOERR on files that are open.
	readOnly: func(err error) bool {
		switch sqliteCode(err) & 0xff {
		case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
			return true
		}
		return false
	},
}

func sqliteCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

var postgresDialect = dialect{
	name:      "postgres",
	list:      arrays,
	nth:       elementOf,
	give:      spread,
	skip:      "FOR UPDATE SKIP LOCKED",
	wait:      "FOR UPDATE",
	hot:       "WITH (fillfactor = 50)",
	accepting: 2,
	// A few bytes for the log that nobody reads.
	confirm: "SELECT pg_logical_emit_message(true, 'simlatch', 'confirm')",
	retry: func(err error) bool {
		switch code := postgresCode(err); code {
		case "40001", "40P01": // serialization failure, deadlock
			return true
		default:
			return disconnected(err)
		}
	},
	constraint: func(err error) bool { return strings.HasPrefix(postgresCode(err), "23") },
	outage: func(err error) bool {
		switch code := postgresCode(err); {
		case strings.HasPrefix(code, "08"), // connection exceptions
			strings.HasPrefix(code, "53"),  // out of connections, disk, memory
			strings.HasPrefix(code, "57P"), // shutting down, starting up
			code == "57014",                // cancelled: took too long
			code == "55P03":                // lock not available
			return true
		}
		return disconnected(err)
	},
	readOnly: func(err error) bool {
		code := postgresCode(err)
		return code == "25006" || code == "53100" // a standby or set so, disk full
	},
}

func postgresCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// disconnected reports whether the connection broke or leads to a server that
// serves us no more, so that what the last statement did is unknown.
func disconnected(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	switch postgresCode(err) {
	case "57P01", "57P02", "57P03", // shutting down, crashed, starting up
		"25006": // read only: a standby, or a primary no more
		return true
	}
	return errors.Is(err, errSilent) || errors.Is(err, errUnknown) || errors.As(err, &connect) || errors.As(err, &network) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) ||
		(err != nil && strings.Contains(err.Error(), "conn closed"))
}

// timedOut reports whether the caller's own patience ended.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

var otherToken = regexp.MustCompile(`\{(skip|wait|clustered|hot)\}`)

// replace puts the engine's words in the place of the tokens.
func (d *dialect) replace(text string) string {
	text = listToken.ReplaceAllStringFunc(text, func(token string) string {
		m := listToken.FindStringSubmatch(token)
		n, _ := strconv.Atoi(m[2]) // it is digits
		return d.list(m[1], n, columnDef.FindAllStringSubmatch(m[3], -1))
	})
	text = nthToken.ReplaceAllStringFunc(text, func(token string) string {
		m := nthToken.FindStringSubmatch(token)
		return d.nth(m[1], m[2])
	})
	return otherToken.ReplaceAllStringFunc(text, func(token string) string {
		switch token {
		case "{skip}":
			return d.skip
		case "{wait}":
			return d.wait
		case "{clustered}":
			return d.clustered
		default:
			return d.hot
		}
	})
}

// bind makes arguments of what a statement is given: a list at its end is lent
// until it is released.
func (d *dialect) bind(args []any) (bound []any, release func()) {
	if len(args) > 0 {
		if l, ok := args[len(args)-1].(list); ok {
			given, release := d.give(l)
			return append(args[:len(args)-1:len(args)-1], given...), release
		}
	}
	return args, func() {}
}

// texts remembers the replaced form of each statement. There are only as many
// as there are constants.
type texts struct {
	dialect *dialect
	done    sync.Map // string to string
}

func (t *texts) get(text string) string {
	if done, ok := t.done.Load(text); ok {
		return done.(string)
	}
	done := t.dialect.replace(text)
	t.done.Store(text, done)
	return done
}
