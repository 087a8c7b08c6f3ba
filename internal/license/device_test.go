package license

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseICCID(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{"89148000000800139708", true},
		{"891480000008001397", true},     // 18
		{"8914800000080013970", true},    // 19
		{"00000000000000000000", true},   // what it begins with is not ours to judge
		{"89148000000800139709", true},   // nor its check digit
		{"89148000000800139", false},     // 17
		{"891480000008001397081", false}, // 21
		{"", false},
		{" 8914800000080013970", false},
		{"8914800000080013970 ", false},
		{"8914800000080013970F", false},
		{"8914-8000-0080-0139-7", false},
		{"８９１４８０", false}, // full-width digits: 18 bytes
		{"8914800000080013970\n", false},
		{"8914800000080013970\x00", false},
	} {
		got, err := ParseICCID(tt.in)
		checkParse(t, "ParseICCID", tt.in, string(got), err, tt.ok)
	}
}

func TestParseIMEI(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{"990013907835573", true},
		{"990013907884259", true}, // the reference's sample, whose check digit is wrong
		{"000000000000000", true},
		{"99001390783557", false},
		{"9900139078355730", false},
		{"", false},
		{"99001390783557x", false},
		{"+99001390783557", false},
		{"99001390 783557", false},
		{"٩٩٠٠١٣٩٠", false},
	} {
		got, err := ParseIMEI(tt.in)
		checkParse(t, "ParseIMEI", tt.in, string(got), err, tt.ok)
	}
}

func TestParseMDN(t *testing.T) {
	for in, ok := range map[string]bool{
		"": true, "5551230001": true, "123456789012345": true, "1234567890123456": false, "+15551230001": false, "555-123": false,
	} {
		got, err := ParseMDN(in)
		checkParse(t, "ParseMDN", in, string(got), err, ok)
	}
}

// checkParse checks that a parser gave its input back, or an *InputError.
func checkParse(t *testing.T, name, in, got string, err error, ok bool) {
	t.Helper()
	var ie *InputError
	switch {
	case ok && (err != nil || got != in):
		t.Errorf("%s(%q) = %q, %v, want it as it is", name, in, got, err)
	case !ok && (!errors.As(err, &ie) || ie.Value != in || ie.Field != FieldDeviceID):
		t.Errorf("%s(%q) = %q, %v, want an InputError that names it", name, in, got, err)
	case !ok && got != "":
		t.Errorf("%s(%q) = %q beside an error", name, in, got)
	}
}

func TestImportIMEI(t *testing.T) {
	for _, tt := range []struct {
		in, want, warning string
		ok                bool
	}{
		// Published examples of IMEIs with their check digits.
		{"490154203237518", "490154203237518", "", true},
		{"352099001761481", "352099001761481", "", true},
		{"356938035643809", "356938035643809", "", true},
		{"49015420323751", "490154203237518", "", true},
		{"35209900176148", "352099001761481", "", true},
		{"00000000000000", "000000000000000", "", true},
		{"4901542032375199", "490154203237518", "", true}, // an IMEISV of version 99
		{"990013907884259", "990013907884259", "the check digit of IMEI 990013907884259 should be ", true},
		{"490154203237519", "490154203237519", "the check digit of IMEI 490154203237519 should be 8", true},
		{"4901542032375", "", "", false},
		{"49015420323751999", "", "", false},
		{"", "", "", false},
		{"4901542032375a", "", "", false},
		{"490154203237 18", "", "", false},
	} {
		got, warning, err := ImportIMEI(tt.in)
		if string(got) != tt.want || !strings.HasPrefix(warning, tt.warning) || (warning == "") != (tt.warning == "") || (err == nil) != tt.ok {
			t.Errorf("ImportIMEI(%q) = %q, %q, %v, want %q, %q", tt.in, got, warning, err, tt.want, tt.warning)
		}
		if again, warning, err := ImportIMEI(string(got)); tt.ok && len(tt.in) != 15 && (again != got || warning != "" || err != nil) {
			t.Errorf("ImportIMEI(%q) = %q, %q, %v, want what ImportIMEI made to be right", got, again, warning, err)
		}
	}
}

