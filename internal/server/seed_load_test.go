package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

// TestSeedIsIdempotent loads a seed, changes the database as an operator would,
// and loads it again: nothing is changed back, and each difference is logged
// with the command that would.
func TestSeedIsIdempotent(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		dir := t.TempDir()
		writeFile(t, dir, "fleet.csv", "\ufeff"+strings.ReplaceAll(moreSIMs(0, 600), "\n", "\r\n"))
		cfg.Seed = writeFile(t, dir, "seed.yaml", goodSeed+"deviceFiles: [fleet.csv]\n")
		r := startServer(t, cfg)
		ctx := t.Context()
		if got := countSIMs(t, r); got != 602 {
			t.Fatalf("%d SIMs were imported, want 602", got)
		}
		if strings.Contains(r.log.String(), "differs") {
			t.Error("a fresh database is said to differ from its seed")
		}
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		_, err := r.store.AddPurchase(ctx, license.Purchase{Account: testAccount, SKU: license.SKUFlexible, Units: 7, Reason: "more"}, now)
		ok(err)
		ok(r.store.AddAccount(ctx, "0000123456-00009", now))
		ok(r.store.GrantAccounts(ctx, "demo", []license.AccountName{"0000123456-00009"}))
		ok(r.store.SetPassword(ctx, "demo", auth.HashPassword("another")))
		ok(r.store.RotateApplication(ctx, "demo-key", auth.HashSecret("another"), time.Time{}))
		_, err = r.store.SetState(ctx, testAccount, []license.ICCID{"89148000000000000012", "89148010000000000005"}, license.StateSuspended)
		ok(err)
		ok(r.end())

		r = startServer(t, cfg)
		log := r.log.String()
		for _, want := range []string{
			`pool add --account 0000123456-00001 --sku SIMSec-IoT --units -7 --reason`,
			`user password demo`,
			`user grant demo --account 0000123456-00001`,
			`application rotate demo-key --secret-file FILE`,
			`device set-state --account 0000123456-00001 --state active 89148000000000000012 89148010000000000005`,
		} {
			if !strings.Contains(log, want) {
				t.Errorf("the log does not name the command %q", want)
			}
		}
		if n := strings.Count(log, "the seed differs"); n != 5 {
			t.Errorf("%d differences are logged, want 5", n)
		}
		if got := countSIMs(t, r); got != 602 {
			t.Errorf("there are %d SIMs, want 602", got)
		}
		pools, err := r.store.Pools(ctx, testAccount)
		ok(err)
		for _, p := range pools {
			if p.SKU == license.SKUFlexible && p.Purchased != 5007 {
				t.Errorf("%s has %d licenses, want 5007", p.SKU, p.Purchased)
			}
		}
		noDrift(t, r)
	})
}

func countSIMs(t *testing.T, r *running) int {
	t.Helper()
	sims, err := r.store.Devices(t.Context(), license.DeviceFilter{Accounts: []license.AccountName{testAccount}, Limit: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	return len(sims)
}

// TestSeedGrows loads a seed that has grown, and one that spells its account
// without hyphens.
func TestSeedGrows(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		dir := t.TempDir()
		cfg.Seed = writeFile(t, dir, "seed.yaml", goodSeed)
		if err := startServer(t, cfg).end(); err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "fleet.csv", "iccid,imei,account\n"+
			"89148000000000000012,490154203237518,000012345600001\n"+ // as it is there
			"89148000000000000020,490154203237534,000012345600001\n"+ // with another IMEI
			"89148000000000000038,490154203237542,000012345600001\n") // new
		writeFile(t, dir, "seed.yaml", "accounts: [{name: 000012345600001, pools: {SIMSec-IoT: 5000}}]\ndeviceFiles: [fleet.csv]\n")
		r := startServer(t, cfg)
		if got := countSIMs(t, r); got != 3 {
			t.Errorf("there are %d SIMs, want 3", got)
		}
		accounts, err := r.store.Accounts(t.Context())
		if err != nil || len(accounts) != 1 {
			t.Errorf("accounts = %v, %v; want the one of before", accounts, err)
		}
		if log := r.log.String(); !strings.Contains(log, "fleet.csv:3: the SIM 89148000000000000020 is in the database with IMEI") ||
			strings.Contains(log, "the seed differs") {
			t.Error("the log should name the SIM with another IMEI, and nothing else")
		}
	})
}

