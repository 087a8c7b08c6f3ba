package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"modernc.org/sqlite"
	"modernc.org/sqlite/vtab"
)

// A list is rows that a statement is given as a table, column by column: what
// {each}, {any} and {nth} stand for. It is the last parameter of its statement,
// and the only one. A column is a []string or a []int64, and all are of one length.
//
// PostgreSQL gets an array for each column. SQLite has no arrays: it reads the
// columns where they are, through a virtual table. A JSON text, which both could
// take, costs SQLite twice as much and PostgreSQL half as much again for a
// settled task (docs/decisions.md).
type list []any

// strs are the values of a column as the database takes them.
func strs[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

// only is a list of one column, for {any}.
func only[T ~string](values []T) list { return list{strs(values)} }

func (l list) rows() int {
	if len(l) == 0 {
		return 0
	}
	switch column := l[0].(type) {
	case []string:
		return len(column)
	case []int64:
		return len(column)
	}
	return 0
}

// at is one value.
func (l list) at(row, column int) driver.Value {
	if column >= len(l) {
		return nil
	}
	switch column := l[column].(type) {
	case []string:
		return column[row]
	case []int64:
		return column[row]
	}
	return nil
}

// maxColumns is how many columns a list may have.
const maxColumns = 12

var (
	listToken = regexp.MustCompile(`\{(each|any) \$(\d+)((?:\s+\w+ (?:TEXT|BIGINT),?)*)\}`)
	columnDef = regexp.MustCompile(`(\w+) (TEXT|BIGINT)`)
	nthToken  = regexp.MustCompile(`\{nth \$(\d+) ([^}]+)\}`)
)

// arrays are PostgreSQL's words for a list whose first column is parameter n.
func arrays(kind string, n int, columns [][]string) string {
	if kind == "any" {
		return fmt.Sprintf("= ANY (CAST($%d AS TEXT[]))", n)
	}
	var names, values []string
	for i, c := range columns {
		names = append(names, c[1])
		values = append(values, fmt.Sprintf("CAST($%d AS %s[])", n+i, c[2]))
	}
	return fmt.Sprintf("unnest(%s) AS each(%s)", strings.Join(values, ", "), strings.Join(names, ", "))
}

// virtual are SQLite's.
func virtual(kind string, n int, columns [][]string) string {
	if kind == "any" {
		return fmt.Sprintf("IN (SELECT c0 FROM list($%d))", n)
	}
	var values []string
	for i, c := range columns {
		values = append(values, fmt.Sprintf("c%d AS %s", i, c[1]))
	}
	return fmt.Sprintf("(SELECT %s FROM list($%d)) AS each", strings.Join(values, ", "), n)
}

// elementOf is PostgreSQL's word for one number of a list of one column.
func elementOf(n, index string) string {
	return fmt.Sprintf("(CAST($%s AS BIGINT[]))[%s]", n, index)
}

// lookedUp is SQLite's.
func lookedUp(n, index string) string { return fmt.Sprintf("nth($%s, %s)", n, index) }

// spread gives PostgreSQL an array for each column.
func spread(l list) (args []any, release func()) { return l, func() {} }

// lend lets SQLite read a list until it is released.
func lend(l list) (args []any, release func()) {
	handle := lent.last.Add(1)
	lent.lists.Store(handle, l)
	return []any{handle}, func() { lent.lists.Delete(handle) }
}

// lent are the lists that statements are running with, by the number that each
// was given. A number is all that a statement can hand to a virtual table.
var lent struct {
	last  atomic.Int64
	lists sync.Map // int64 to list
}

// sqliteDriver is SQLite with the virtual table. It is one for the process,
// since the driver never forgets one.
var sqliteDriver = sync.OnceValues(func() (*sqlite.Driver, error) {
	d := &sqlite.Driver{}
	return d, errors.Join(d.RegisterModule("list", listModule{}), d.RegisterScalarFunction("nth", 2, nth))
})

// nth is a number of the list that was lent under the first argument, counted
// from 1 as PostgreSQL does; NULL where there is none.
func nth(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
	if l, ok := lent.lists.Load(args[0]); ok {
		column, _ := l.(list)[0].([]int64)
		if i, ok := args[1].(int64); ok && i >= 1 && i <= int64(len(column)) {
			return column[i-1], nil
		}
	}
	return nil, nil
}

// sqliteConnector makes connections with the virtual table.
type sqliteConnector struct {
	driver *sqlite.Driver
	dsn    string
}

func (c sqliteConnector) Driver() driver.Driver { return c.driver }

// Connect opens the database.
func (c sqliteConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	_, err = conn.(driver.ExecerContext).ExecContext(ctx, `CREATE VIRTUAL TABLE temp.list USING list`, nil) //nolint:forcetypeassert // it is one
	if err != nil {
		_ = conn.Close() // err says what went wrong
		return nil, err
	}
	return conn, nil
}

// listModule is the virtual table list(n): the rows of the list that was lent
// under the number n, in its order.
type listModule struct{}

// Create is Connect: nothing is stored.
func (m listModule) Create(c vtab.Context, args []string) (vtab.Table, error) {
	return m.Connect(c, args)
}

// Connect declares the columns c0 and so on, and the number.
func (listModule) Connect(c vtab.Context, _ []string) (vtab.Table, error) {
	var columns strings.Builder
	for i := range maxColumns {
		fmt.Fprintf(&columns, "c%d, ", i)
	}
	return listTable{}, c.Declare("CREATE TABLE list (" + columns.String() + "number HIDDEN)")
}

type listTable struct{}

// BestIndex takes the number and says that the list is short, so that it leads
// and the tables with indexes follow.
func (listTable) BestIndex(info *vtab.IndexInfo) error {
	for i := range info.Constraints {
		if c := &info.Constraints[i]; c.Column == maxColumns && c.Op == vtab.OpEQ && c.Usable {
			c.ArgIndex, c.Omit = 0, true
		}
	}
	info.EstimatedCost, info.EstimatedRows = 1, 100
	return nil
}

func (listTable) Open() (vtab.Cursor, error) { return &listCursor{}, nil }
func (listTable) Disconnect() error          { return nil }
func (listTable) Destroy() error             { return nil }

// listCursor walks a list.
type listCursor struct {
	list list
	row  int
	rows int
}

// Filter begins at the first row. Of a number that stands for no list, there are
// none.
func (c *listCursor) Filter(_ int, _ string, args []vtab.Value) error {
	*c = listCursor{}
	if len(args) == 1 {
		if l, ok := lent.lists.Load(args[0]); ok {
			c.list, _ = l.(list)
		}
	}
	c.rows = c.list.rows()
	return nil
}

func (c *listCursor) Next() error { c.row++; return nil }
func (c *listCursor) Eof() bool   { return c.row >= c.rows }

// Column is a value of the row.
func (c *listCursor) Column(column int) (vtab.Value, error) { return c.list.at(c.row, column), nil }

func (c *listCursor) Rowid() (int64, error) { return int64(c.row), nil }
func (c *listCursor) Close() error          { return nil }
