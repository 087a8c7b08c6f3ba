package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// The forms in which a list can be printed.
const (
	formTable = "table"
	formJSON  = "json"
	formJSONL = "jsonl"
	formCSV   = "csv"
)

// column is one column of a list: its name in JSON and CSV, its heading in a
// table, and its value in a row.
type column[T any] struct {
	name    string
	heading string
	value   func(T) any
}

// outputFlag adds --output to a command that prints a list.
func outputFlag(cmd *cobra.Command, form *string) {
	cmd.Flags().StringVarP(form, "output", "o", formTable, "`form` of the list: table, json, jsonl or csv")
	_ = cmd.RegisterFlagCompletionFunc("output",
		cobra.FixedCompletions([]string{formTable, formJSON, formJSONL, formCSV}, cobra.ShellCompDirectiveNoFileComp))
}

// lister prints rows as they come, so that a long list needs no memory. Close
// ends the list.
type lister[T any] struct {
	columns []column[T]
	put     func(row T) error
	end     func() error
}

// newLister prints a list to w in the given form. It fails for an unknown one.
func newLister[T any](w io.Writer, form string, columns []column[T]) (*lister[T], error) {
	l := &lister[T]{columns: columns}
	switch form {
	case formTable:
		l.asTable(w)
	case formCSV:
		l.asCSV(w)
	case formJSONL:
		l.put = func(row T) error { return writeObject(w, columns, row, "", "\n") }
		l.end = func() error { return nil }
	case formJSON:
		l.asJSON(w)
	default:
		return nil, usagef("unknown output form %q: use table, json, jsonl or csv", form)
	}
	return l, nil
}

// writeList prints all rows at once.
func writeList[T any](w io.Writer, form string, columns []column[T], rows []T) error {
	l, err := newLister(w, form, columns)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := l.put(row); err != nil {
			return err
		}
	}
	return l.end()
}

func (l *lister[T]) asTable(w io.Writer) {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	line := func(cells []string) error {
		_, err := fmt.Fprintln(tw, strings.Join(cells, "\t"))
		return err
	}
	var headings []string
	for _, c := range l.columns {
		headings = append(headings, c.heading)
	}
	_ = line(headings) // into memory: never fails
	l.put = func(row T) error { return line(l.cells(row)) }
	l.end = func() error {
		_ = tw.Flush()
		for text := range strings.Lines(b.String()) {
			// Empty last columns were filled up with spaces.
			if _, err := fmt.Fprintln(w, strings.TrimRight(text, " \n")); err != nil {
				return err
			}
		}
		return nil
	}
}

func (l *lister[T]) asCSV(w io.Writer) {
	cw := csv.NewWriter(w)
	var names []string
	for _, c := range l.columns {
		names = append(names, c.name)
	}
	_ = cw.Write(names) // buffered; its error comes from Error
	l.put = func(row T) error { return cw.Write(l.cells(row)) }
	l.end = func() error {
		cw.Flush()
		return cw.Error()
	}
}

func (l *lister[T]) asJSON(w io.Writer) {
	before := "[\n  "
	l.put = func(row T) error {
		err := writeObject(w, l.columns, row, before, "")
		before = ",\n  "
		return err
	}
	l.end = func() error {
		closing := "\n]\n"
		if before == "[\n  " {
			closing = "[]\n"
		}
		_, err := io.WriteString(w, closing)
		return err
	}
}

func (l *lister[T]) cells(row T) []string {
	cells := make([]string, 0, len(l.columns))
	for _, c := range l.columns {
		cells = append(cells, cell(c.value(row)))
	}
	return cells
}

// cell is a value in a table or a CSV file.
func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []string:
		return strings.Join(v, " ")
	default:
		return fmt.Sprint(v)
	}
}

// writeObject writes one row as a JSON object with its members in the order of
// the columns.
func writeObject[T any](w io.Writer, columns []column[T], row T, before, after string) error {
	var b bytes.Buffer
	b.WriteString(before)
	for i, c := range columns {
		v, err := json.Marshal(c.value(row))
		if err != nil {
			return fmt.Errorf("encoding %s: %w", c.name, err)
		}
		if b.WriteByte(','); i == 0 {
			b.Truncate(b.Len() - 1)
			b.WriteByte('{')
		}
		fmt.Fprintf(&b, "%q:%s", c.name, v)
	}
	b.WriteString("}" + after)
	_, err := w.Write(b.Bytes())
	return err
}
