package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/go-json-experiment/json/jsontext"
)

// tape is what a program of the surface's fuzzing is read from: each byte is a
// choice, and the end chooses the first of everything.
type tape struct{ b []byte }

// pick chooses one of n.
func (t *tape) pick(n int) int {
	switch {
	case n <= 1 || len(t.b) == 0:
		return 0
	case n <= 256 || len(t.b) == 1:
		v := int(t.b[0])
		t.b = t.b[1:]
		return v % n
	}
	v := int(binary.BigEndian.Uint16(t.b))
	t.b = t.b[2:]
	return v % n
}

func (t *tape) one(of []string) string { return of[t.pick(len(of))] }

// rawCall is a request in bytes.
type rawCall struct {
	method, path string
	bytes        []byte
	// torn: the framing is not what HTTP asks for, so that the caller ends it by
	// saying no more.
	torn bool
}

// mutator makes calls out of samples.
type mutator struct {
	*tape
	samples []sample
	words   []string // that mean something in some place
	known   *known
}

// call makes the next call.
func (m *mutator) call() rawCall {
	s := m.samples[m.pick(len(m.samples))]
	s.headers = append([][2]string(nil), s.headers...)
	for n := m.pick(4); n > 0; n-- {
		switch m.pick(8) {
		case 0, 1, 2, 3:
			s.body = m.body(s.body)
		case 4, 5:
			s.headers = m.header(s.headers)
		case 6:
			s.path = m.target(s.path)
		default:
			s.method = m.one([]string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", "P\x00ST", "M-SEARCH", "*"})
		}
	}
	return m.frame(s)
}

// odd are texts that may be read as something else.
var odd = []string{
	"", " ", "null", "true", "0", "-1", "1e400", "9223372036854775808", "00000000000000000000000000000000", "\x00", "\n", "\u2028", "é", "\u0661\u0662",
	"\xff\xfe", "%00", "..", ".", "*", "'", "\"", "<b>", "${jndi}", "2026-13-41T25:61:61Z", "http://[::1", "http://127.0.0.1:1/", "https://listener.example/",
	"CarrierService", "SIMSec-IoT", "SIMSec-IoT-Lt", "SIMSecure-IoT-Bundle", "assign", "iccid", "ICCID", "imei", "mdn", "active", "suspend", "viewer",
	"{request}", "{listener}", "{bearer app}", "{session user}", strings.Repeat("9", 33), strings.Repeat("a", 300), strings.Repeat("ab-", 3000),
}

// word is a text for some place.
func (m *mutator) word() string {
	if m.pick(2) == 0 {
		return m.one(odd)
	}
	return m.one(m.words)
}

// target changes a path or what is behind its question mark.
func (m *mutator) target(target string) string {
	path, query, _ := strings.Cut(target, "?")
	segments := strings.Split(path, "/")
	at := m.pick(len(segments))
	escape := strings.NewReplacer(" ", "%20", "\n", "%0A", "\x00", "%00", "\"", "%22").Replace
	switch m.pick(9) {
	case 0:
		segments[at] = escape(m.word())
	case 1:
		segments = append(segments, escape(m.word()))
	case 2:
		segments[at] = m.one([]string{"", ".", "..", "%2e%2e", "%2F", "%zz", "%", ";a=b", "%C0%AF", "\\"})
	case 3:
		segments[at] = strings.ToUpper(segments[at])
	case 4:
		for _, c := range segments[at] {
			segments[at] = strings.Replace(segments[at], string(c), fmt.Sprintf("%%%02x", c), 1)
			break
		}
	case 5:
		segments = segments[:at+1]
	case 6:
		return m.samples[m.pick(len(m.samples))].path
	case 7:
		query += "&" + m.one([]string{"limit", "cursor", "account", "state", "dryRun", "from", "until", "iccid", "sku", "request", "x"}) + "=" + escape(m.word())
	default:
		query = m.one([]string{"dryRun=true&dryRun=true", "limit=0", "limit=1001", "cursor=e30", "cursor=eyJhIjoiMCJ9", "cursor=%00", "state=pending&state=ended", "%zz=%", ";", "=", "limit=1&limit=2"})
	}
	path = strings.Join(segments, "/")
	if path == "" {
		path = "/"
	}
	if query != "" {
		path += "?" + strings.TrimPrefix(query, "&")
	}
	return path
}

// header changes the headers.
func (m *mutator) header(h [][2]string) [][2]string {
	names := []string{
		"Authorization", "VZ-M2M-Token", "Content-Type", "Content-Encoding", "Idempotency-Key", "X-Request-ID", "Accept", "If-Match", "Expect",
		"Range", "traceparent", "Host", "Origin", "Cookie", "X-Forwarded-For", "Last-Event-ID", "Connection", "Upgrade", "X-HTTP-Method-Override", "Accept-Encoding", "Bad Name", "",
	}
	values := []string{
		"Bearer {bearer other}", "Bearer {operator viewer}", "Bearer {operator admin}", "bearer {bearer app}", "Basic {bearer app}", "Basic !!", "Bearer",
		"{session two}", "{session none}", "application/json", "application/json; charset=utf-16", "text/csv", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
		"gzip", "identity", "deflate, gzip", "100-continue", "200-maybe", "bytes=0-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "*", "keep-alive, Upgrade", "websocket", "key-1",
		strings.Repeat("k", 256), strings.Repeat("h", 9000), "\x7f", "a\x00b", "é", "",
	}
	at := m.pick(len(h) + 1)
	switch m.pick(6) {
	case 0:
		if at < len(h) {
			return append(h[:at], h[at+1:]...)
		}
	case 1:
		if at < len(h) {
			return append(h, h[at])
		}
	case 2:
		if at < len(h) {
			h[at][1] = m.one(values)
			return h
		}
	case 3:
		if at < len(h) {
			h[at][0] = strings.ToUpper(h[at][0])
			return h
		}
	case 4:
		return append(h, [2]string{m.one(names), m.word()})
	}
	return append(h, [2]string{m.one(names), m.one(values)})
}

// body changes a body, as JSON where it is any.
func (m *mutator) body(body string) string {
	if m.pick(4) > 0 {
		d := jsontext.NewDecoder(strings.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		if n, err := readNode(d); err == nil {
			n = m.tree(n)
			var b strings.Builder
			n.write(&b)
			return b.String()
		}
	}
	return m.text(body)
}

// text changes bytes.
func (m *mutator) text(body string) string {
	at := 0
	if body != "" {
		at = (m.pick(256)<<8 | m.pick(256)) % len(body)
	}
	switch m.pick(10) {
	case 0:
		return body[:at]
	case 1:
		if body == "" {
			return m.word()
		}
		b := []byte(body)
		b[at] ^= 1 << m.pick(8)
		return string(b)
	case 2:
		return body[:at] + m.word() + body[at:]
	case 3:
		return "\xef\xbb\xbf" + body
	case 4:
		return body + m.one([]string{"{}", " ", "\n\n", "]", "\x00", "null", body})
	case 5:
		var b bytes.Buffer
		for _, u := range utf16.Encode([]rune(body)) {
			b.WriteByte(byte(u))
			b.WriteByte(byte(u >> 8))
		}
		return b.String()
	case 6:
		return m.samples[m.pick(len(m.samples))].body
	case 7:
		return form() + "&grant_type=" + m.one(odd)
	case 8:
		return strings.Repeat(m.one([]string{"[", "{\"a\":", "[[", " ", "a=b&"}), 1+m.pick(256)*8)
	default:
		return strings.ReplaceAll(body, ",", m.one([]string{";", ",,", "\t,\r\n", ",\""}))
	}
}

// jsonNode is a JSON value, its scalars and names as they are written.
type jsonNode struct {
	kind  jsontext.Kind
	text  string
	names []string
	kids  []*jsonNode
}

func readNode(d *jsontext.Decoder) (*jsonNode, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	n := &jsonNode{kind: t.Kind(), text: t.String()}
	if n.kind == '"' {
		n.text = quote(n.text)
	}
	if n.kind != '{' && n.kind != '[' {
		return n, nil
	}
	for k := d.PeekKind(); k != '}' && k != ']'; k = d.PeekKind() {
		if n.kind == '{' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			n.names = append(n.names, quote(name.String()))
		}
		kid, err := readNode(d)
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, kid)
	}
	_, err = d.ReadToken()
	return n, err
}

