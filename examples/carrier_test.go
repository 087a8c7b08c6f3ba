package examples_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/server"
)

// TestCarrierExample holds the example of a carrier against the checks that its
// readers are told to run, with all that guards it.
func TestCarrierExample(t *testing.T) {
	const token, secret = "a-token", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("carrier.py needs python3: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), path, "carrier.py")
	cmd.Env = append(os.Environ(), "CARRIER_PORT=0", "CARRIER_DATABASE="+filepath.Join(t.TempDir(), "carrier.db"),
		"SIMLATCH_CARRIER_TOKEN="+token, "SIMLATCH_CARRIER_SECRET="+secret)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	url, ok := strings.CutPrefix(strings.TrimSpace(line), "a carrier at ")
	if err != nil || !ok {
		t.Fatalf("carrier.py printed %q, %v", line, err)
	}
	cfg := server.Config{Carrier: server.CarrierHTTP + url, CarrierToken: token, CarrierSecret: secret}
	findings, err := cfg.CheckCarrier(t.Context(), server.CarrierCheck{})
	if err != nil || len(findings) < 10 {
		t.Fatalf("%d findings, %v", len(findings), err)
	}
	for _, f := range findings {
		for _, fault := range f.Faults {
			t.Errorf("%s: %s", f.Check, fault)
		}
	}
}
