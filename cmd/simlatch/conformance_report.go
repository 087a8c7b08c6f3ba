package main

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/exchange"
)

// formJUnit is the form of a report that continuous-integration servers read.
const formJUnit = "junit"

// report writes the report to standard output, or to its file and text to
// standard output.
func (o *conformanceOptions) report(out io.Writer, c *conformance) error {
	if o.reportFile == "" {
		return c.write(out, o.form, o.verbose)
	}
	f, err := os.Create(o.reportFile)
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	err = c.write(f, o.form, o.verbose)
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return c.write(out, "text", o.verbose)
}

func (c *conformance) write(w io.Writer, form string, verbose bool) error {
	switch form {
	case formJSON:
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(c.asJSON(verbose))
	case formJUnit:
		return c.writeJUnit(w, verbose)
	}
	b := bufio.NewWriter(w) // keeps its first error until Flush
	c.writeText(b, verbose)
	return b.Flush()
}

// outcome is how an exchange ended, in a word.
func outcome(r exchange.Result) string {
	switch {
	case r.Skipped != "":
		return "skipped"
	case r.Failed():
		return "differs"
	}
	return "conforms"
}

// writeText writes what differs and why, then the summary.
func (c *conformance) writeText(w io.Writer, verbose bool) {
	for _, r := range c.results {
		if verbose || r.Failed() {
			writeResult(w, r, verbose)
		}
	}
	n := c.count()
	ended := ""
	if n.notRun > 0 {
		ended = fmt.Sprintf(", %d not run", n.notRun)
	}
	say(w, "%s: %d conform, %d differ, %d skipped%s, in %.1f s", c.server, n.conform, n.differ, n.skipped, ended, c.took.Seconds())
	reasons := map[string]int{}
	for _, r := range c.results {
		if r.Skipped != "" {
			reasons[r.Skipped]++
		}
	}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		say(w, "  %3d skipped: %s", reasons[why], printable(why))
	}
	if n.differ == 0 {
		return
	}
	say(w, "differ:")
	refused := false
	for _, r := range c.results {
		if r.Failed() {
			say(w, "  %s", r.Exchange)
			refused = refused || strings.HasPrefix(r.Error, exchange.RegisteringListener)
		}
	}
	if refused {
		say(w, "The server did not take the listener's URL: it must be one that the server may call. Simlatch calls\n"+
			"loopback when it is started with --callback-allow 127.0.0.0/8; --listen-url gives another URL.")
	}
}

// writeResult writes one exchange: its steps that differ, or all of them.
func writeResult(w io.Writer, r exchange.Result, verbose bool) {
	say(w, "%s  %s: %s", outcome(r), r.Exchange, printable(r.Title))
	if r.Skipped != "" {
		say(w, "  %s\n", printable(r.Skipped))
		return
	}
	say(w, "  said in %s", strings.Join(r.Sources, "; "))
	for i, s := range r.Steps {
		if len(s.Diffs) == 0 && !verbose {
			continue
		}
		say(w, "  step %d: %s", i+1, printable(s.Name))
		for _, d := range s.Diffs {
			say(w, "    %s", onOneLine(d.String()))
		}
		block(w, "sent", s.Request)
		if verbose {
			block(w, "expected", s.Want)
		}
		block(w, "got", s.Got)
		for _, m := range s.Callbacks {
			if verbose {
				block(w, "called back with", m)
			}
		}
	}
	if r.Error != "" {
		say(w, "  could not go on: %s", onOneLine(r.Error))
	}
	say(w, "")
}

var lineBreak = regexp.MustCompile(`\s*\n\s*`)

// onOneLine is a text on one line, harmless to a terminal.
func onOneLine(s string) string {
	return printable(lineBreak.ReplaceAllString(strings.TrimSpace(s), " "))
}

// block writes a message of many lines, each harmless to a terminal.
func block(w io.Writer, what, text string) {
	if text == "" {
		return
	}
	say(w, "    %s", what)
	for line := range strings.Lines(strings.TrimSpace(text)) {
		say(w, "      %s", printable(strings.TrimRight(line, "\r\n")))
	}
}

// conformanceReport is the report in JSON.
type conformanceReport struct {
	Server    string           `json:"server"`
	Seconds   float64          `json:"seconds"`
	Conform   int              `json:"conform"`
	Differ    int              `json:"differ"`
	Skipped   int              `json:"skipped"`
	NotRun    int              `json:"notRun"` // more than 0 when it was interrupted
	Exchanges []exchangeReport `json:"exchanges"`
}

// exchangeReport is one exchange in JSON. Its steps are there where one
// differs, and with --verbose.
type exchangeReport struct {
	Name    string                `json:"name"`
	Title   string                `json:"title"`
	Sources []string              `json:"sources"`
	Outcome string                `json:"outcome"` // conforms, differs or skipped
	Skipped string                `json:"skipped,omitempty"`
	Error   string                `json:"error,omitempty"`
	Seconds float64               `json:"seconds"`
	Steps   []exchange.StepResult `json:"steps,omitempty"`
}

func (c *conformance) asJSON(verbose bool) conformanceReport {
	n := c.count()
	report := conformanceReport{
		Server: c.server, Seconds: seconds(c.took), Conform: n.conform, Differ: n.differ, Skipped: n.skipped,
		NotRun: n.notRun, Exchanges: make([]exchangeReport, 0, len(c.results)),
	}
	for _, r := range c.results {
		x := exchangeReport{
			Name: r.Exchange, Title: r.Title, Sources: r.Sources, Outcome: outcome(r),
			Skipped: r.Skipped, Error: r.Error, Seconds: seconds(r.Took),
		}
		if verbose || r.Failed() {
			x.Steps = r.Steps
		}
		report.Exchanges = append(report.Exchanges, x)
	}
	return report
}

// seconds are whole milliseconds.
func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// junitSuite and what it holds are the part of JUnit's form that readers of it
// agree on.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     float64     `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    float64       `xml:"time,attr"`
	Skipped *junitMessage `xml:"skipped,omitempty"`
	Failure *junitMessage `xml:"failure,omitempty"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (c *conformance) writeJUnit(w io.Writer, verbose bool) error {
	n := c.count()
	suite := junitSuite{
		Name: "conformance of " + c.server, Tests: len(c.results), Failures: n.differ, Skipped: n.skipped, Time: seconds(c.took),
	}
	for _, r := range c.results {
		suite.Cases = append(suite.Cases, asJUnit(r, verbose))
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func asJUnit(r exchange.Result, verbose bool) junitCase {
	var text strings.Builder
	writeResult(&text, r, verbose)
	jc := junitCase{Class: "conformance", Name: r.Exchange, Time: seconds(r.Took)}
	switch {
	case r.Skipped != "":
		jc.Skipped = &junitMessage{Message: r.Skipped}
	case r.Failed():
		jc.Failure = &junitMessage{Message: firstDifference(r), Text: text.String()}
	case verbose:
		jc.Out = text.String()
	}
	return jc
}

// firstDifference is what is wrong first, in a line.
func firstDifference(r exchange.Result) string {
	for _, s := range r.Steps {
		if len(s.Diffs) > 0 {
			return onOneLine(s.Diffs[0].String())
		}
	}
	return onOneLine(r.Error)
}
