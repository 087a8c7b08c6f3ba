package exchange

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func load(t *testing.T) []Exchange {
	t.Helper()
	all, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func seedVariables(t *testing.T) map[string]string {
	t.Helper()
	vars, err := Variables(Seed())
	if err != nil {
		t.Fatal(err)
	}
	return vars
}

func TestEmbeddedExchanges(t *testing.T) {
	vars := seedVariables(t)
	all := load(t)
	if len(all) < 100 {
		t.Errorf("Load() gave %d exchanges, want at least 100", len(all))
	}
	titles := map[string]string{}
	for _, x := range all {
		if err := x.Check(vars); err != nil {
			t.Error(err)
		}
		if other, ok := titles[x.Title]; ok {
			t.Errorf("%s and %s have the same title", x.Name, other)
		}
		titles[x.Title] = x.Name
		if !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(x.Name) {
			t.Errorf("the name %q is not lower case with hyphens", x.Name)
		}
	}
}

// Devices that no exchange changes, so that many may name them.
var shared = regexp.MustCompile(`^(still|suspended|inactive|preactive|old|foreign|page|secondStill|secondSuspended)`)

var deviceName = regexp.MustCompile(`^([A-Za-z]\w*)\.iccid$`)

// TestDevicesAreReserved keeps exchanges from disturbing each other: a device
// that one may change stands in no other.
func TestDevicesAreReserved(t *testing.T) {
	used := map[string]string{}
	for v := range seedVariables(t) {
		if m := deviceName.FindStringSubmatch(v); m != nil && !shared.MatchString(m[1]) {
			used[m[1]] = ""
		}
	}
	for _, name := range sortedFiles(t) {
		text, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		words := strings.FieldsFunc(string(text), func(r rune) bool {
			return !(r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
		})
		for _, w := range words {
			if other, ok := used[w]; ok && other != "" && other != name {
				t.Errorf("%s and %s use the same device %s", other, name, w)
			} else if ok {
				used[w] = name
			}
		}
	}
}

func sortedFiles(t *testing.T) []string {
	t.Helper()
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// errorRows are the rows of the error tables: thingspace-api.md 1.6, then
// behaviour.md 2. An empty message is one of the server's own choosing.
//
// Not here: what only a host with other settings, a broken store or a slow
// network can show (429 of the rate limit, 408, 503, 500), and the account's
// policy, which a seed cannot set.
func errorRows() []errorRow {
	const unsuccessful = "UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful"
	return []errorRow{
		{"REQUEST_FAILED.CarrierRequestUnsuccessful", "REQUEST FAILED: Device already has license assigned."},
		{unsuccessful, "REQUEST_FAILED: At least one device exists with Assigned or Pending Assignment or Pending UnAssignment license status."},
		{"Carrier.Service.INPUT_INVALID.SKUNumber.NotDefined", "skuNumber is a required field."},
		{"Carrier.Service.INPUT_INVALID.Action.NotDefined", "Action is required."},
		{unsuccessful, "REQUEST_FAILED: Devices not found for the specified IMEI and ICCID."},
		{"Carrier.Service.INPUT_INVALID.DeviceGroupName.NotSupported", "The Device Group Name is not supported."},
		{"Carrier.Service.INPUT_INVALID.Action.Invalid", "The action was not recognized as valid."},
		{"UnifiedWebService.INPUT_INVALID.DeviceNotDefined", "A device must be defined."},
		{"CarrierService.INPUT_INVALID.DeviceIdentifierCollection.Null", "A device identifier collection may not be null."},
		{"UnifiedWebService.INPUT_INVALID.Unassign.NotSupported", "The unassign action is not supported for SIM-Secure lifetime."},
		{"INPUT_INVALID.InsufficientLicense.Invalid", "You do not have required licenses to perform this action."},

		{"UnifiedWebService.INPUT_INVALID.Method.NotAllowed", ""},
		{"UnifiedWebService.REQUEST_FAILED.Authorization", ""},
		{"UnifiedWebService.REQUEST_FAILED.SessionToken.Expired", ""},
		{"UnifiedWebService.INPUT_INVALID.SessionToken.Invalid", ""},
		{"UnifiedWebService.REQUEST_FAILED.Authentication", ""},
		{"UnifiedWebService.DeserializationFailed", ""},
		{"UnifiedWebService.INPUT_INVALID.RequestUndefined", "Request cannot be blank. Please provide request details."},
		{"Carrier.Service.INPUT_INVALID.SKUNumber.Invalid", "The skuNumber was not recognized as valid."},
		{"UnifiedWebService.REQUEST_FAILED.MultipleAccounts", "accountName is required: the user has access to more than one account."},
		{"UnifiedWebService.REQUEST_FAILED.NoAccounts", ""},
		{"UnifiedWebService.REQUEST_FAILED.AccountNotFound", "The account was not found."},
		{"UnifiedWebService.INPUT_INVALID.Device.Kind.Invalid", ""},
		{"UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid", ""},
		{"UnifiedWebService.INPUT_INVALID.Device.Duplicate", ""},
		{"UnifiedWebService.INPUT_INVALID.MaxRequestsExceeded", ""},
		{"UnifiedWebService.INPUT_INVALID.DeviceState.Invalid", ""},
		{"UnifiedWebService.INPUT_INVALID.Device.NotEligible", ""},
		{"UnifiedWebService.REQUEST_FAILED.LicenseNotAssigned", ""},
		{"UnifiedWebService.INPUT_INVALID.CallbackService.Invalid", ""},
		{"UnifiedWebService.INPUT_INVALID.CallbackUrl.Invalid", ""},
		{"UnifiedWebService.INPUT_INVALID.CallbackCredentials.Invalid", ""},
		{"UnifiedWebService.REQUEST_FAILED.CallbackNotRegistered", ""},
		{"UnifiedWebService.REQUEST_FAILED.RequestNotFound", "The request was not found."},
		{"UnifiedWebService.INPUT_INVALID.IdempotencyKey.Reused", ""},
	}
}

type errorRow struct{ code, message string }

func TestEveryErrorRowIsCovered(t *testing.T) {
	all := load(t)
	for _, row := range errorRows() {
		if !slices.ContainsFunc(all, func(x Exchange) bool { return covers(x, row) }) {
			t.Errorf("no exchange expects %s with the message %q", row.code, row.message)
		}
	}
}

func covers(x Exchange, row errorRow) bool {
	for _, s := range x.Steps {
		bodies := []string{s.Response.Body}
		for _, c := range s.Callbacks {
			bodies = append(bodies, c.Body)
		}
		for _, b := range bodies {
			if strings.Contains(b, `"`+row.code+`"`) && (row.message == "" || strings.Contains(b, `"`+row.message+`"`)) {
				return true
			}
		}
	}
	return false
}

// TestEveryStatusIsCovered is for the answers that are told by their status.
func TestEveryStatusIsCovered(t *testing.T) {
	seen := map[int]bool{}
	for _, x := range load(t) {
		for _, s := range x.Steps {
			seen[s.Response.Status] = true
		}
	}
	for _, status := range []int{200, 202, 400, 401, 404, 405, 413, 415, 429} {
		if !seen[status] {
			t.Errorf("no exchange expects the status %d", status)
		}
	}
}

// TestCarrierAnswers holds the seed's devices against what CarrierAnswers says.
func TestCarrierAnswers(t *testing.T) {
	answers := CarrierAnswers(seedVariables(t))
	if len(answers) != 10 {
		t.Errorf("CarrierAnswers gave %d answers, want 10: a device is missing in the seed", len(answers))
	}
	for _, a := range answers {
		if a.Silent == (a.Comment != "") {
			t.Errorf("the answer about %s is both or neither of silence and refusal", a.ICCID)
		}
	}
}
