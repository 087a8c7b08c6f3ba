// Package examples_test runs the examples as a reader would: with the program of
// their language, against a server.
package examples_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/server"
)

// seed is that of the README's walk, which is what the examples assume.
const seed = `
applications: [{key: demo-key, secret: demo-secret}]
users: [{username: demo, password: demo-password, accounts: ["0000123456-00001"]}]
accounts:
  - name: "0000123456-00001"
    pools: {SIMSec-IoT: 5000, SIMSec-IoT-Lt: 300}
devices:
  - {account: "0000123456-00001", imei: "490154203237518", iccid: "89148000000000000012", mdn: "5551230001"}
  - {account: "0000123456-00001", imei: "490154203237526", iccid: "89148000000000000020", mdn: "5551230002"}
  - {account: "0000123456-00001", imei: "490154203237534", iccid: "89148000000000000038", mdn: "5551230003"}
`

// examples are the files and the programs that run them.
var examples = []struct{ program, file string }{
	{"node", "assign.mjs"},
	{"python3", "assign.py"},
	{"java", "Assign.java"},
}

func TestExamples(t *testing.T) {
	url := startServer(t, 0)
	for _, e := range examples {
		t.Run(e.file, func(t *testing.T) {
			want := `before: 0 licenses assigned, 5000 available
assign: 89148000000000000012 Success
assign: 89148000000000000020 Success
assigned: 2 licenses assigned, 4998 available
unassign: 89148000000000000012 Success
unassign: 89148000000000000020 Success
after: 0 licenses assigned, 5000 available
`
			if out, err := runExample(t, e.program, e.file, url); err != nil || out != want {
				t.Errorf("%s %s printed (%v)\n%s\nwant\n%s", e.program, e.file, err, out, want)
			}
			want = strings.ReplaceAll(want, "89148000000000000020", "89148000000000000038")
			out, err := runExample(t, e.program, e.file, url, "IMEI_2=490154203237534", "ICCID_2=89148000000000000038")
			if err != nil || out != want {
				t.Errorf("%s %s printed for another SIM (%v)\n%s\nwant\n%s", e.program, e.file, err, out, want)
			}
		})
	}
}

// TestExamplesTellWhatIsWrong: an example that is refused ends badly, and says
// by what.
func TestExamplesTellWhatIsWrong(t *testing.T) {
	url := startServer(t, 1)
	for _, e := range examples {
		t.Run(e.file, func(t *testing.T) {
			if out, err := runExample(t, e.program, e.file, url, "PASSWORD=wrong"); err == nil || !strings.Contains(out, "REQUEST_FAILED.Authentication") {
				t.Errorf("%s with a wrong password printed (%v)\n%s", e.file, err, out)
			}
			if out, err := runExample(t, e.program, e.file, url); err == nil || !strings.Contains(out, "refused") {
				t.Errorf("%s, refused by the carrier, printed (%v)\n%s", e.file, err, out)
			}
		})
	}
}

// runExample runs an example with settings of its own and returns what it
// printed.
func runExample(t *testing.T, program, file, url string, settings ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s needs %s: %v", file, program, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, file)
	for _, v := range os.Environ() {
		// Neither settings of whoever runs the tests, nor a way round loopback.
		if upper := strings.ToUpper(v); !strings.HasPrefix(upper, "SIMLATCH_") && !strings.HasPrefix(upper, "HTTP_PROXY=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "SIMLATCH_URL="+url)
	for _, s := range settings {
		cmd.Env = append(cmd.Env, "SIMLATCH_"+s)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// startServer starts a server whose carrier refuses a share of all SIMs, and
// returns its URL.
func startServer(t *testing.T, refused float64) string {
	t.Helper()
	dir := t.TempDir()
	cfg := server.Config{
		Listen: "127.0.0.1:0", Database: "sqlite:" + filepath.Join(dir, "test.db"), Seed: filepath.Join(dir, "seed.yaml"),
		Carrier: server.CarrierSimulated, CarrierRefuseRate: refused,
		CallbackAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	}
	if err := os.WriteFile(cfg.Seed, []byte(seed), 0o600); err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return srv.URL()
}