func TestParseStateAndGeneration(t *testing.T) {
	for in, want := range map[string]State{
		"": StateActive, "active": StateActive, "Activate": StateActive, "SUSPEND": StateSuspended, "suspended": StateSuspended,
		"deactive": StateInactive, "inactive": StateInactive, "pre-active": StatePreActive, "PreActive": StatePreActive,
	} {
		if got, err := ParseState(in); got != want || err != nil {
			t.Errorf("ParseState(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]Generation{"": "4G", "4g": "4G", "2G": "2G", "3g": "3G", "5G": "5G"} {
		if got, err := ParseGeneration(in); got != want || err != nil {
			t.Errorf("ParseGeneration(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"activ", " active", "lte", "4", "６G"} {
		if got, err := ParseState(in); err == nil {
			t.Errorf("ParseState(%q) = %q, want an error", in, got)
		}
		if got, err := ParseGeneration(in); err == nil {
			t.Errorf("ParseGeneration(%q) = %q, want an error", in, got)
		}
	}
}

func TestParseAccountName(t *testing.T) {
	for in, ok := range map[string]bool{
		"0000123456-00001": true, "000012345600001": true, "abc": true, "A-1": true, "--1": true, strings.Repeat("a", 32): true,
		"": false, "ab": false, "---": false, "a b": false, "a_b": false, "äöü": false, "a/b": false, strings.Repeat("a", 33): false,
	} {
		got, err := ParseAccountName(in)
		if (err == nil) != ok || ok && string(got) != in {
			t.Errorf("ParseAccountName(%q) = %q, %v, want it to be right: %v", in, got, err, ok)
		}
	}
	if a, b := AccountName("0000123456-00001").Folded(), AccountName("000012345600001").Folded(); a != b {
		t.Errorf("%q and %q are one account", a, b)
	}
}

func TestParseSKU(t *testing.T) {
	for _, sku := range SKUs() {
		if got, err := ParseSKU(string(sku)); got != sku || err != nil {
			t.Errorf("ParseSKU(%q) = %q, %v", sku, got, err)
		}
		if got := sku.Lifetime(); got != (sku == "SIMSec-IoT-Lt") {
			t.Errorf("%s.Lifetime() = %v", sku, got)
		}
	}
	for _, in := range []string{"", "simsec-iot", "SIMSec-IoT ", "SIMSec"} {
		if got, err := ParseSKU(in); err == nil {
			t.Errorf("ParseSKU(%q) = %q, want an error", in, got)
		}
	}
	labels := map[SKU]string{}
	for _, sku := range SKUs() {
		labels[sku] = sku.Label()
	}
	want := map[SKU]string{SKULifetime: "Lifetime", SKUFlexible: "Flexible", SKUBundle: "Flexible Bundle", SKUIntelligence: "Intelligence Bundle"}
	if diff := cmp.Diff(want, labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestErrorsStayShort(t *testing.T) {
	_, err := ParseICCID(strings.Repeat("9", 10_000) + "\n\x00")
	if n := len(err.Error()); n > 120 {
		t.Errorf("an error of %d bytes quotes its input: %v", n, err)
	}
	_, err = ParseICCID("1\n\x002")
	if strings.ContainsAny(err.Error(), "\n\x00") {
		t.Errorf("%q shows control characters", err)
	}
	devices := []Device{{ICCID: "89148000000800139708"}, {IMEI: "990013907835573"}, {IMEI: "990013907835574"}}
	for n, want := range []string{
		"a device is not active",
		"a device is not active: 89148000000800139708",
		"a device is not active: 89148000000800139708 and 1 more",
		"a device is not active: 89148000000800139708 and 2 more",
	} {
		err := &DevicesError{Err: ErrNotActive, Devices: devices[:n]}
		if got := err.Error(); got != want || !errors.Is(err, ErrNotActive) {
			t.Errorf("a DevicesError of %d devices = %q, want %q", n, got, want)
		}
	}
}

func FuzzIdentifiers(f *testing.F) {
	for _, s := range []string{"89148000000800139708", "990013907835573", "49015420323751", "4901542032375199", "", "８９", "1\x00", "+1234567890123456"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseICCID(s); err == nil && (string(id) != s || len(s) < 18 || len(s) > 20 || strings.Trim(s, "0123456789") != "") {
			t.Errorf("ParseICCID(%q) = %q", s, id)
		}
		_, err := ParseIMEI(s)
		if ok := len(s) == 15 && strings.Trim(s, "0123456789") == ""; ok != (err == nil) {
			t.Errorf("ParseIMEI(%q): %v", s, err)
		}
		id, warning, err := ImportIMEI(s)
		if err != nil {
			if id != "" || warning != "" {
				t.Errorf("ImportIMEI(%q) = %q, %q beside an error", s, id, warning)
			}
			return
		}
		if _, err := ParseIMEI(string(id)); err != nil || id[:14] != IMEI(s[:14]) {
			t.Errorf("ImportIMEI(%q) = %q, which is no IMEI of it: %v", s, id, err)
		}
		if wrong := !luhnHolds(string(id)); wrong != (warning != "") {
			t.Errorf("ImportIMEI(%q) = %q, warning %q, want one: %v", s, id, warning, wrong)
		}
	})
}

// luhnHolds is the check as ISO/IEC 7812-1 describes it, over the whole number.
func luhnHolds(s string) bool {
	sum := 0
	for i := range len(s) {
		d := int(s[len(s)-1-i] - '0')
		if i%2 == 1 {
			d = d*2/10 + d*2%10
		}
		sum += d
	}
	return sum%10 == 0
}

func FuzzParseAccountName(f *testing.F) {
	for _, s := range []string{"0000123456-00001", "---", "a", "ä12", "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAccountName(s)
		if err != nil {
			return
		}
		if string(a) != s || a.Folded() == "" || strings.Contains(a.Folded(), "-") || len(s) > 32 {
			t.Errorf("ParseAccountName(%q) = %q, folded %q", s, a, a.Folded())
		}
		if strings.ContainsAny(s, " /\\%_'\"\x00\n") {
			t.Errorf("ParseAccountName(%q) took it", s)
		}
	})
}
