package exchange

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// parseRecorded reads a message; nil where it is no JSON.
func parseRecorded(text []byte) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return nil
	}
	return v
}

// encodeRecorded writes a message as one line, which cannot be taken for
// anything else in a file.
func encodeRecorded(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return "{}" // it was read from JSON
	}
	return strings.TrimSpace(b.String())
}

// member is a text in an object.
func member(v any, name string) (string, bool) {
	m, _ := v.(map[string]any)
	s, ok := m[name].(string)
	return s, ok
}

// accountInPath takes the account's name out of a path that holds one.
func accountInPath(path string) (account, rest string, ok bool) {
	for _, before := range []string{"/accounts/", "/callbacks/"} {
		head, tail, found := strings.Cut(path, before)
		name, end, more := strings.Cut(tail, "/")
		if !found || name == "subscriptions" {
			continue
		}
		if more {
			end = "/" + end
		}
		if plain, err := url.PathUnescape(name); err == nil {
			name = plain
		}
		return name, head + before + "${account}" + end, true
	}
	return "", path, false
}

// requestInPath is the requestId in the path of a request's status.
func requestInPath(path string) string {
	_, tail, found := strings.Cut(path, "/requests/")
	id, _, _ := strings.Cut(tail, "/")
	if !found {
		return ""
	}
	return id
}

// nameOf is a word for a request, for the name of its file.
func nameOf(method, path string) string {
	path = strings.TrimPrefix(strings.TrimPrefix(path, "/api/m2m/v1/"), "/api/ts/v1/")
	words := strings.FieldsFunc(strings.ToLower(method+"-"+path), func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9')
	})
	name := strings.Join(words, "-")
	return name[:min(len(name), 60)]
}

// concealRequest puts variables in the place of what only the recorded client
// may know, and reports whether that is its listener.
func concealRequest(m map[string]any, path string) (listener bool) {
	switch {
	case strings.HasSuffix(path, "/session/login"):
		m["username"], m["password"] = variable("user.name"), variable("user.password")
	case strings.Contains(path, "/callbacks/"):
		m["url"] = variable("listener")
		for _, name := range []string{"username", "password"} {
			if m[name] != nil {
				m[name] = masked
			}
		}
		return true
	default:
		for _, name := range []string{"password", "oldPassword"} {
			if m[name] != nil {
				m[name] = masked
			}
		}
	}
	return false
}

// variable is a variable in a message.
type variable string

// MarshalText implements encoding.TextMarshaler.
func (v variable) MarshalText() ([]byte, error) { return []byte("${" + string(v) + "}"), nil }

// standIn is a placeholder in a message for what is another each time.
type standIn string

// general are the members of answers that are others each time, by what stands
// for them.
var general = map[string]standIn{
	"access_token": "<text>", "refresh_token": "<text>", "sessionToken": "<text>", "newPassword": "<text>", "password": "<string>",
	"expires_in": "<int>", "expiresIn": "<int>",
}

// generalize makes a message that was recorded one that is expected: the account
// and the request's id are variables, and what is another each time a placeholder.
// id is the request's, where that is known already.
func generalize(v any, account, id string) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			text, isText := value.(string)
			switch {
			case general[name] != "" && (!isText || text != masked):
				out[name] = general[name]
				if _, ours := value.(variable); ours {
					out[name] = value
				}
			case name == "requestId" && isText && id == "":
				out[name] = standIn("<text as requestId>")
			default:
				out[name] = generalize(value, account, id)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = generalize(v[i], account, id)
		}
		return out
	case string:
		switch {
		case account != "" && v == account:
			return variable("account")
		case id != "" && v == id:
			return variable("requestId")
		case strings.HasPrefix(v, "<"):
			return standIn("<string>") // it would be taken for one
		}
		return literal(v)
	}
	return v
}

// literal is a text in which nothing stands for anything else.
type literal string

// MarshalJSON implements json.Marshaler.
func (l literal) MarshalJSON() ([]byte, error) {
	return []byte(strings.ReplaceAll(encodeRecorded(string(l)), "$", `\u0024`)), nil
}

// step is the text of a request and its answer. A message that is no JSON is kept
// only where it is a form.
func step(method, path string, in any, form []byte, status int, out any) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- request --\n%s %s\n", method, path)
	switch {
	case in != nil:
		fmt.Fprintf(&b, "\n%s\n", encodeRecorded(in))
	case bytes.HasPrefix(form, []byte("grant_type=")) && !bytes.ContainsAny(form, "\n$"):
		fmt.Fprintf(&b, "\n%s\n", form)
	}
	fmt.Fprintf(&b, "-- response --\n%d\n", status)
	if out != nil {
		fmt.Fprintf(&b, "\n%s\n", encodeRecorded(out))
	}
	return b.String()
}
