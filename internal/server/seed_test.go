package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodSeed = `applications: [{key: demo-key, secret: demo-secret}]
users: [{username: demo, password: demo-password, accounts: ["0000123456-00001"]}]
accounts:
  - name: "0000123456-00001"
    pools: {SIMSec-IoT: 5000, SIMSec-IoT-Lt: 300, TS-BUNDLE-KTO-SIMSEC-MRC: 100, TSS-IOT-INTLG-TIERED-SIMSEC: 100}
devices:
  - {account: "0000123456-00001", imei: "490154203237518", iccid: "89148000000000000012", mdn: "5551230001", state: active, generation: 4G}
  - {account: "0000123456-00001", imei: 490154203237526, iccid: 89148000000000000020}
`

// writeFile writes a file of the test and returns its path.
func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadSeed(t *testing.T) {
	for name, content := range map[string]string{
		"seed.yaml": goodSeed,
		"seed.json": "{\n\t\"accounts\": [{\"name\": \"0000123456-00001\", \"pools\": {\"SIMSec-IoT\": 5}}],\n" +
			"\t\"devices\": [{\"account\": \"0000123456-00001\", \"imei\": \"490154203237518\", \"iccid\": \"89148000000000000012\"}, " +
			"{\"account\": \"0000123456-00001\", \"imei\": 490154203237526, \"iccid\": \"89148000000000000020\"}]}",
	} {
		t.Run(name, func(t *testing.T) {
			seed, err := ReadSeed(writeFile(t, t.TempDir(), name, content), func(w string) { t.Error(w) })
			if err != nil {
				t.Fatal(err)
			}
			if len(seed.accounts) != 1 || len(seed.devices) != 2 || seed.devices[1].sim.Device.ICCID != "89148000000000000020" {
				t.Errorf("ReadSeed = %+v", seed)
			}
		})
	}
}

func TestReadSeedErrors(t *testing.T) {
	const account = "accounts: [{name: \"0000123456-00001\", pools: {SIMSec-IoT: 5}}]\n"
	for name, test := range map[string]struct{ text, want string }{
		"empty":             {"", ": the seed is empty"},
		"two documents":     {account + "---\n" + account, ": the seed has more than one"},
		"not YAML":          {"accounts: [\n", ":"},
		"not a mapping":     {"- a\n", ":1: a value of another kind"},
		"unknown member":    {account + "acounts: []\n", `:2: unknown member "acounts"`},
		"unknown in device": {account + "devices:\n  - {account: a, icid: 8}\n", `:3: unknown member "icid"`},
		"member twice":      {account + account, ":2: mapping key"},
		"list for a value":  {"users: [{username: [a]}]\n", ":1: a single value is wanted"},
		"value for a list":  {"users: demo\n", ":1: a value of another kind is wanted here than !!str `demo`"},
		"bad account":       {"\naccounts: [{name: x}]\n", `:2: account "x": an account name has`},
		"account twice":     {"accounts:\n  - name: \"12-34\"\n  - name: \"1234\"\n", ":3: the account 1234 is there twice"},
		"unknown SKU":       {"accounts: [{name: abc, pools: {SIMSec: 5}}]\n", `:1: skuNumber "SIMSec": unknown SKU`},
		"SKU twice":         {"accounts: [{name: abc, pools: {SIMSec-IoT: 5, SIMSec-IoT: 6}}]\n", ":1: the pool of SIMSec-IoT is there twice"},
		"negative units":    {"accounts: [{name: abc, pools: {SIMSec-IoT: -5}}]\n", `:1: units "-5": a pool has`},
		"units in words":    {"accounts: [{name: abc, pools: {SIMSec-IoT: many}}]\n", `:1: units "many": a pool has`},
		"pools as a list":   {"accounts: [{name: abc, pools: [SIMSec-IoT]}]\n", ":1: pools are written as"},
		"no secret":         {"applications:\n  - {key: a}\n", ":2: secret must not be empty"},
		"no key":            {"applications:\n  - {secret: a}\n", ":"},
		"colon in a key":    {"applications:\n  - {key: \"a:b\", secret: a}\n", `:2: the key "a:b" has a character`},
		"key twice":         {"applications:\n  - {key: a, secret: a}\n  - {key: a, secret: b}\n", `:3: the key "a" is there twice`},
		"user twice":        {"users:\n  - {username: a, password: a}\n  - {username: a, password: b}\n", `:3: the username "a" is there twice`},
		"no password":       {"users:\n  - {username: a, password: null}\n", ":2: password must not be empty"},
		"user's account":    {"users:\n  - {username: a, password: a, accounts: [\n    /]}\n", `:3: account "/": an account name has`},
		"no account":        {"devices:\n  - {imei: 490154203237518, iccid: 89148000000000000012}\n", `:2: account "": the SIM needs`},
		"bad iccid":         {"devices:\n  - account: abc\n    imei: 490154203237518\n    iccid: 8.9e19\n", `:4: iccid "8.9e19": an ICCID`},
		"bad state":         {"devices:\n  - {account: abc, imei: 490154203237518, iccid: 89148000000000000012, state: on}\n", `:2: state "on": a state`},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, t.TempDir(), "seed.yaml", test.text)
			_, err := ReadSeed(path, func(string) {})
			if err == nil || !strings.HasPrefix(err.Error(), path+test.want) {
				t.Errorf("ReadSeed = %v, want an error that begins %q", err, "seed.yaml"+test.want)
			}
		})
	}
}
