// Package inventory reads SIMs as inventories write them: CSV files, and the
// fields of one SIM as text.
package inventory

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// deviceColumns are the columns a device file may have, in any order and case.
// The first two must be there, and the account unless there is a default.
var deviceColumns = []string{"imei", "iccid", "account", "mdn", "state", "generation", "imsi"}

// Reader reads SIMs from a CSV file with a header line; see Read. Its zero value
// reads files that name an account in every line.
type Reader struct {
	// Name is the file's name in errors and warnings.
	Name string
	// Account is the account of lines that name none. When empty, they must.
	Account license.AccountName
	// FindAccount gives the recorded form of an account's name, or refuses it.
	// Nil takes names as they are.
	FindAccount func(license.AccountName) (license.AccountName, error)
	// Warn is told of what was accepted and may still be wrong, such as an
	// IMEI with a wrong check digit. Nil tells nobody.
	Warn func(warning string)
	// Bad, when not nil, is told of each line that holds no SIM, which the
	// sequence then leaves out, until it returns false. What is wrong with the
	// file as a whole still ends the sequence.
	Bad func(line int, err error) bool

	found map[license.AccountName]license.AccountName // by FindAccount
	lines []int32                                     // on which line each SIM stood
}

// Locate names the file and the line of the SIM that a *store.ConflictError of
// importing what Read gave is about. Other errors pass unchanged.
func (d *Reader) Locate(err error) error {
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) || d.LineOf(conflict.Index) == 0 {
		return err
	}
	return fmt.Errorf("%s:%d: %w", d.Name, d.LineOf(conflict.Index), conflict)
}

// LineOf is the line of the i-th SIM that Read gave, from 1; 0 is none.
func (d *Reader) LineOf(i int) int {
	if i < 1 || i > len(d.lines) {
		return 0
	}
	return int(d.lines[i-1])
}

// Line is the line of the SIM that Read gave last.
func (d *Reader) Line() int { return d.LineOf(len(d.lines)) }

// Read reads the SIMs of a CSV file with a header line. The columns are imei,
// iccid, account, mdn, state, generation and imsi, in any order and case; imei
// and iccid must be there, and account unless the reader has one for the lines
// without. A byte order mark, CRLF and spaces round a value are tolerated; IMEIs
// are read by license.ImportIMEI.
//
// The sequence ends with its first error, which names the file and the line;
// but see Bad.
func (d *Reader) Read(r io.Reader) iter.Seq2[license.SIM, error] {
	return func(yield func(license.SIM, error) bool) {
		d.lines, d.found = nil, map[license.AccountName]license.AccountName{}
		lines := csv.NewReader(withoutBOM(r))
		lines.ReuseRecord = true
		header, err := lines.Read()
		if err != nil {
			yield(license.SIM{}, d.csvError(err))
			return
		}
		columns, err := d.columns(header)
		if err != nil {
			yield(license.SIM{}, fmt.Errorf("%s:1: %w", d.Name, err))
			return
		}
		for {
			record, err := lines.Read()
			if errors.Is(err, io.EOF) {
				return
			}
			if parse := (*csv.ParseError)(nil); errors.Is(err, csv.ErrFieldCount) && errors.As(err, &parse) && d.Bad != nil {
				if !d.Bad(parse.Line, parse.Err) {
					return
				}
				continue
			}
			if err != nil {
				yield(license.SIM{}, d.csvError(err))
				return
			}
			line, _ := lines.FieldPos(0)
			sim, err := d.sim(columns, record, line)
			if err != nil && d.Bad != nil {
				if !d.Bad(line, err) {
					return
				}
				continue
			}
			if err != nil {
				yield(license.SIM{}, fmt.Errorf("%s:%d: %w", d.Name, line, err))
				return
			}
			d.lines = append(d.lines, int32(line)) //nolint:gosec // no inventory has 2 billion lines
			if !yield(sim, nil) {
				return
			}
		}
	}
}

