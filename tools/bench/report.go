package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
)

// row is one line of the table.
type row struct {
	Work      string `json:"work"`
	Unit      string `json:"unit"`      // of Values
	Reference string `json:"reference"` // whom they are held against; empty for nobody

	Values     []float64 `json:"values"`
	References []float64 `json:"references,omitempty"`
	Ratios     []float64 `json:"ratios,omitempty"` // Values to References, round by round

	// What is judged: the ratios where there are any, else the values.
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`

	Floor float64 `json:"floor,omitempty"`
	Aim   float64 `json:"aim,omitempty"`
	Less  bool    `json:"less,omitempty"` // less is better
	Met   string  `json:"met,omitempty"`  // "aim", "floor" or "no"
}

// newRow makes a row of what was measured against a reference in the same
// rounds, or of values alone.
func newRow(work, unit, reference string, values, references []float64) row {
	r := row{Work: work, Unit: unit, Reference: reference, Values: values, References: references}
	judged := values
	if references != nil {
		for i, v := range values {
			r.Ratios = append(r.Ratios, v/references[i])
		}
		judged = r.Ratios
	}
	r.Median, r.Least, r.Most = median(judged), slices.Min(judged), slices.Max(judged)
	return r
}

// wanted says what is wanted of a row. An aim below the floor means that less is
// better.
func (r row) wanted(floor, aim float64) row {
	r.Floor, r.Aim, r.Less = floor, aim, aim < floor
	reaches := func(goal float64) bool { return r.Less && r.Median <= goal || !r.Less && r.Median >= goal }
	switch {
	case reaches(aim):
		r.Met = "aim"
	case reaches(floor):
		r.Met = "floor"
	default:
		r.Met = "no"
	}
	return r
}

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// report is the outcome of a run.
type report struct {
	Machine machine `json:"machine"`
	Sizes   string  `json:"sizes"`
	Runs    int     `json:"runs"`
	Seconds float64 `json:"seconds"`
	Rows    []row   `json:"rows"`
}

// table prints the report as Markdown, which people can read as it is.
func (r report) table(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s\n\nMedians of %d (%s sizes); ratios round by round, with their spread.\n\n"+
		"| Work | Simlatch | against | ratio | spread | floor | aim | met |\n|---|--:|--:|--:|--:|--:|--:|---|\n", r.Machine, r.Runs, r.Sizes)
	for _, row := range r.Rows {
		against, ratio := "", ""
		if row.References != nil {
			against = fmt.Sprintf("%s %s", row.Reference, number(median(row.References)))
			ratio = number(row.Median)
		}
		_, err2 := fmt.Fprintf(w, "| %s | %s %s | %s | %s | %s–%s | %s | %s | %s |\n", row.Work, number(median(row.Values)), row.Unit,
			against, ratio, number(row.Least), number(row.Most), number(row.Floor), number(row.Aim), row.Met)
		if err == nil {
			err = err2
		}
	}
	return err
}

// number prints three digits that count, and no goal at all where there is none.
func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case math.Abs(v) >= 1000:
		return thousands(int(math.Round(v)))
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case math.Abs(v) >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// thousands is n with commas.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func (r report) write(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
