package exchange

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// masked stands in results for what nobody else may read.
const masked = "***"

// shortestSecret is the shortest value that is masked wherever it stands. What
// is shorter would take words apart, and is masked only where its place says
// that it is a secret.
const shortestSecret = 6

// Places that hold secrets. The ends allow for a text that was cut off.
var (
	secretMember = regexp.MustCompile(`("(?:access_token|refresh_token|client_secret|sessionToken|password|oldPassword|newPassword)"\s*:\s*)"((?:[^"\\]|\\.)*)(?:"|…|$)`)
	secretHeader = regexp.MustCompile(`(?im)^((?:Proxy-)?Authorization: +(?:Basic|Bearer) +|VZ-M2M-Token: *|Set-Cookie: *)(\S.*)$`)
	secretField  = regexp.MustCompile(`((?:^|[\n&?])(?:client_secret|password|token|access_token|refresh_token)=)([^&\s]+)`)
	secretPlace  = regexp.MustCompile(`(?i)\.(?:access_token|refresh_token|sessionToken|\w*password)$|^header (?:Authorization|VZ-M2M-Token)$`)
	secretVar    = regexp.MustCompile(`\.(?:secret|password|token|session)$|^(?:bearer|session)$`)
	// What stands for a secret, or in the place of one, and is none.
	placeholders = regexp.MustCompile(`^"?<.*>"?$|^$`)
	otherValues  = regexp.MustCompile(`^(?:nothing|null|\d+|true|false|\[.*|\{.*)$`)
)

// masker takes the secrets out of texts: those it was told of wherever they
// stand, and whatever stands where a secret does.
type masker struct{ values []string }

// newMasker knows the secrets among variables.
func newMasker(vars map[string]string) *masker {
	m := &masker{}
	for name, value := range vars {
		if secretVar.MatchString(name) {
			m.learn(value)
		}
	}
	return m
}

func (m *masker) learn(value string) {
	if len(value) < shortestSecret || slices.Contains(m.values, value) {
		return
	}
	m.values = append(m.values, value)
	// The longest first, lest one that another begins with leaves its end.
	slices.SortFunc(m.values, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
}

// read learns the tokens in an answer.
func (m *masker) read(text string) {
	for _, found := range secretMember.FindAllStringSubmatch(text, -1) {
		if !placeholders.MatchString(found[2]) {
			m.learn(found[2])
		}
	}
}

// text is a text without its secrets.
func (m *masker) text(s string) string {
	for _, v := range m.values {
		s = strings.ReplaceAll(s, v, masked)
	}
	s = secretMember.ReplaceAllStringFunc(s, func(found string) string {
		part := secretMember.FindStringSubmatch(found)
		if placeholders.MatchString(part[2]) {
			return found
		}
		return part[1] + `"` + masked + `"`
	})
	s = secretHeader.ReplaceAllString(s, "${1}"+masked)
	return secretField.ReplaceAllString(s, "${1}"+masked)
}

// result takes the secrets out of a result.
func (m *masker) result(r *Result) {
	for _, s := range r.Steps {
		m.read(s.Got)
	}
	r.Error = m.text(r.Error)
	for i := range r.Steps {
		s := &r.Steps[i]
		s.Name, s.Request, s.Want, s.Got = m.text(s.Name), m.text(s.Request), m.text(s.Want), m.text(s.Got)
		for j := range s.Diffs {
			s.Diffs[j] = m.diff(s.Diffs[j])
		}
		for j := range s.Callbacks {
			s.Callbacks[j] = m.text(s.Callbacks[j])
		}
	}
}

// diff is a difference without its secrets, which is still seen to be one.
func (m *masker) diff(d Diff) Diff {
	hide := func(s string) string {
		if secretPlace.MatchString(d.At) && !placeholders.MatchString(s) && !otherValues.MatchString(s) {
			return masked
		}
		return m.text(s)
	}
	want, got := hide(d.Want), hide(d.Got)
	if want == got {
		got = "another value"
	}
	return Diff{At: d.At, Want: want, Got: got}
}
