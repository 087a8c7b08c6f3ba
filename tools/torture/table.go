package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"text/tabwriter"
)

// A row is one line of the table.
type row struct {
	Part   string `json:"part"`
	Test   string `json:"test"`             // what was done to the service
	On     string `json:"on,omitempty"`     // the engine, or whatever else it was tried on
	Tried  int    `json:"tried"`            // how often: crashes, seeds, attempts
	Work   int    `json:"work,omitempty"`   // devices and other work acknowledged around that
	Lost   int    `json:"lost,omitempty"`   // of that, what was not there afterwards
	Double int    `json:"double,omitempty"` // and what was done twice
	Wrong  int    `json:"wrong,omitempty"`  // whatever else did not hold
	Note   string `json:"note,omitempty"`
}

// A table is what all parts have found.
type table struct{ rows []row }

func (t *table) add(part string, rows []row) {
	for _, r := range rows {
		r.Part = part
		t.rows = append(t.rows, r)
	}
}

func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "part\ttest\ton\ttried\twork\tlost\tdouble\twrong\tnote")
	var sum row
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", r.Part, r.Test, r.On, r.Tried, r.Work, r.Lost, r.Double, r.Wrong, r.Note)
		sum.Tried += r.Tried
		sum.Work += r.Work
		sum.Lost += r.Lost
		sum.Double += r.Double
		sum.Wrong += r.Wrong
	}
	fmt.Fprintf(w, "\tall\t\t%d\t%d\t%d\t%d\t%d\t\n", sum.Tried, sum.Work, sum.Lost, sum.Double, sum.Wrong)
	return w.Flush()
}

func (t *table) write(name string) error {
	text, err := json.MarshalIndent(t.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}

// verdict is an error where a row shows harm, or that nothing was tried.
func (t *table) verdict() error {
	var err error
	for _, r := range t.rows {
		if r.Lost+r.Double+r.Wrong > 0 {
			err = errors.Join(err, fmt.Errorf("%s, %s %s: %d lost, %d double, %d wrong", r.Part, r.Test, r.On, r.Lost, r.Double, r.Wrong))
		}
		if r.Tried == 0 {
			err = errors.Join(err, fmt.Errorf("%s, %s %s: it was never tried", r.Part, r.Test, r.On))
		}
	}
	return err
}

func machine() string {
	return fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
