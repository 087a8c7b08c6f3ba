package api

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// names are those of an object's members, as a reader takes them that does not
// mind their case. Two that are one to it make a body that says two things.
type names struct {
	few   [8]string
	count int
	more  map[string]bool // folded, when there are more than few
}

// twice reports whether a name was there before, in any case, and notes it.
func (n *names) twice(name string) bool {
	for _, before := range n.few[:min(n.count, len(n.few))] {
		if len(before) == len(name) && before == name || strings.EqualFold(before, name) {
			return true
		}
	}
	if n.count < len(n.few) {
		n.few[n.count] = name
		n.count++
		return false
	}
	if n.more == nil {
		n.more = map[string]bool{}
	}
	folded := strings.ToLower(strings.ToUpper(name))
	if n.more[folded] {
		return true
	}
	n.more[folded] = true
	return false
}

func errTwice(dec *jsontext.Decoder) error {
	return errUnreadable("duplicate member but for its case" + place(dec.StackPointer(), dec.InputOffset()))
}

// passNames reads one value whose meaning nobody asks for, and refuses one that
// nests too deeply, or has an object with a member twice, in whatever case.
func passNames(dec *jsontext.Decoder) error {
	base := dec.StackDepth()
	var open []*names // of the objects and arrays that are open; nil for arrays
	for {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		depth := dec.StackDepth()
		if depth > maxDepth {
			return errUnreadable(fmt.Sprintf("more than %d levels of nesting at byte %d", maxDepth, dec.InputOffset()))
		}
		switch token.Kind() {
		case '{':
			open = append(open, &names{})
		case '[':
			open = append(open, nil)
		case '}', ']':
			open = open[:len(open)-1]
		case '"':
			_, length := dec.StackIndex(depth)
			if len(open) > 0 && open[len(open)-1] != nil && length%2 == 1 && open[len(open)-1].twice(token.String()) {
				return errTwice(dec)
			}
		default: // a value that is not a string has no name in it
		}
		if depth == base {
			return nil
		}
	}
}
