package console

import (
	"encoding/csv"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/simlatch/simlatch/internal/operator/client"
)

// A cell is one value in a table, on the page and in CSV alike.
type cell struct {
	text   string
	href   string
	tone   string    // of a badge: good, bad, busy, quiet; "" is none
	at     time.Time // a time, in the place of text
	number bool
	code   bool         // an identifier
	more   string       // said below, in small
	bar    *client.Pool // drawn, in the place of text
}

func words(text string) cell { return cell{text: text} }
func number[N ~int | ~int64](n N) cell {
	return cell{text: strconv.FormatInt(int64(n), 10), number: true}
}
func link(text, href string) cell  { return cell{text: text, href: href} }
func id(text, href string) cell    { return cell{text: text, href: href, code: true} }
func badge(text, tone string) cell { return cell{text: text, tone: tone} }
func when(at time.Time) cell       { return cell{at: at} }
func yesNo(is bool, then, otherwise cell) cell {
	if is {
		return then
	}
	return otherwise
}

// nothing reports whether the cell says nothing.
func (c cell) nothing() bool { return c.text == "" && c.at.IsZero() && c.bar == nil && c.more == "" }

// csv is the cell as a spreadsheet may have it: what begins like a formula is
// told to be text.
func (c cell) csv() string {
	if !c.at.IsZero() {
		return c.at.UTC().Format(time.RFC3339Nano)
	}
	if !c.number && c.text != "" && strings.ContainsRune("=+-@\t\r", rune(c.text[0])) {
		return "'" + c.text
	}
	return c.text
}

// shown is a number with its thousands apart, and a request's ID in short.
func (c cell) shown() string {
	switch {
	case c.number:
		return thousands(c.text)
	case len(c.text) == requestIDLength && c.code:
		return c.text[:8] + "…" + c.text[len(c.text)-6:]
	}
	return c.text
}

// requestIDLength is that of a request's ID, which is shown in short where it leads
// to the whole.
const requestIDLength = 36

func thousands(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "−", digits[1:]
	}
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteString("\u202f") // a narrow space that does not break
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}

func count[N ~int | ~int64](n N) string { return thousands(strconv.FormatInt(int64(n), 10)) }

// A column is one of a table of T.
type column[T any] struct {
	head string
	cell func(T) cell
}

// A grid is a table as it is shown.
type grid struct {
	caption string
	heads   []string
	numbers []bool // which columns have numbers
	rows    [][]cell
	pick    []string // the value of each row's check box, where rows can be picked
	form    string   // the form that the check boxes belong to
	csv     string   // where it is had as CSV
	first   string   // where it begins, when this is not the first page
	next    string   // where it goes on
	empty   templ.Component
}

func newGrid[T any](caption string, columns []column[T], list []T, empty templ.Component) grid {
	g := grid{caption: caption, empty: empty, numbers: make([]bool, len(columns))}
	for _, c := range columns {
		g.heads = append(g.heads, c.head)
	}
	for _, v := range list {
		row := make([]cell, len(columns))
		for i, c := range columns {
			row[i] = c.cell(v)
			g.numbers[i] = g.numbers[i] || row[i].number
		}
		g.rows = append(g.rows, row)
	}
	return g
}

// A listing is a list of the API as a page has it: filtered, in pages, and as
// CSV.
type listing[T any] struct {
	caption string
	path    string     // of the API
	filters []string   // parameters that are handed on
	fixed   url.Values // parameters in any case
	columns []column[T]
	pick    func(T) string
	empty   templ.Component
}

// rowsOnPage is how many rows of a list a page shows.
const rowsOnPage = 50

// wantsCSV reports whether the table of a page is asked for as CSV. A page with
// several names the one it wants.
func (v *visit) wantsCSV(table string) bool {
	return v.r.Method == http.MethodGet && v.value("format") == "csv" && (v.value("table") == "" || v.value("table") == table)
}

// query is what the browser asks for, as the API is asked.
func (l *listing[T]) query(v *visit) url.Values {
	q := url.Values{}
	for name, values := range l.fixed {
		q[name] = values
	}
	for _, name := range l.filters {
		if values := v.r.Form[name]; len(values) > 0 && values[0] != "" {
			q[name] = values
		}
	}
	return q
}

// here is the page's own address with other parameters in it.
func (v *visit) here(change map[string]string) string {
	q := url.Values{}
	for name, values := range v.r.URL.Query() {
		if values = slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" }); len(values) > 0 {
			q[name] = values
		}
	}
	for name, value := range change {
		if q.Del(name); value != "" {
			q.Set(name, value)
		}
	}
	if len(q) == 0 {
		return v.base()
	}
	return v.base() + "?" + q.Encode()
}

// base is the address of the page: of one that answers a form, the page that the
// form is of.
func (v *visit) base() string {
	at := v.r.URL.Path
	for v.r.Method == http.MethodPost && at != Prefix {
		_, pattern := v.c.mux.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: at}})
		if pattern != "" && pattern != everyPath {
			return at
		}
		at = path.Dir(at)
	}
	return at
}

