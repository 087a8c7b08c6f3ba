package exchange

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// Diff is one place where an answer is not what was expected.
type Diff struct {
	At   string `json:"at"` // such as "status", "header Allow" or "body.devices[0].outcome"
	Want string `json:"want"`
	Got  string `json:"got"`
}

func (d Diff) String() string { return fmt.Sprintf("%s: want %s, got %s", d.At, d.Want, d.Got) }

// extra is the member or element that lets others stand beside those named.
const extra = "..."

// absent stands for what is not there.
const absent = "nothing"

// match is one comparison: the differences found, and the values captured.
type match struct {
	diffs    []Diff
	captured map[string]string
}

// matchJSON compares a JSON text with what is expected of it, whose variables
// have been replaced.
func matchJSON(at, want, got string) match {
	m := match{captured: map[string]string{}}
	w, err := decode(withExtras(want))
	if err != nil {
		m.differ(at, "JSON in the exchange file", err.Error())
		return m
	}
	if !jsontext.Value(got).IsValid() {
		m.differ(at, "JSON without duplicate members, in UTF-8", got)
		return m
	}
	g, err := decode(got)
	if err != nil {
		m.differ(at, "one JSON value", err.Error())
		return m
	}
	m.value(at, w, g)
	return m
}

func decode(text string) (v any, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber() // identifiers and counts are compared digit by digit
	if err = d.Decode(&v); err != nil {
		return nil, fmt.Errorf("%w in %s", err, clip(text, 200))
	}
	return v, nil
}

