package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
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

// The lines between which a document has the latest table.
const docsBegin, docsEnd = "<!-- what make torture found -->\n", "<!-- to here -->\n"

// document puts the table into a document, one line for each test.
func (t *table) document(name, about string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), docsBegin)
	_, after, ended := strings.Cut(rest, docsEnd)
	if !ok || !ended {
		return fmt.Errorf("%s has no place for the table", name)
	}
	return os.WriteFile(name, []byte(before+docsBegin+about+"\n\n"+t.markdown()+docsEnd+after), 0o644)
}

func (t *table) markdown() string {
	type line struct {
		sum   row
		tried []string // by what it was tried on
	}
	lines := map[[2]string]*line{}
	var order [][2]string
	for _, r := range t.rows {
		key := [2]string{r.Part, r.Test}
		l := lines[key]
		if l == nil {
			l = &line{}
			lines[key], order = l, append(order, key)
		}
		l.tried = append(l.tried, strings.TrimSpace(fmt.Sprintf("%d %s", r.Tried, r.On)))
		l.sum.Work += r.Work
		l.sum.Lost += r.Lost
		l.sum.Double += r.Double
		l.sum.Wrong += r.Wrong
	}
	var out strings.Builder
	out.WriteString("| | Test | Tried | Work | Lost | Double | Wrong |\n|---|---|---|---|---|---|---|\n")
	for _, key := range order {
		l := lines[key]
		fmt.Fprintf(&out, "| %s | %s | %s | %d | %d | %d | %d |\n", key[0], key[1], strings.Join(l.tried, ", "), l.sum.Work, l.sum.Lost, l.sum.Double, l.sum.Wrong)
	}
	return out.String()
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
