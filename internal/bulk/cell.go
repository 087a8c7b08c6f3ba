package bulk

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/simlatch/simlatch/internal/license"
)

// remedy is what to do about digits that a spreadsheet has lost.
const remedy = "take the file from where it came, format the column as text before the numbers are put in, and export it anew"

// decodeText turns a file into text: UTF-8 with or without a byte order mark,
// or UTF-16 with one, which is what spreadsheets call Unicode text.
func decodeText(raw []byte) (string, error) {
	switch {
	case bytes.HasPrefix(raw, []byte("PK\x03\x04")):
		return "", errors.New("it is a spreadsheet (.xlsx or .ods), not a CSV file: save it as CSV")
	case bytes.HasPrefix(raw, []byte("\xd0\xcf\x11\xe0")):
		return "", errors.New("it is a spreadsheet (.xls), not a CSV file: save it as CSV")
	case bytes.HasPrefix(raw, []byte{0xff, 0xfe}), bytes.HasPrefix(raw, []byte{0xfe, 0xff}):
		raw = fromUTF16(raw[2:], raw[0] == 0xfe)
	case bytes.IndexByte(raw, 0) >= 0:
		return "", errors.New("it is no text: it has bytes that are zero; save it as CSV in UTF-8")
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	// Old programs end lines with CR alone.
	if bytes.IndexByte(raw, '\n') < 0 {
		raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("\n"))
	}
	// Text that a spreadsheet shall not count with stands as ="…", which is no CSV.
	raw = formula.ReplaceAll(raw, []byte("$1$2"))
	// Other columns may hold names in another encoding; digits are the same in all.
	return strings.ToValidUTF8(string(raw), "\ufffd"), nil
}

// formula is a cell that is written ="…".
var formula = regexp.MustCompile(`(^|[,;|\t\n])="([^"\r\n]*)"`)

func fromUTF16(raw []byte, bigEndian bool) []byte {
	units := make([]uint16, len(raw)/2)
	for i := range units {
		low, high := raw[2*i], raw[2*i+1]
		if bigEndian {
			low, high = high, low
		}
		units[i] = uint16(high)<<8 | uint16(low)
	}
	return []byte(string(utf16.Decode(units)))
}

// separator finds what stands between the cells: what the first line has most
// of outside quotes, or what a line "sep=" before it says.
func separator(text string) (string, rune) {
	first, rest, _ := strings.Cut(text, "\n")
	if named, ok := strings.CutPrefix(strings.TrimRight(first, "\r"), "sep="); ok && len(named) == 1 {
		return "\n" + rest, rune(named[0]) // the reader passes over the empty line
	}
	for strings.TrimSpace(first) == "" && rest != "" {
		first, rest, _ = strings.Cut(rest, "\n")
	}
	best, most := ',', 0
	for _, c := range ",;\t|" {
		n, quoted := 0, false
		for _, r := range first {
			switch {
			case r == '"':
				quoted = !quoted
			case r == c && !quoted:
				n++
			}
		}
		if n > most {
			best, most = c, n
		}
	}
	return text, best
}

// clean takes off what surrounds a number without changing it: spaces of all
// kinds, and the apostrophe or the ="…" that keeps a spreadsheet from counting
// with it.
func clean(cell string) string {
	cell = strings.Trim(cell, " \t\r\n\u00a0\u200b\u202f\ufeff")
	if inner, ok := strings.CutPrefix(cell, `="`); ok {
		cell = strings.TrimSuffix(inner, `"`)
	}
	return strings.TrimSpace(strings.TrimPrefix(cell, "'"))
}

// scientific is how spreadsheets show large numbers.
var scientific = regexp.MustCompile(`^[+-]?[0-9]+([.,][0-9]+)?[eE][+-]?[0-9]+$`)

// badICCID says what is wrong with an ICCID, and what to do; empty: nothing is.
func badICCID(s string) string {
	if reason := badDigits(s, "ICCID"); reason != "" {
		if bare := strings.TrimRight(s, "fF"); bare != s && len(bare) >= 18 && badDigits(bare, "ICCID") == "" {
			return fmt.Sprintf("%s ends in F, which only fills up the last byte on the card: write %s", quote(s), bare)
		}
		return reason
	}
	switch n := len(s); {
	case n < 18:
		return fmt.Sprintf("%s has %d digits, and an ICCID has 18 to 20: some are missing", quote(s), n)
	case n > 20:
		return fmt.Sprintf("%s has %d digits, and an ICCID has 18 to 20", quote(s), n)
	}
	return ""
}

// badIMEI is badICCID for an IMEI.
func badIMEI(s string) string {
	if reason := badDigits(s, "IMEI"); reason != "" {
		return reason
	}
	if len(s) == 15 {
		return ""
	}
	reason := fmt.Sprintf("%s has %d digits, and an IMEI has 15", quote(s), len(s))
	whole, _, err := license.ImportIMEI(s)
	switch {
	case err != nil:
		return reason
	case len(s) == 16:
		return reason + fmt.Sprintf(": this is an IMEISV; its IMEI is %s", whole)
	}
	reason += fmt.Sprintf(": with its check digit it is %s", whole)
	if zero, warning, _ := license.ImportIMEI("0" + s); warning == "" {
		reason += fmt.Sprintf(", or %s if a spreadsheet has dropped the zero before it", zero)
	}
	return reason
}

// badDigits says what is in a cell that should hold digits only.
func badDigits(s, what string) string {
	plain := strings.Trim(s, "0123456789") == ""
	whole, isFraction := strings.CutSuffix(strings.Replace(s, ",", ".", 1), ".0")
	switch {
	case s == "":
		return "the " + what + " is missing"
	case plain:
		return ""
	case scientific.MatchString(s):
		return fmt.Sprintf("%s is a number as a spreadsheet shows it, and the digits behind are lost: %s", quote(s), remedy)
	case isFraction && len(whole) > 15 && strings.Trim(whole, "0123456789") == "":
		return fmt.Sprintf("%s has been a number with a fraction, which keeps 15 to 17 digits: the others are lost; %s", quote(s), remedy)
	case isFraction && strings.Trim(whole, "0123456789") == "":
		return fmt.Sprintf("%s is written as a number with a fraction: write %s", quote(s), whole)
	case strings.HasPrefix(s, "#"):
		return fmt.Sprintf("%s is what a spreadsheet shows instead of a value: widen the column or mend the formula, and export it anew", quote(s))
	}
	joined := strings.NewReplacer(" ", "", "-", "", ".", "", "\u00a0", "", "\u202f", "").Replace(s)
	if strings.Trim(joined, "0123456789") == "" && joined != "" {
		return fmt.Sprintf("%s has something between its digits: write %s", quote(s), joined)
	}
	for i, r := range s {
		if r < '0' || r > '9' {
			return fmt.Sprintf("%s has %q at place %d, and an %s has digits only", quote(s), r, utf8.RuneCountInString(s[:i])+1, what)
		}
	}
	return ""
}

// quote is a value in quotes, cut where it is long.
func quote(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return fmt.Sprintf("%q", s)
}
