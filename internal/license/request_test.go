package license

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

var at = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

const (
	iccidA = ICCID("89148000000000000001")
	iccidB = ICCID("89148000000000000002")
	imeiA  = IMEI("490154203237518")
	imeiB  = IMEI("352099001761481")
)

func TestNewRequestSorts(t *testing.T) {
	devices := []Device{{ICCID: iccidB, IMEI: imeiB}, {IMEI: imeiA}, {ICCID: iccidA}, {IMEI: imeiB}}
	r, err := NewRequest("id", "account", SKUFlexible, Unassign, devices, at)
	if err != nil {
		t.Fatal(err)
	}
	want := &Request{
		ID: "id", Account: "account", SKU: SKUFlexible, Action: Unassign, At: at,
		Devices: []Device{{IMEI: imeiB}, {IMEI: imeiA}, {ICCID: iccidA}, {ICCID: iccidB, IMEI: imeiB}},
	}
	if diff := gocmp.Diff(want, r); diff != "" {
		t.Errorf("NewRequest (-want +got):\n%s", diff)
	}
}

func TestNewRequestRefuses(t *testing.T) {
	var input *InputError
	if _, err := NewRequest("id", "a", SKULifetime, Unassign, nil, at); !errors.As(err, &input) || input.Field != FieldDevices {
		t.Errorf("NewRequest of nothing = %v, want an InputError about the devices", err)
	}
	for _, tt := range []struct {
		name    string
		devices []Device
		twice   []Device
	}{
		{"one ICCID", []Device{{ICCID: iccidA}, {ICCID: iccidB}, {ICCID: iccidA}}, []Device{{ICCID: iccidA}}},
		{"one ICCID, with and without IMEI", []Device{{ICCID: iccidA, IMEI: imeiA}, {ICCID: iccidA}}, []Device{{ICCID: iccidA, IMEI: imeiA}}},
		{"one ICCID, other IMEIs", []Device{{ICCID: iccidA, IMEI: imeiA}, {ICCID: iccidA, IMEI: imeiB}}, []Device{{ICCID: iccidA, IMEI: imeiA}}},
		{"one IMEI", []Device{{IMEI: imeiA}, {IMEI: imeiB}, {IMEI: imeiA}}, []Device{{IMEI: imeiA}}},
		{"three times", []Device{{IMEI: imeiA}, {IMEI: imeiA}, {IMEI: imeiA}}, []Device{{IMEI: imeiA}, {IMEI: imeiA}}},
		// Whether this is one SIM only the store can tell.
		{"an ICCID and an IMEI", []Device{{ICCID: iccidA}, {IMEI: imeiA}}, nil},
		{"one IMEI, two ICCIDs", []Device{{ICCID: iccidA, IMEI: imeiA}, {ICCID: iccidB, IMEI: imeiA}}, nil},
	} {
		_, err := NewRequest("id", "a", SKULifetime, Assign, tt.devices, at)
		var de *DevicesError
		switch {
		case tt.twice == nil:
			if err != nil {
				t.Errorf("%s: NewRequest = %v", tt.name, err)
			}
		case !errors.Is(err, ErrDuplicate) || !errors.As(err, &de):
			t.Errorf("%s: NewRequest = %v, want ErrDuplicate", tt.name, err)
		default:
			slices.SortFunc(de.Devices, func(a, b Device) int { return cmp.Compare(b.IMEI, a.IMEI) })
			if len(de.Devices) != len(tt.twice) || de.Devices[0].ICCID != tt.twice[0].ICCID {
				t.Errorf("%s: named twice are %v, want %v", tt.name, de.Devices, tt.twice)
			}
		}
	}
	if _, err := NewRequest("id", "a", SKULifetime, Unassign, []Device{{ICCID: iccidA}}, at); !errors.Is(err, ErrLifetime) {
		t.Errorf("unassign of a lifetime SKU = %v, want ErrLifetime", err)
	}
	if _, err := NewRequest("id", "a", SKULifetime, Unassign, []Device{{ICCID: iccidA}, {ICCID: iccidA}}, at); !errors.Is(err, ErrDuplicate) {
		t.Errorf("unassign of a lifetime SKU with a duplicate = %v, want ErrDuplicate first", err)
	}
}

// FuzzSortDevices reads each three bytes as a device and compares with what
// comparing all pairs finds.
func FuzzSortDevices(f *testing.F) {
	f.Add([]byte{1, 1, 0, 0, 1, 0, 1, 0, 0})
	f.Add([]byte{0, 1, 0, 0, 1, 0})
	f.Add([]byte{2, 1, 0, 1, 2, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var devices []Device
		for ; len(b) >= 3 && len(devices) < 50; b = b[3:] {
			var d Device
			if n := b[0] % 8; n > 0 {
				d.ICCID = ICCID(strings.Repeat(string('0'+rune(n)), 20))
			}
			if n := b[1] % 8; n > 0 {
				d.IMEI = IMEI(strings.Repeat(string('0'+rune(n)), 15))
			}
			devices = append(devices, d)
		}
		want := false
		for i, a := range devices {
			for _, b := range devices[i+1:] {
				want = want || a.ICCID != "" && a.ICCID == b.ICCID || a.ICCID == "" && b.ICCID == "" && a.IMEI == b.IMEI
			}
		}
		twice := SortDevices(devices)
		if got := len(twice) > 0; got != want {
			t.Errorf("SortDevices(%v) = %v, want some: %v", devices, twice, want)
		}
		if !slices.IsSortedFunc(devices, func(a, b Device) int {
			return cmp.Or(cmp.Compare(a.ICCID, b.ICCID), cmp.Compare(a.IMEI, b.IMEI))
		}) {
			t.Errorf("not sorted: %v", devices)
		}
	})
}

