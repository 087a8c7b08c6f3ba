package sandbox

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/simlatch/simlatch/internal/license"
)

// Account names of the default seed: one in the reference's form, and those that
// its simulator knows (thingspace-api.md 5.2).
const (
	DefaultAccount = "0000123456-00001"
	TestAccount1   = "TestAccount-1"
	TestAccount2   = "TestAccount-2"
)

// DefaultSeed is the seed of a sandbox that is given none: three accounts, with
// ordinary SIMs, SIMs that cannot be licensed, and two of each magic ICCID.
func DefaultSeed() string {
	var b strings.Builder
	b.WriteString(`applications: [{key: demo-key, secret: demo-secret}]
users:
  - {username: demo, password: demo-password, accounts: ["` + DefaultAccount + `", "` + TestAccount1 + `", "` + TestAccount2 + `"]}
  - {username: solo, password: solo-password, accounts: ["` + DefaultAccount + `"]}
accounts:
  - name: "` + DefaultAccount + `"
    pools: {SIMSec-IoT: 5000, SIMSec-IoT-Lt: 300, TS-BUNDLE-KTO-SIMSEC-MRC: 3, TSS-IOT-INTLG-TIERED-SIMSEC: 100}
  - name: "` + TestAccount1 + `"
    pools: {SIMSec-IoT: 100, SIMSec-IoT-Lt: 100, TS-BUNDLE-KTO-SIMSEC-MRC: 100, TSS-IOT-INTLG-TIERED-SIMSEC: 100}
  - name: "` + TestAccount2 + `"
    pools: {SIMSec-IoT: 100}
devices:
`)
	n := 0
	add := func(account string, iccid license.ICCID, state license.State, generation string) {
		n++
		imei, _, _ := license.ImportIMEI(strconv.Itoa(49015420323750 + n)) // 14 digits always are one
		fmt.Fprintf(&b, "  - {account: %q, imei: %q, iccid: %q, mdn: \"555123%04d\", state: %s, generation: %s}\n",
			account, imei, iccid, n, state, generation)
	}
	ordinary := func(account string, from, count int) {
		for i := range count {
			add(account, SIM(from+i), license.StateActive, "4G")
		}
	}
	ordinary(DefaultAccount, 1, 20)
	add(DefaultAccount, SIM(81), license.StateSuspended, "4G")
	add(DefaultAccount, SIM(82), license.StateActive, "3G")
	for _, m := range Magics() {
		add(DefaultAccount, m.ICCID(1), license.StateActive, "4G")
		add(DefaultAccount, m.ICCID(2), license.StateActive, "4G")
	}
	ordinary(TestAccount1, 101, 20)
	ordinary(TestAccount2, 201, 5)
	return b.String()
}

// SIM is the n-th SIM of the default seed: 1 to 20 are ordinary ones of
// DefaultAccount, 81 is suspended there and 82 no 4G; 101 to 120 are of TestAccount1,
// 201 to 205 of TestAccount2. The first two are those of the README's walk.
func SIM(n int) license.ICCID {
	switch n {
	case 1:
		return "89148000000000000012"
	case 2:
		return "89148000000000000020"
	}
	digits := fmt.Sprintf("8914800000000%06d", n)
	return license.ICCID(digits + string(license.CheckDigit(digits)))
}

// Who is the first application and the first user of a seed.
type Who struct{ Application, User Named }

// FirstOf reads from the text of a seed whom the test token and the lenient stand
// for. A seed with neither is no error.
func FirstOf(seed string) (Who, error) {
	var f struct {
		Applications []struct{ Key, Secret string }
		Users        []struct{ Username, Password string }
	}
	if err := yaml.Unmarshal([]byte(seed), &f); err != nil {
		return Who{}, Refused(fmt.Sprintf("reading the seed: %v", err))
	}
	var w Who
	if len(f.Applications) > 0 {
		w.Application = Named{f.Applications[0].Key, f.Applications[0].Secret}
	}
	if len(f.Users) > 0 {
		w.User = Named{f.Users[0].Username, f.Users[0].Password}
	}
	return w, nil
}

// Refused is an error of the caller's making.
func Refused(detail string) error {
	return problem{"The request cannot be used", 400, detail}
}
