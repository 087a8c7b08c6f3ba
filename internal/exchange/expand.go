package exchange

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// ErrUndefined is what Check and Run report of a name that neither the seed nor
// an earlier answer gives.
var ErrUndefined = errors.New("not defined")

var (
	reference  = regexp.MustCompile(`\$\{([^{}]*)\}`)
	calculated = regexp.MustCompile(`^([A-Za-z][\w.]*)([+-]\d+)$`)
)

// expand replaces the variables in text. It fails on one that is not defined.
func expand(text string, vars map[string]string) (string, error) {
	var first error
	// Twice: a reference may itself be made of variables, and a variable from a
	// table of cases may hold references.
	for range 2 {
		text = reference.ReplaceAllStringFunc(text, func(ref string) string {
			value, err := resolve(ref[2:len(ref)-1], vars)
			if err != nil && first == nil {
				first = err
			}
			return value
		})
	}
	return text, first
}

func resolve(expr string, vars map[string]string) (string, error) {
	name, args, isCall := strings.Cut(expr, " ")
	if isCall {
		return call(name, args, vars)
	}
	if value, ok := vars[expr]; ok {
		return value, nil
	}
	if m := calculated.FindStringSubmatch(expr); m != nil {
		a, err := strconv.Atoi(vars[m[1]])
		if err != nil {
			return "", fmt.Errorf("${%s}: %s is %q, not a number", expr, m[1], vars[m[1]])
		}
		b, err := strconv.Atoi(m[2])
		return strconv.Itoa(a + b), err
	}
	return "", fmt.Errorf("${%s} is %w", expr, ErrUndefined)
}

// call is a value made on the spot.
func call(name, args string, vars map[string]string) (string, error) {
	switch name {
	case "devices":
		return seedDevices(strings.Fields(args), vars)
	case "made":
		n, err := strconv.Atoi(args)
		return madeDevices(n), err
	case "repeat":
		count, text, _ := strings.Cut(args, " ")
		n, err := strconv.Atoi(count)
		return strings.Repeat(text, n), err
	case "plain":
		value, err := resolve(args, vars)
		return strings.ReplaceAll(value, "-", ""), err
	case "base64":
		return base64.StdEncoding.EncodeToString([]byte(args)), nil
	}
	return "", fmt.Errorf("${%s %s}: there is no such function", name, args)
}

// seedDevices is the JSON of the named devices, each by IMEI and ICCID in the
// documented order and spelling.
func seedDevices(names []string, vars map[string]string) (string, error) {
	var b strings.Builder
	for i, n := range names {
		imei, known := vars[n+".imei"]
		if !known {
			return "", fmt.Errorf("the device %q of the seed is %w", n, ErrUndefined)
		}
		writeDevice(&b, i, imei, vars[n+".iccid"])
	}
	return b.String(), nil
}

// madeDevices is the JSON of n devices that are in no seed.
func madeDevices(n int) string {
	var b strings.Builder
	for i := range n {
		writeDevice(&b, i, fmt.Sprintf("99%013d", i), fmt.Sprintf("8999999%013d", i))
	}
	return b.String()
}

func writeDevice(b *strings.Builder, i int, imei, iccid string) {
	if i > 0 {
		b.WriteString(", ")
	}
	fmt.Fprintf(b, `{"deviceIds": [{"id": %q, "kind": "imei"}, {"id": %q, "kind": "iccid"}]}`, imei, iccid)
}

// Expand returns the request with its variables replaced, in hexadecimal no
// more. It fails on a variable that vars does not define.
func (q Request) Expand(vars map[string]string) (Request, error) {
	var errs [4]error
	q.Method, errs[0] = expand(q.Method, vars)
	q.Path, errs[1] = expand(q.Path, vars)
	q.Headers, errs[2] = expandHeaders(q.Headers, vars)
	q.Body, errs[3] = expand(q.Body, vars)
	if err := errors.Join(errs[:]...); err != nil || !q.Hex {
		return q, err
	}
	raw, err := hex.DecodeString(strings.Join(strings.Fields(q.Body), ""))
	if err != nil {
		return q, fmt.Errorf("a body in hexadecimal: %w", err)
	}
	q.Body, q.Hex = string(raw), false
	return q, nil
}