// list reads the page of a list that the browser wants. A list that cannot be read
// as it was asked for is empty, and the page says why.
func list[T any](v *visit, l listing[T]) (grid, []T, error) {
	_ = v.r.ParseForm() // a broken query is an empty one
	q := l.query(v)
	q.Set("limit", strconv.Itoa(rowsOnPage))
	if cursor := v.value("cursor"); cursor != "" {
		q.Set("cursor", cursor)
	}
	page, err := get[client.Page[T]](v.r.Context(), v.asker, l.path, q)
	if err != nil {
		if err = v.refused(err); err != nil {
			return grid{}, nil, err
		}
	}
	g := newGrid(l.caption, l.columns, page.List, l.empty)
	g.csv = v.here(map[string]string{"format": "csv", "cursor": ""})
	if v.value("cursor") != "" {
		g.first = v.here(map[string]string{"cursor": ""})
	}
	if page.NextCursor != "" {
		g.next = v.here(map[string]string{"cursor": page.NextCursor})
	}
	if l.pick != nil {
		for _, entry := range page.List {
			g.pick = append(g.pick, l.pick(entry))
		}
	}
	return g, page.List, nil
}

// showList shows a list of all accounts by itself, or sends it as CSV. fields are
// what it can be filtered by, besides the account.
func showList[T any](v *visit, f frame, intro string, l listing[T], fields ...field) error {
	if v.wantsCSV("") {
		return sendCSV(v, l)
	}
	g, _, err := list(v, l)
	if err != nil {
		return err
	}
	names, err := v.accountNames()
	if err != nil {
		return err
	}
	return v.show(f, listPage(v, intro, g, append([]field{accountField(v, names)}, fields...)...))
}

// sendCSV answers with the whole of a list, row by row as it is read.
func sendCSV[T any](v *visit, l listing[T]) error {
	_ = v.r.ParseForm() // as in list
	out := csvWriter(v, l.caption)
	heads := make([]string, len(l.columns))
	for i, c := range l.columns {
		heads[i] = c.head
	}
	var failed error
	begun := false
	begin := func() {
		if !begun {
			begun = true
			failed = out.Write(heads)
		}
	}
	err := all(v.r.Context(), v.asker, l.path, l.query(v), func(entry T) bool {
		begin()
		row := make([]string, len(l.columns))
		for i, c := range l.columns {
			row[i] = c.cell(entry).csv()
		}
		if failed == nil {
			failed = out.Write(row)
		}
		return failed == nil
	})
	if err != nil && !begun {
		v.w.Header().Del("Content-Disposition")
		return err
	}
	begin()
	out.Flush()
	if err != nil { // in the midst: the browser must not take it for whole
		v.c.cfg.Logger.ErrorContext(v.r.Context(), "an export of the console broke off", "path", v.r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// sendGrid answers with a table that is on its page as a whole.
func sendGrid(v *visit, g grid) error {
	out := csvWriter(v, g.caption)
	_ = out.Write(g.heads) // it writes to a buffer; a browser that left need not be told
	for _, row := range g.rows {
		texts := make([]string, len(row))
		for i, c := range row {
			texts[i] = c.csv()
		}
		_ = out.Write(texts)
	}
	out.Flush()
	return nil
}

func csvWriter(v *visit, caption string) *csv.Writer {
	name := strings.ToLower(strings.Join(strings.Fields(caption), "-"))
	v.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	v.w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", "simlatch-"+name+".csv"))
	_ = http.NewResponseController(v.w).SetWriteDeadline(time.Now().Add(10 * time.Minute)) // a test's writer knows none
	return csv.NewWriter(v.w)
}

// A field is an input of a form.
type field struct {
	name, label string
	kind        string // of an input: text, number, password, …; select, area or check
	value       string
	choices     []choice // of a select; of others, what is offered
	hint        string
	needed      bool
	placeholder string
	checked     bool
}

type choice struct{ value, label string }

// choose are choices whose labels are their values.
func choose(values ...string) (list []choice) {
	for _, v := range values {
		list = append(list, choice{v, v})
	}
	return list
}

// orAny puts "any" before choices.
func orAny(label string, list []choice) []choice { return append([]choice{{"", label}}, list...) }

// described ties an input to its hint, and to what is offered.
func described(prefix string, f field) templ.Attributes {
	a := templ.Attributes{}
	if f.hint != "" {
		a["aria-describedby"] = prefix + f.name + "-hint"
	}
	if len(f.choices) > 0 && f.kind != "select" {
		a["list"] = prefix + f.name + "-list"
	}
	return a
}

// fieldPrefix begins the ids of a form's inputs, so that no two of a page are one.
func fieldPrefix(action, label string) string {
	return "f" + strconv.FormatUint(uint64(crc32.ChecksumIEEE([]byte(action+"\n"+label))), 36) + "-"
}