// withExtras turns each bare ... into JSON: a member of an object, or an
// element of an array.
func withExtras(text string) string {
	var b strings.Builder
	var open []byte
	inString := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString:
			if c == '\\' && i+1 < len(text) {
				b.WriteByte(c)
				i++
				c = text[i]
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			open = append(open, c)
		case (c == '}' || c == ']') && len(open) > 0:
			open = open[:len(open)-1]
		case strings.HasPrefix(text[i:], extra) && len(open) > 0:
			b.WriteString(`"` + extra + `"`)
			if open[len(open)-1] == '{' {
				b.WriteString(`:""`)
			}
			i += len(extra) - 1
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func (m *match) differ(at, want, got string) {
	m.diffs = append(m.diffs, Diff{At: at, Want: clip(want, 400), Got: clip(got, 400)})
}

func (m *match) value(at string, want, got any) {
	switch w := want.(type) {
	case string:
		m.text(at, w, got)
	case map[string]any:
		m.object(at, w, got)
	case []any:
		m.array(at, w, got)
	case json.Number:
		g, ok := got.(json.Number)
		if !ok || !sameNumber(w, g) {
			m.differ(at, w.String(), render(got))
		}
	default: // true, false, null
		if want != got {
			m.differ(at, render(want), render(got))
		}
	}
}

func sameNumber(a, b json.Number) bool {
	x, ok1 := new(big.Rat).SetString(a.String())
	y, ok2 := new(big.Rat).SetString(b.String())
	return ok1 && ok2 && x.Cmp(y) == 0
}

func (m *match) object(at string, want map[string]any, got any) {
	g, ok := got.(map[string]any)
	if !ok {
		m.differ(at, "an object", render(got))
		return
	}
	_, open := want[extra]
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if k == extra {
			continue
		}
		if v, ok := g[k]; ok {
			m.value(at+"."+k, want[k], v)
		} else {
			m.differ(at+"."+k, render(want[k]), absent)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(g)) {
		if _, ok := want[k]; !ok && !open {
			m.differ(at+"."+k, absent, render(g[k]))
		}
	}
}

func (m *match) array(at string, want []any, got any) {
	g, ok := got.([]any)
	if !ok {
		m.differ(at, "an array", render(got))
		return
	}
	if slices.Contains(want, any(extra)) {
		m.subsequence(at, want, g)
		return
	}
	for i := range max(len(want), len(g)) {
		here := fmt.Sprintf("%s[%d]", at, i)
		switch {
		case i >= len(g):
			m.differ(here, render(want[i]), absent)
		case i >= len(want):
			m.differ(here, absent, render(g[i]))
		default:
			m.value(here, want[i], g[i])
		}
	}
}

// subsequence finds the wanted elements in their order among others.
func (m *match) subsequence(at string, want, got []any) {
	rest := got
	for _, w := range want {
		if w == any(extra) {
			continue
		}
		found := false
		for i, g := range rest {
			try := match{captured: map[string]string{}}
			if try.value(at, w, g); len(try.diffs) == 0 {
				maps.Copy(m.captured, try.captured)
				rest, found = rest[i+1:], true
				break
			}
		}
		if !found {
			m.differ(at, "an element "+render(w), render(got))
		}
	}
}

var placeholder = regexp.MustCompile(`^<([a-z0-9]+)(?: (.*?))??(?: as ([A-Za-z]\w*))?>$`)

// text compares with a string, which may be a placeholder for any value.
func (m *match) text(at, want string, got any) {
	p := placeholder.FindStringSubmatch(want)
	if p == nil {
		if want != got {
			m.differ(at, render(want), render(got))
		}
		return
	}
	kind, arg, name := p[1], p[2], p[3]
	if !fits(kind, arg, got) {
		m.differ(at, want, render(got))
		return
	}
	if name != "" {
		m.captured[name] = plain(got)
	}
}

// fits reports whether a value is what a placeholder stands for.
func fits(kind, arg string, got any) bool {
	s, isString := got.(string)
	switch kind {
	case "any":
		return true
	case "string":
		return isString
	case "text":
		return isString && s != ""
	case "bool":
		_, ok := got.(bool)
		return ok
	case "array":
		_, ok := got.([]any)
		return ok
	case "object":
		_, ok := got.(map[string]any)
		return ok
	case "int":
		n, ok := got.(json.Number)
		return ok && inRange(n.String(), arg)
	}
	return isString && fitsString(kind, arg, s)
}

func fitsString(kind, arg, s string) bool {
	switch kind {
	case "uuid", "uuid4":
		id, err := uuid.Parse(s)
		return err == nil && id.String() == s && (kind == "uuid" || id.Version() == 4)
	case "time":
		_, err := time.Parse(time.RFC3339, s)
		return err == nil
	case "contains":
		return strings.Contains(s, arg)
	case "matches":
		re, err := regexp.Compile(arg)
		return err == nil && re.MatchString(s)
	case "atmost":
		n, err := strconv.Atoi(arg)
		return err == nil && utf8.RuneCountInString(s) <= n
	case "set":
		return slices.Equal(words(s), words(arg))
	}
	return false
}

// words are the sorted words of a list with commas or blanks.
func words(s string) []string {
	w := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(w)
	return w
}

// inRange reports whether s is a whole number, and between the ends of a range
// such as "1..3600" where there is one.
func inRange(s, limits string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || limits == "" {
		return err == nil
	}
	low, high, _ := strings.Cut(limits, "..")
	l, err1 := strconv.ParseInt(low, 10, 64)
	h, err2 := strconv.ParseInt(high, 10, 64)
	return err1 == nil && err2 == nil && l <= n && n <= h
}

// matchHeader compares the values of a header. A number there is text, so that
// <int> has to see it as one.
func (m *match) header(h Header, got []string) {
	at := "header " + h.Name
	switch {
	case h.Without && len(got) > 0:
		m.differ(at, absent, strings.Join(got, ", "))
	case h.Without:
	case len(got) == 0:
		m.differ(at, h.Value, absent)
	case strings.HasPrefix(h.Value, "<int"):
		m.text(at, h.Value, json.Number(got[0]))
	default:
		m.text(at, h.Value, strings.Join(got, ", "))
	}
}

// plain is a captured value as it is put into a text.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return render(v)
}

func render(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(b.String())
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:most], ""), len(s))
}
