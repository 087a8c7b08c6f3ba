package sandbox

import (
	"fmt"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// MagicPrefix begins the ICCIDs with a fixed fate: 89, the industry of all SIMs
// (ITU-T E.118), then 999 in the place of a country, which the ITU has given to
// none, then 00. Two digits of a Magic's code follow, then any.
const MagicPrefix = "8999900"

// Magic is a fixed fate that is part of an ICCID.
type Magic struct {
	Code    string            `json:"code"`    // the two digits behind MagicPrefix
	Outcome string            `json:"outcome"` // what happens, for people
	effects map[string][]step // by where it strikes
}

// step is one effect of a Magic: of which action and attempt; zero is any.
type step struct {
	action  license.Action
	attempt int
	then    Effect
}

// ICCID makes the n-th ICCID of this fate, of 19 digits.
func (m Magic) ICCID(n int) license.ICCID {
	return license.ICCID(fmt.Sprintf("%s%s%010d", MagicPrefix, m.Code, n))
}

// Magics is the table of fixed fates.
func Magics() []Magic {
	carrier := func(steps ...step) map[string][]step { return map[string][]step{OnCarrier: steps} }
	callback := func(steps ...step) map[string][]step { return map[string][]step{OnCallback: steps} }
	late := func(d time.Duration) Effect { return Effect{Do: Late, Delay: Duration(d)} }
	return []Magic{
		{"00", "Everything succeeds, at once.", nil},
		{"01", "The carrier refuses to assign: \"REQUEST_FAILED: The SIM is blocked.\".", carrier(step{license.Assign, 0, Effect{Do: Refuse, Text: "REQUEST_FAILED: The SIM is blocked."}})},
		{"02", "The carrier refuses to assign, because it has a license on the SIM that nobody here knows of: the documented \"Device already has license assigned.\".", carrier(step{license.Assign, 0, Effect{Do: Refuse, Code: license.CodeAlreadyLicensed, Text: "Device already has license assigned."}})},
		{"03", "The carrier assigns, and refuses to unassign: \"REQUEST_FAILED: The SIM cannot be reached.\".", carrier(step{license.Unassign, 0, Effect{Do: Refuse, Text: "REQUEST_FAILED: The SIM cannot be reached."}})},
		{"04", "The carrier refuses in words that need escaping.", carrier(step{"", 0, Effect{Do: Refuse, Code: "HLR-17", Text: "<b>\"HLR\" says: \\ñ✗&</b>\n"}})},
		{"10", "The carrier answers after 30 seconds.", carrier(step{"", 0, late(30 * time.Second)})},
		{"11", "The carrier answers after an hour.", carrier(step{"", 0, late(time.Hour)})},
		{"12", "The carrier says nothing when it is asked first, and yes when it is asked again.", carrier(step{"", 1, Effect{Do: Never}})},
		{"13", "The carrier never answers: the license stays pending, and after a day an operator must decide.", carrier(step{"", 0, Effect{Do: Never}})},
		{"14", "The carrier answers twice; the license counts once.", carrier(step{"", 0, Effect{Do: Twice}})},
		{"15", "The carrier says yes and no at once, and yes when it is asked again.", carrier(step{"", 1, Effect{Do: Contradict}})},
		{"20", "The first callback is lost on its way; the second, five minutes later, arrives with callbackCount 2.", callback(step{"", 1, Effect{Do: Lose}})},
		{"21", "All callbacks are lost: four attempts, then it is left to an operator.", callback(step{"", 0, Effect{Do: Lose}})},
		{"22", "The callback arrives, its answer is lost, and it arrives again after five minutes.", callback(step{"", 1, Effect{Do: LoseAnswer}})},
		{"23", "The callback arrives twice.", callback(step{"", 0, Effect{Do: Duplicate}})},
		{"24", "The callback arrives two minutes late.", callback(step{"", 0, late(2 * time.Minute)})},
		{"25", "The callback arrives twice at the same time, with callbackCount 1 and 2, as the reference does to a slow listener.", callback(step{"", 0, Effect{Do: SlowDuplicate}})},
		{"26", "No callback ever arrives, and the service believes that it did.", callback(step{"", 0, Effect{Do: Swallow}})},
	}
}

var magics = func() map[string]Magic {
	table := map[string]Magic{}
	for _, m := range Magics() {
		table[m.Code] = m
	}
	return table
}()

// magicEffect is the fixed fate of an event's SIM.
func magicEffect(e event) (Effect, string) {
	rest, ok := strings.CutPrefix(string(e.iccid), MagicPrefix)
	if !ok || len(rest) < 2 {
		return Effect{}, ""
	}
	for _, s := range magics[rest[:2]].effects[e.on] {
		if (s.action == "" || s.action == e.action) && (s.attempt == 0 || s.attempt == e.attempt) {
			return s.then, "magic " + rest[:2]
		}
	}
	return Effect{}, ""
}
