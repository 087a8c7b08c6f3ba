package bulk

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/simlatch/simlatch/m2m"
)

// Row is one device of a fleet and the verdict on it.
type Row struct {
	Line  int    `json:"line"`            // in the file, from 1; the place among arguments
	ICCID string `json:"iccid,omitempty"` // as written, where it is bad
	IMEI  string `json:"imei,omitempty"`

	Column  string `json:"column,omitempty"`  // the column that is bad by itself
	Code    string `json:"code,omitempty"`    // why the row would be refused; empty: it would not
	Message string `json:"message,omitempty"` // the same for people, with what to do
}

// OK reports whether nothing speaks against the row.
func (r *Row) OK() bool { return r.Code == "" }

// device is the row as a request names it.
func (r *Row) device() m2m.Device { return m2m.NewDevice(r.IMEI, r.ICCID) }

// Fleet is what a file says of devices.
type Fleet struct {
	Name string // of the file; empty for devices that were named one by one
	Rows []Row
}

// Bad counts the rows with something against them.
func (f *Fleet) Bad() int {
	n := 0
	for i := range f.Rows {
		if !f.Rows[i].OK() {
			n++
		}
	}
	return n
}

// maxFleet is the largest fleet file that is read.
const maxFleet = 512 << 20

// ReadFleet reads a CSV file of devices. Its first line names the columns: iccid
// or imei or both, in any order and case, among any others. Commas, semicolons
// and tabs between them, quotes, CRLF and byte order marks are taken as they
// come.
//
// A row that cannot be right, or names a SIM that stood before, is kept with
// what is wrong with it. Only a file that cannot be read at all is an error,
// which names the line.
func ReadFleet(r io.Reader, name string) (*Fleet, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxFleet+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(raw) > maxFleet {
		return nil, fmt.Errorf("%s is larger than %d MiB: split it", name, maxFleet>>20)
	}
	text, err := decodeText(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	text, comma := separator(text)
	lines := csv.NewReader(strings.NewReader(text))
	lines.Comma, lines.FieldsPerRecord, lines.ReuseRecord = comma, -1, true
	t := table{reader: lines}
	if err := t.readHeader(); err != nil {
		return nil, t.locate(name, err)
	}
	f := &Fleet{Name: name}
	for {
		row, err := t.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, t.locate(name, err)
		}
		f.Rows = append(f.Rows, row)
	}
	if len(f.Rows) == 0 {
		return nil, fmt.Errorf("%s names no device: there is nothing below its first line", name)
	}
	f.markRounded()
	f.markTwice()
	return f, nil
}

// Devices makes a fleet of arguments: an ICCID, an IMEI, or both with a comma,
// colon or slash between them.
func Devices(args []string) *Fleet {
	f := &Fleet{}
	for i, arg := range args {
		row := Row{Line: i + 1}
		for _, id := range strings.FieldsFunc(arg, func(r rune) bool { return strings.ContainsRune(",:/", r) }) {
			if id = clean(id); len(id) < 18 && row.IMEI == "" && (row.ICCID != "" || len(id) >= 14 && len(id) <= 16) {
				row.IMEI = id
			} else {
				row.ICCID = id
			}
		}
		row.check(columns{iccid: 0, imei: 1, titles: []string{"ICCID", "IMEI"}}, row.ICCID != "" || row.IMEI == "", row.IMEI != "")
		f.Rows = append(f.Rows, row)
	}
	f.markTwice()
	return f
}

// columns says where in a line the identifiers stand; -1 is nowhere.
type columns struct {
	iccid, imei int
	titles      []string
}

// table reads the rows of a CSV file.
type table struct {
	reader  *csv.Reader
	columns columns
	line    int
}

// titles of the columns we look for, as folded leaves them.
var (
	iccidTitles = []string{"iccid", "simiccid", "iccidnumber"}
	imeiTitles  = []string{"imei", "deviceimei", "imeinumber"}
)

// folded is a title without its case and without what is no letter or digit.
func folded(title string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, title)
}