// TestSeedFaults: a fault anywhere is named with its file and line, and nothing
// is written.
func TestSeedFaults(t *testing.T) {
	const bad = testAccount + ",1,89148010000000009999,,active,4G\n"
	const twice = testAccount + ",358240050000001,89148010000000000000,,active,4G\n"
	for name, test := range map[string]struct{ seed, fleet, want string }{
		"bad line":         {"", moreSIMs(0, 3000) + bad, `fleet.csv:3002: imei "1": an IMEI has`},
		"file missing":     {"", "", "seed.yaml:9: open "},
		"unknown account":  {"", "iccid,imei,account\n89148010000000000001,490154203237518,0000999999-00001\n", "fleet.csv:2: the account 0000999999-00001 is neither"},
		"SIM twice":        {"", moreSIMs(0, 2500) + twice, "fleet.csv:2502: no SIM was imported: "},
		"user's account":   {"users: [{username: u, password: p, accounts: [0000999999-00001]}]\n", moreSIMs(0, 1), "seed.yaml:1: the account 0000999999-00001 is neither"},
		"device's account": {"devices: [{account: 0000999999-00001, imei: 490154203237518, iccid: 89148010000000000001}]\n", moreSIMs(0, 1), "seed.yaml:1: the account 0000999999-00001 is neither"},
	} {
		t.Run(name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, cfg Config) {
				dir := t.TempDir()
				if test.fleet != "" {
					writeFile(t, dir, "fleet.csv", test.fleet)
				}
				seed := test.seed
				if seed == "" {
					seed = goodSeed
				}
				cfg.Seed = writeFile(t, dir, "seed.yaml", seed+"deviceFiles: [fleet.csv]\n")
				_, err := tryServer(t, cfg)
				fails(t, err, test.want)
				if err != nil && !strings.Contains(err.Error(), dir) {
					t.Errorf("the error %q does not say where the file is", err)
				}
				cfg.Seed = ""
				r := startServer(t, cfg)
				if got := countSIMs(t, r); got != 0 {
					t.Errorf("%d SIMs were imported", got)
				}
				pools, err := r.store.Pools(t.Context(), testAccount)
				if err != nil || len(pools) > 0 {
					t.Errorf("Pools = %v, %v; want none", pools, err)
				}
			})
		})
	}
}

// TestSeedWarnings: wrong check digits are told, but not each of them.
func TestSeedWarnings(t *testing.T) {
	cfg := sqliteConfig(t)
	dir := t.TempDir()
	fleet := "iccid,imei,account\n"
	for i := range 50 {
		fleet += fmt.Sprintf("8914801%013d,35824005%07d,%s\n", i, i*10, testAccount) // some are right by chance
	}
	writeFile(t, dir, "fleet.csv", fleet)
	cfg.Seed = writeFile(t, dir, "seed.yaml", goodSeed+"deviceFiles: [fleet.csv]\n")
	log := startServer(t, cfg).log.String()
	if n := strings.Count(log, "the check digit of IMEI"); n != 10 {
		t.Errorf("%d warnings were logged, want 10", n)
	}
	if !strings.Contains(log, "more that is doubtful") {
		t.Error("the log does not say that there were more")
	}
}

// TestMillionSIMs measures how long a large fleet takes, when asked to.
func TestMillionSIMs(t *testing.T) {
	if os.Getenv("SIMLATCH_TEST_MILLION") == "" {
		t.Skip("set SIMLATCH_TEST_MILLION=1000000 to load a million SIMs")
	}
	onEachEngine(t, func(t *testing.T, cfg Config) {
		dir := t.TempDir()
		fleet, err := os.Create(filepath.Join(dir, "fleet.csv"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(os.Getenv("SIMLATCH_TEST_MILLION"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range n / 10_000 {
			text := moreSIMs(i*10_000, 10_000)
			if i > 0 {
				_, text, _ = strings.Cut(text, "\n") // the header
			}
			if _, err := fleet.WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
		if err := fleet.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Seed = writeFile(t, dir, "seed.yaml", goodSeed+"deviceFiles: [fleet.csv]\n")
		for _, what := range []string{"loaded", "compared"} {
			started := time.Now()
			r := startServer(t, cfg)
			t.Logf("%d SIMs were %s in %v", n, what, time.Since(started))
			if err := r.end(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
