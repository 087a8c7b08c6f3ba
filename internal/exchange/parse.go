package exchange

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Parse reads one exchange from the text of its file.
func Parse(name string, text []byte) (Exchange, error) {
	archive := txtar.Parse(text)
	x := Exchange{Name: name, User: "user", Application: "app"}
	if err := x.parseComment(string(archive.Comment)); err != nil {
		return Exchange{}, err
	}
	p := parser{}
	for i, f := range archive.Files {
		if err := p.section(f.Name, string(f.Data)); err != nil {
			return Exchange{}, fmt.Errorf("section %d, %q: %w", i+1, f.Name, err)
		}
	}
	p.endCases()
	x.Steps = p.steps
	return x, x.whole()
}

// whole finds what only the whole exchange shows to be wrong.
func (x *Exchange) whole() error {
	switch {
	case x.Title == "":
		return errors.New("the comment has no title")
	case len(x.Sources) == 0:
		return errors.New("the comment names no source")
	case len(x.Steps) == 0:
		return errors.New("there is no request")
	}
	listens := x.Listen != nil
	for _, s := range x.Steps {
		if s.Response.Status == 0 {
			return fmt.Errorf("%s: there is no response", s.Name)
		}
		listens = listens || len(s.Callbacks) > 0 || s.Silence || strings.Contains(s.Request.Body, "${listener}")
	}
	if listens != slices.Contains(x.Needs, NeedCallbacks) {
		return fmt.Errorf("an exchange that uses the listener, and no other, says %q", "needs: "+NeedCallbacks)
	}
	return nil
}

func (x *Exchange) parseComment(comment string) error {
	var text []string
	for line := range strings.Lines(comment) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "source":
			for s := range strings.SplitSeq(value, ";") {
				x.Sources = append(x.Sources, strings.TrimSpace(s))
			}
		case "needs":
			for n := range strings.FieldsSeq(value) {
				if !slices.Contains(Needs(), Need(n)) {
					return fmt.Errorf("unknown need %q", n)
				}
				x.Needs = append(x.Needs, Need(n))
			}
		case "user":
			x.User = value
		case "application":
			x.Application = value
		case "listens":
			f := append(strings.Fields(value), "", "", "")
			x.Listen = &Listen{Account: f[0], Username: f[1], Password: f[2]}
		default:
			text = append(text, line)
		}
	}
	whole := strings.TrimSpace(strings.Join(text, "\n"))
	x.Title, x.Text, _ = strings.Cut(whole, "\n")
	x.Text = strings.TrimSpace(x.Text)
	return nil
}

// parser puts the steps of an exchange together, section by section.
type parser struct {
	steps []Step
	// The table that is being repeated: its rows, and where its steps begin.
	rows  []map[string]string
	first int
	reply []int // for the next step's Listener
}

func (p *parser) section(title, data string) error {
	title, label, _ := strings.Cut(title, ":")
	words := strings.Fields(title)
	if len(words) == 0 {
		return errors.New("a section without a name")
	}
	label = strings.TrimSpace(label)
	switch words[0] {
	case "request":
		return p.request(words[1:], label, data)
	case "listener":
		return p.listener(words[1:])
	case "cases":
		return p.cases(data)
	case "end":
		p.endCases()
		return nil
	case "response", "callback", "no":
		if len(p.steps) == p.first {
			return errors.New("there is no request before it")
		}
	}
	step := &p.steps[max(len(p.steps)-1, 0)]
	switch words[0] {
	case "response":
		return step.response(words[1:], data)
	case "callback":
		return step.callback(words[1:], data)
	case "no":
		step.Silence = true
		return nil
	}
	return errors.New("unknown section")
}

func (p *parser) request(options []string, label, data string) error {
	step := Step{Listener: p.reply}
	p.reply = nil
	r := &step.Request
	for _, o := range options {
		switch o {
		case "chunked":
			r.Chunked = true
		case "hex":
			r.Hex = true
		default:
			return fmt.Errorf("unknown option %q", o)
		}
	}
	line, rest, _ := strings.Cut(data, "\n")
	var ok bool
	if r.Method, r.Path, ok = strings.Cut(line, " "); !ok || !strings.HasPrefix(r.Path, "/") && !strings.HasPrefix(r.Path, "$") {
		return fmt.Errorf("%q is not a method and a path", line)
	}
	var err error
	r.Headers, r.Body, r.HasBody, err = parseHead(rest)
	step.Name = label
	if label == "" {
		step.Name = line
	}
	p.steps = append(p.steps, step)
	return err
}