func (t *table) readHeader() error {
	header, err := t.reader.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty; the first line must name the columns, iccid and imei")
	}
	if err != nil {
		return err
	}
	t.line, _ = t.reader.FieldPos(0)
	t.columns = columns{iccid: -1, imei: -1, titles: slices.Clone(header)}
	data := false
	for i, title := range header {
		t.columns.titles[i] = strings.TrimSpace(title)
		place := &t.columns.iccid
		switch name := folded(title); {
		case slices.Contains(iccidTitles, name):
		case slices.Contains(imeiTitles, name):
			place = &t.columns.imei
		default:
			data = data || len(name) >= 14 && strings.Trim(name, "0123456789") == ""
			continue
		}
		if *place >= 0 {
			return fmt.Errorf("the columns %q and %q say the same; rename or remove one", t.columns.titles[*place], title)
		}
		*place = i
	}
	switch {
	case t.columns.iccid >= 0 || t.columns.imei >= 0:
		return nil
	case data:
		return errors.New("the first line must name the columns, and this one is data: put a line \"iccid,imei\" above it")
	}
	return fmt.Errorf("there is no column iccid or imei; its columns are %s", strings.Join(t.columns.titles, ", "))
}

// next reads the next row that is not blank.
func (t *table) next() (Row, error) {
	for {
		record, err := t.reader.Read()
		if err != nil {
			return Row{}, err
		}
		t.line, _ = t.reader.FieldPos(0)
		if !slices.ContainsFunc(record, func(cell string) bool { return strings.TrimSpace(cell) != "" }) {
			continue
		}
		return t.row(record), nil
	}
}

func (t *table) row(record []string) Row {
	row := Row{Line: t.line}
	cell := func(place int) (string, bool) {
		if place < 0 || place >= len(record) {
			return "", false
		}
		return clean(record[place]), true
	}
	row.ICCID, _ = cell(t.columns.iccid)
	row.IMEI, _ = cell(t.columns.imei)
	for _, extra := range record[min(len(record), len(t.columns.titles)):] {
		if strings.TrimSpace(extra) != "" {
			row.refuse("", "the line has more cells than the first one; a value with a separator in it must stand in quotes")
			return row
		}
	}
	row.check(t.columns, t.columns.iccid >= 0, t.columns.imei >= 0)
	return row
}

// locate names file and line in an error of reading.
func (t *table) locate(name string, err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		what := parse.Err.Error()
		switch {
		case errors.Is(err, csv.ErrBareQuote):
			what = "a quote stands in a cell that does not begin with one"
		case errors.Is(err, csv.ErrQuote):
			what = "a cell in quotes goes on behind them, or they are never closed"
		}
		return fmt.Errorf("%s:%d: column %d of the text: %s; nothing behind it can be read with confidence: mend the quotes, or export the file again",
			name, parse.Line, parse.Column, what)
	}
	return fmt.Errorf("%s:%d: %w", name, max(t.line, 1), err)
}

// check looks at each identifier by itself.
func (r *Row) check(c columns, iccid, imei bool) {
	if iccid {
		if reason := badICCID(r.ICCID); reason != "" {
			r.refuse(c.titles[c.iccid], reason)
			return
		}
	}
	if imei {
		if reason := badIMEI(r.IMEI); reason != "" {
			r.refuse(c.titles[c.imei], reason)
		}
	}
}

func (r *Row) refuse(column, reason string) {
	r.Column, r.Code, r.Message = column, m2m.CodeIdentifierInvalid, reason
}

// markRounded refuses ICCIDs that a spreadsheet has rounded: it keeps 15 digits
// of a number, and shows zeros behind them. One such may be genuine.
func (f *Fleet) markRounded() {
	var rounded []*Row
	for i := range f.Rows {
		if r := &f.Rows[i]; r.OK() && len(r.ICCID) > 15 && strings.Trim(r.ICCID[15:], "0") == "" {
			rounded = append(rounded, r)
		}
	}
	if len(rounded) < 2 || len(rounded)*100 < len(f.Rows) {
		return
	}
	for _, r := range rounded {
		r.refuse("ICCID", "a spreadsheet has rounded it: everything behind the 15th digit is zero, as in "+
			fmt.Sprint(len(rounded)-1)+" other rows, and the digits are lost; "+remedy)
	}
}

// markTwice refuses rows that name a SIM named before. An IMEI counts where no
// ICCID stands beside it: a device may have two SIMs.
func (f *Fleet) markTwice() {
	seen := make(map[string]*Row, len(f.Rows))
	for i := range f.Rows {
		r := &f.Rows[i]
		if !r.OK() {
			continue
		}
		id, kind := r.ICCID, "ICCID"
		if id == "" {
			id, kind = r.IMEI, "IMEI"
		}
		before, twice := seen[id]
		if !twice {
			seen[id] = r
			continue
		}
		r.Code = m2m.CodeDeviceDuplicate
		r.Message = fmt.Sprintf("the %s stands on line %d already", kind, before.Line)
		if before.IMEI != r.IMEI {
			r.Message += ", with another IMEI: one of the two is wrong"
		}
	}
}
