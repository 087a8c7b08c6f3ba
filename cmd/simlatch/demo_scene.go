package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// demoScene is what the demonstration starts from: an account, its pools and
// its SIMs, and who may call.
type demoScene struct {
	sims     int
	account  string
	key      string
	secret   string
	user     string
	password string

	flexible, lifetime, unassign int // devices to assign and unassign
	batch                        int // devices in a request: what the vendor's SDKs can send
}

func newDemoScene(sims int) demoScene {
	return demoScene{
		sims:     sims,
		account:  "0000123456-00001",
		key:      newSecret(),
		secret:   newSecret(),
		user:     "demo",
		password: newSecret(),
		flexible: sims / 5,
		lifetime: sims / 50,
		unassign: sims / 20,
		batch:    100,
	}
}

// pools are the licenses the account has purchased.
func (s demoScene) pools() map[license.SKU]int {
	return map[license.SKU]int{
		license.SKUFlexible:     s.sims / 2,
		license.SKULifetime:     s.sims * 3 / 100,
		license.SKUBundle:       s.sims / 100,
		license.SKUIntelligence: s.sims / 100,
	}
}

// device is SIM number i as a request names it.
func (s demoScene) device(i int) m2m.Device {
	imei, iccid := s.identifiers(i)
	return m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: imei, Kind: "imei"}, {ID: iccid, Kind: "iccid"}}}
}

func (s demoScene) devices(from, to int) []m2m.Device {
	list := make([]m2m.Device, 0, to-from)
	for i := from; i < to; i++ {
		list = append(list, s.device(i))
	}
	return list
}

// identifiers are those of SIM number i, with the check digits that real ones
// have.
func (s demoScene) identifiers(i int) (imei, iccid string) {
	return withCheckDigit(fmt.Sprintf("49015420%06d", i)), withCheckDigit(fmt.Sprintf("8914800000000%06d", i))
}

// withCheckDigit puts the Luhn digit behind digits.
func withCheckDigit(digits string) string {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return digits + strconv.Itoa((10-sum%10)%10)
}

// write writes the scene as a seed file and returns its path.
func (s demoScene) write(dir string) (string, error) {
	f, err := os.Create(filepath.Join(dir, "fleet.csv"))
	if err != nil {
		return "", fmt.Errorf("writing the devices: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "account,imei,iccid,mdn,state,generation") // w keeps its first error until Flush
	for i := range s.sims {
		imei, iccid := s.identifiers(i)
		fmt.Fprintf(w, "%s,%s,%s,555%07d,active,4G\n", s.account, imei, iccid, i)
	}
	if err := w.Flush(); err != nil {
		return "", fmt.Errorf("writing the devices: %w", err)
	}
	pools := s.pools()
	seed := fmt.Sprintf(`applications: [{key: %q, secret: %q}]
users: [{username: %q, password: %q, accounts: [%q]}]
accounts:
  - name: %q
    pools: {SIMSec-IoT: %d, SIMSec-IoT-Lt: %d, TS-BUNDLE-KTO-SIMSEC-MRC: %d, TSS-IOT-INTLG-TIERED-SIMSEC: %d}
deviceFiles: [fleet.csv]
`, s.key, s.secret, s.user, s.password, s.account, s.account,
		pools[license.SKUFlexible], pools[license.SKULifetime], pools[license.SKUBundle], pools[license.SKUIntelligence])
	path := filepath.Join(dir, "seed.yaml")
	if err := os.WriteFile(path, []byte(seed), 0o600); err != nil {
		return "", fmt.Errorf("writing the seed: %w", err)
	}
	return path, nil
}