func quote(s string) string {
	b, err := jsontext.AppendQuote(nil, s)
	if err != nil {
		return `"` + s + `"`
	}
	return string(b)
}

func (n *jsonNode) write(b *strings.Builder) {
	switch n.kind {
	case '{':
		b.WriteByte('{')
		for i, kid := range n.kids {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(n.names[i] + ":")
			kid.write(b)
		}
		b.WriteByte('}')
	case '[':
		b.WriteByte('[')
		for i, kid := range n.kids {
			if i > 0 {
				b.WriteByte(',')
			}
			kid.write(b)
		}
		b.WriteByte(']')
	default:
		b.WriteString(n.text)
	}
}

// nodes are a value and all in it.
func (n *jsonNode) nodes() []*jsonNode {
	all := []*jsonNode{n}
	for _, kid := range n.kids {
		all = append(all, kid.nodes()...)
	}
	return all
}

// tree changes one place of a value.
func (m *mutator) tree(root *jsonNode) *jsonNode {
	all := root.nodes()
	n := all[m.pick(len(all))]
	if len(n.kids) > 0 && m.pick(2) == 0 {
		m.inside(n)
		return root
	}
	switch m.pick(7) {
	case 0:
		*n = jsonNode{kind: '0', text: m.one([]string{"null", "true", "0", "-0", "1.0", "1e400", "123456789012345678901234567890", "{}", "[]", `""`})}
	case 1, 2:
		*n = jsonNode{kind: '"', text: quote(m.word())}
	case 3:
		*n = jsonNode{kind: '"', text: m.one([]string{`"\ud800"`, `"\ud83d\ude00"`, `"\u0000"`, `"\x"`, `"a`, "'a'", `"\u0031"`, "\"\xc3\x28\""})}
	case 4:
		*n = jsonNode{kind: '[', kids: []*jsonNode{{kind: n.kind, text: n.text, names: n.names, kids: n.kids}}}
	case 5: // written otherwise, and the same
		if n.kind == '"' && len(n.text) > 2 {
			n.text = fmt.Sprintf(`"\u%04x%s`, n.text[1], n.text[2:])
		}
	default:
		*n = *all[m.pick(len(all))].clone()
	}
	return root
}