// parseHead reads header lines up to a blank line, and what follows it.
func parseHead(text string) (headers []Header, body string, hasBody bool, err error) {
	for text != "" {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		if line == "" {
			return headers, strings.TrimSuffix(text, "\n"), true, nil
		}
		if name, ok := strings.CutPrefix(line, "!"); ok {
			headers = append(headers, Header{Name: strings.TrimSpace(name), Without: true})
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, "", false, fmt.Errorf("%q is not a header; a blank line must stand before a body", line)
		}
		headers = append(headers, Header{Name: name, Value: strings.TrimSpace(value)})
	}
	return headers, "", false, nil
}

func (p *parser) listener(words []string) error {
	for _, w := range words {
		status, err := strconv.Atoi(w)
		if err != nil || http.StatusText(status) == "" {
			return fmt.Errorf("%q is not a status", w)
		}
		p.reply = append(p.reply, status)
	}
	return nil
}

func (s *Step) response(options []string, data string) error {
	for _, o := range options {
		if o != "eventually" {
			return fmt.Errorf("unknown option %q", o)
		}
		s.Repeat = true
	}
	line, rest, _ := strings.Cut(data, "\n")
	status, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return fmt.Errorf("%q is not a status", line)
	}
	s.Response.Status = status
	s.Response.Headers, s.Response.Body, _, err = parseHead(rest)
	return err
}

func (s *Step) callback(options []string, data string) error {
	c := Callback{Times: 1}
	devices := []string{""}
	for _, o := range options {
		key, value, _ := strings.Cut(o, "=")
		var err error
		switch key {
		case "times":
			c.Times, err = strconv.Atoi(value)
		case "each":
			devices = strings.Split(value, ",")
		default:
			err = fmt.Errorf("unknown option %q", o)
		}
		if err != nil {
			return err
		}
	}
	if strings.HasPrefix(data, "{") {
		data = "\n" + data
	}
	var err error
	if c.Headers, c.Body, _, err = parseHead(data); err != nil {
		return err
	}
	for _, d := range devices {
		c.Device = d
		s.Callbacks = append(s.Callbacks, c)
	}
	return nil
}

// cases begins a table: its steps are those up to endCases.
func (p *parser) cases(data string) error {
	p.endCases()
	lines := strings.Split(strings.TrimSpace(data), "\n")
	columns := cells(lines[0])
	for _, line := range lines[1:] {
		values := cells(line)
		if len(values) != len(columns) {
			return fmt.Errorf("%q has %d cells, not %d", line, len(values), len(columns))
		}
		row := map[string]string{}
		for i, c := range columns {
			row[c] = values[i]
		}
		p.rows = append(p.rows, row)
	}
	if len(p.rows) == 0 {
		return errors.New("the table has no rows")
	}
	p.first = len(p.steps)
	return nil
}

// endCases repeats the steps of the current table for each of its rows.
func (p *parser) endCases() {
	if p.rows == nil {
		return
	}
	steps := slices.Clone(p.steps[p.first:])
	p.steps = p.steps[:p.first]
	for i, row := range p.rows {
		for _, s := range steps {
			s.Vars = maps.Clone(row)
			s.Name = fmt.Sprintf("%s (case %d: %s)", s.Name, i+1, describe(row))
			p.steps = append(p.steps, s)
		}
	}
	p.rows, p.first = nil, 0
}

func describe(row map[string]string) string {
	var b []string
	for _, k := range slices.Sorted(maps.Keys(row)) {
		b = append(b, fmt.Sprintf("%s %q", k, row[k]))
	}
	return clip(strings.Join(b, ", "), 200)
}

func cells(line string) []string {
	var c []string
	for s := range strings.SplitSeq(line, "|") {
		c = append(c, strings.TrimSpace(s))
	}
	return c
}