func TestNewRequestID(t *testing.T) {
	canonical := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	var last RequestID
	seen := map[RequestID]bool{}
	for i := range 2000 {
		now := at.Add(time.Duration(i) * time.Millisecond)
		id := NewRequestID(now, rand.Reader)
		if !canonical.MatchString(string(id)) {
			t.Fatalf("NewRequestID = %q, want a UUID of version 7", id)
		}
		if id <= last || seen[id] {
			t.Fatalf("NewRequestID a millisecond after %q = %q, want a greater one", last, id)
		}
		last, seen[id] = id, true
	}
	// RFC 9562, A.6: 2022-02-22 19:22:22 UTC and these random bits.
	when := time.UnixMilli(0x017F22E279B0)
	if got, want := NewRequestID(when, bytes.NewReader([]byte{0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f})),
		RequestID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"); got != want {
		t.Errorf("NewRequestID(%v) = %q, want %q", when.UTC(), got, want)
	}
	defer func() {
		if recover() == nil {
			t.Error("NewRequestID without randomness did not panic")
		}
	}()
	NewRequestID(at, bytes.NewReader(nil))
}

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		total, done, failed int
		want                Status
	}{
		{3, 0, 0, StatusPending},
		{3, 2, 0, StatusPending},
		{3, 0, 2, StatusPending}, // a failure does not decide before the end
		{3, 3, 0, StatusSuccess},
		{3, 2, 1, StatusFailure},
		{3, 0, 3, StatusFailure},
	} {
		if got := (Progress{Total: tt.total, Done: tt.done, Failed: tt.failed}).Status(); got != tt.want {
			t.Errorf("Status of %d done and %d failed of %d = %s, want %s", tt.done, tt.failed, tt.total, got, tt.want)
		}
	}
}

func TestPoolAvailable(t *testing.T) {
	if got := (Pool{Purchased: 100, Reserved: 30, Assigned: 50}).Available(); got != 20 {
		t.Errorf("Available = %d, want 20", got)
	}
}

func TestBackoff(t *testing.T) {
	for attempt, most := range map[int]time.Duration{
		-1: time.Second, 0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 8: 256 * time.Second,
		9: 5 * time.Minute, 10: 5 * time.Minute, 63: 5 * time.Minute, 64: 5 * time.Minute, 1 << 40: 5 * time.Minute,
	} {
		seen := map[time.Duration]bool{}
		for range 200 {
			d := Backoff(attempt)
			if d > most || d < most-most/4 {
				t.Errorf("Backoff(%d) = %v, want %v to %v", attempt, d, most-most/4, most)
			}
			seen[d] = true
		}
		if len(seen) < 100 {
			t.Errorf("Backoff(%d) gave %d different values of 200: tasks that failed together return together", attempt, len(seen))
		}
	}
}

func TestKeysAndNames(t *testing.T) {
	task := Task{Request: "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", Device: Device{ICCID: iccidA, IMEI: imeiA}}
	again := task
	again.Attempt, again.Lease = 3, 9
	if task.Key() != again.Key() || task.Key() != "017f22e2-79b0-7cc3-98c4-dc0c0c07398f/89148000000000000001" {
		t.Errorf("keys %q and %q, want the same on every attempt", task.Key(), again.Key())
	}
	if a, b := (Device{ICCID: iccidA, IMEI: imeiA}).String(), (Device{IMEI: imeiA}).String(); a != string(iccidA) || b != string(imeiA) {
		t.Errorf("devices are named %q and %q", a, b)
	}
	for v, want := range map[Verdict]string{Retry: "retry", Done: "done", Refused: "refused", Later: "later", Stuck: "stuck", 9: "invalid"} {
		if got := v.String(); got != want {
			t.Errorf("Verdict(%d) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[DeliveryVerdict]string{Again: "again", Delivered: "delivered", Exhausted: "exhausted", Unsent: "unsent", 9: "invalid"} {
		if got := v.String(); got != want {
			t.Errorf("DeliveryVerdict(%d) = %q, want %q", v, got, want)
		}
	}
	for d, want := range map[Drift]string{
		{Account: "a", What: "x"}:           "account a: x",
		{Account: "a", SKU: "s", What: "x"}: "account a, SKU s: x",
	} {
		if got := d.String(); got != want {
			t.Errorf("Drift = %q, want %q", got, want)
		}
	}
}

func TestParseRequestID(t *testing.T) {
	const good = "019a0b5c-7d1e-7c3a-9f00-2b7c6d5e4f31"
	for _, s := range []string{good, strings.ToUpper(good)} {
		if got, err := ParseRequestID(s); err != nil || got != good {
			t.Errorf("ParseRequestID(%q) = %q, %v, want %q", s, got, err, good)
		}
	}
	for _, s := range []string{"", "x", good[1:], good + "0", "g" + good[1:], strings.ReplaceAll(good, "-", "0"), good[:35] + "\x00", good[:34] + "é"} {
		if got, err := ParseRequestID(s); err == nil {
			t.Errorf("ParseRequestID(%q) = %q, want an error", s, got)
		}
	}
}