func (n *jsonNode) clone() *jsonNode {
	it := &jsonNode{kind: n.kind, text: n.text, names: slices.Clone(n.names)}
	for _, kid := range n.kids {
		it.kids = append(it.kids, kid.clone())
	}
	return it
}

// inside changes the members of an object or the elements of an array.
func (m *mutator) inside(n *jsonNode) {
	at := m.pick(len(n.kids))
	add := func(name string, kid *jsonNode) {
		if n.kind == '{' {
			n.names = append(n.names, name)
		}
		n.kids = append(n.kids, kid)
	}
	name := ""
	if n.kind == '{' {
		name = n.names[at]
	}
	switch m.pick(7) {
	case 0:
		n.kids = append(n.kids[:at], n.kids[at+1:]...)
		if n.kind == '{' {
			n.names = append(n.names[:at], n.names[at+1:]...)
		}
	case 1:
		add(name, n.kids[at])
	case 2:
		add(name, &jsonNode{kind: '"', text: quote(m.word())})
	case 3:
		if n.kind == '{' {
			n.names[at] = m.one([]string{strings.ToUpper(name), strings.ToLower(name), `"` + name, `"__proto__"`, quote(m.one(odd)), strings.Replace(name, "e", `\u0065`, 1)})
		}
	case 4:
		add(quote(m.one(odd)), &jsonNode{kind: '0', text: "0"})
	case 5:
		other := m.pick(len(n.kids))
		n.kids[at], n.kids[other] = n.kids[other], n.kids[at]
	default:
		for times := []int{1, 10, 120, 1100}[m.pick(4)]; times > 0; times-- {
			add(name, n.kids[at])
		}
	}
}

// frame writes a request in bytes, well or otherwise.
func (m *mutator) frame(s sample) rawCall {
	s.method, s.path = m.known.fill(s.method), strings.ReplaceAll(m.known.fill(s.path), "\n", "")
	s.body = m.known.fill(s.body)
	c := rawCall{method: s.method, path: s.path}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", s.method, s.path)
	host := "Host: simlatch.example\r\n"
	for _, h := range s.headers {
		name, value := h[0], m.known.fill(h[1])
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "host":
			host = ""
		case "connection", "upgrade", "expect", "transfer-encoding", "content-length":
			c.torn = true
		}
		fmt.Fprintf(&b, "%s: %s\r\n", name, strings.ReplaceAll(value, "\n", ""))
	}
	b.WriteString(host)
	length := fmt.Sprintf("Content-Length: %d\r\n", len(s.body))
	torn := 0
	if m.pick(12) == 11 {
		torn = 1 + m.pick(10)
		c.torn = true
	}
	switch torn {
	case 0:
		if s.chunked || m.pick(8) == 7 {
			b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
			half := len(s.body) / 2
			for _, part := range []string{s.body[:half], s.body[half:]} {
				if part != "" {
					fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
				}
			}
			b.WriteString("0\r\n\r\n")
			c.bytes = b.Bytes()
			return c
		}
		b.WriteString(length + "\r\n" + s.body)
	case 1:
		b.WriteString("Content-Length: 100000\r\n\r\n" + s.body)
	case 2:
		b.WriteString("Content-Length: 3\r\n\r\n" + s.body)
	case 3:
		b.WriteString("Content-Length: -1\r\n\r\n" + s.body)
	case 4:
		b.WriteString(length + "Transfer-Encoding: chunked\r\n\r\n" + s.body)
	case 5:
		b.WriteString("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
	case 6:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + s.body)
	case 7:
		b.WriteString(length + length + "\r\n" + s.body)
	case 8:
		b.Truncate(b.Len() / 2)
	case 9:
		b.WriteString(" folded: yes\r\n" + length + "\r\n" + s.body)
	default:
		c.bytes = bytes.Replace(append(b.Bytes(), length+"\r\n"+s.body...), []byte("HTTP/1.1"), []byte(m.one([]string{"HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 x", ""})), 1)
		return c
	}
	c.bytes = b.Bytes()
	return c
}
