package storetest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// Account is the account that the zero Fixture seeds.
const Account license.AccountName = "0000123456-00001"

// Start is when everything is seeded; tests go on from here.
func Start() time.Time { return time.Date(2026, time.January, 5, 12, 0, 0, 0, time.UTC) }

// Fixture is what Seed puts into a store. The zero value is one account with a
// hundred licenses of each SKU and ten SIMs.
type Fixture struct {
	Account license.AccountName   // zero: Account
	Pools   map[license.SKU]int64 // the licenses of each SKU; nil: 100 of every one
	SIMs    int                   // active 4G ones; 0: ten, less than 0: none
	First   int                   // the number of the first SIM, to seed more of them later
}

// Seed makes the account, unless it exists, buys the licenses and imports the
// SIMs, which it returns in the order of their ICCIDs.
func Seed(tb testing.TB, s *store.Store, f Fixture) []license.SIM {
	tb.Helper()
	f = f.complete()
	ctx := tb.Context()
	if err := s.AddAccount(ctx, f.Account, Start()); err != nil && !errors.Is(err, license.ErrExists) {
		tb.Fatalf("seeding account %s: %v", f.Account, err)
	}
	for sku, units := range f.Pools {
		p := license.Purchase{Account: f.Account, SKU: sku, Units: units, Reason: "seeded"}
		if _, err := s.AddPurchase(ctx, p, Start()); err != nil {
			tb.Fatalf("seeding %d licenses of %s: %v", units, sku, err)
		}
	}
	sims := make([]license.SIM, 0, f.SIMs)
	for i := range f.SIMs {
		sims = append(sims, SIM(f.Account, f.First+i))
	}
	if len(sims) == 0 {
		return nil
	}
	if _, err := s.Import(ctx, withoutErrors(sims), Start(), func(int) {}); err != nil {
		tb.Fatalf("seeding %d SIMs of %s: %v", len(sims), f.Account, err)
	}
	return sims
}

func (f Fixture) complete() Fixture {
	if f.Account == "" {
		f.Account = Account
	}
	if f.Pools == nil {
		f.Pools = make(map[license.SKU]int64)
		for _, sku := range license.SKUs() {
			f.Pools[sku] = 100
		}
	}
	switch {
	case f.SIMs == 0:
		f.SIMs = 10
	case f.SIMs < 0:
		f.SIMs = 0
	}
	return f
}

// SIM makes the account's SIM of that number, from 0. The same account and
// number give the same SIM always, and different accounts different ICCIDs.
func SIM(account license.AccountName, number int) license.SIM {
	mark := crc32.ChecksumIEEE([]byte(account)) % 1_000_000
	return license.SIM{
		Account: account,
		Device: license.Device{
			ICCID: license.ICCID(fmt.Sprintf("8914%06d%010d", mark, number)),
			IMEI:  license.IMEI(fmt.Sprintf("35%013d", number)),
			MDN:   license.MDN(fmt.Sprintf("555%07d", number)),
		},
		State:      license.StateActive,
		Generation: license.Generation4G,
	}
}

// Devices are the devices of sims, as a request names them: with the ICCID and
// the IMEI.
func Devices(sims []license.SIM) []license.Device {
	devices := make([]license.Device, len(sims))
	for i, s := range sims {
		devices[i] = license.Device{ICCID: s.Device.ICCID, IMEI: s.Device.IMEI}
	}
	return devices
}

func withoutErrors(sims []license.SIM) iter.Seq2[license.SIM, error] {
	return func(yield func(license.SIM, error) bool) {
		for _, s := range sims {
			if !yield(s, nil) {
				return
			}
		}
	}
}