// columns finds where in a line each of deviceColumns stands; -1 is nowhere.
func (d *Reader) columns(header []string) ([]int, error) {
	places := slices.Repeat([]int{-1}, len(deviceColumns))
	for place, title := range header {
		i := slices.Index(deviceColumns, strings.ToLower(strings.TrimSpace(title)))
		if i < 0 {
			return nil, fmt.Errorf("unknown column %.40q; known are %s", title, strings.Join(deviceColumns, ", "))
		}
		if places[i] >= 0 {
			return nil, fmt.Errorf("the column %s is there twice", deviceColumns[i])
		}
		places[i] = place
	}
	for i, must := range []bool{true, true, d.Account == ""} {
		if must && places[i] < 0 {
			return nil, fmt.Errorf("the column %s is missing; the first line must name the columns", deviceColumns[i])
		}
	}
	return places, nil
}

// sim makes a SIM of one line.
func (d *Reader) sim(columns []int, record []string, line int) (license.SIM, error) {
	var v [7]string // in the order of deviceColumns
	for i, place := range columns {
		if place >= 0 {
			v[i] = strings.TrimSpace(record[place])
		}
	}
	sim, err := (Text{IMEI: v[0], ICCID: v[1], Account: v[2], MDN: v[3], State: v[4], Generation: v[5], IMSI: v[6]}).SIM(d.Account, func(warning string) {
		if d.Warn != nil {
			d.Warn(fmt.Sprintf("%s:%d: %s", d.Name, line, warning))
		}
	})
	if err != nil || d.FindAccount == nil {
		return sim, err
	}
	account, ok := d.found[sim.Account]
	if !ok {
		if account, err = d.FindAccount(sim.Account); err != nil {
			return sim, err
		}
		d.found[sim.Account] = account
	}
	sim.Account = account
	return sim, nil
}

// csvError names the file in an error of the CSV reader.
func (d *Reader) csvError(err error) error {
	var parse *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s: the file is empty; the first line must name the columns", d.Name)
	case errors.As(err, &parse):
		return fmt.Errorf("%s:%d: %w", d.Name, parse.Line, parse.Err)
	}
	return fmt.Errorf("reading %s: %w", d.Name, err)
}

// withoutBOM leaves out the byte order mark that some spreadsheets put first.
func withoutBOM(r io.Reader) io.Reader {
	b := bufio.NewReaderSize(r, 64<<10)
	if mark, _ := b.Peek(3); string(mark) == "\ufeff" {
		_, _ = b.Discard(3) // peeked: it cannot fail
	}
	return b
}

// Text is a SIM as an inventory writes it.
type Text struct{ Account, IMEI, ICCID, MDN, IMSI, State, Generation string }

// SIM checks a SIM of an inventory; fallback is its account where it names none.
// Where it fails, the error is a *license.InputError whose field is the name of
// the column.
func (t Text) SIM(fallback license.AccountName, warn func(string)) (license.SIM, error) {
	sim := license.SIM{Account: fallback, IMSI: t.IMSI}
	var err error
	if t.Account != "" {
		sim.Account, err = license.ParseAccountName(t.Account)
	}
	if err == nil && sim.Account == "" {
		err = &license.InputError{Field: license.FieldAccount, Reason: "the SIM needs an account"}
	}
	if err != nil {
		return sim, err
	}
	if sim.Device.ICCID, err = license.ParseICCID(t.ICCID); err != nil {
		return sim, columnError("iccid", err)
	}
	var warning string
	if sim.Device.IMEI, warning, err = license.ImportIMEI(t.IMEI); err != nil {
		return sim, columnError("imei", err)
	}
	if warning != "" {
		warn(warning)
	}
	if sim.Device.MDN, err = license.ParseMDN(t.MDN); err != nil {
		return sim, columnError("mdn", err)
	}
	if _, err = license.ParseMDN(t.IMSI); err != nil { // an IMSI has the same form
		return sim, &license.InputError{Field: "imsi", Value: t.IMSI, Reason: "an IMSI has at most 15 decimal digits"}
	}
	if sim.State, err = license.ParseState(t.State); err != nil {
		return sim, err
	}
	sim.Generation, err = license.ParseGeneration(t.Generation)
	return sim, err
}

// columnError names the column in an error about an identifier.
func columnError(column license.Field, err error) error {
	var input *license.InputError
	if errors.As(err, &input) {
		return &license.InputError{Field: column, Value: input.Value, Reason: input.Reason}
	}
	return err
}
