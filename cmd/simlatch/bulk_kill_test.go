package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/load"
)

// The size of the bulk kill test. TEST_BULK is another number of devices.
const (
	bulkDevices = 100_000
	bulkBatch   = 1_000
	bulkKills   = 3 // of the client, and as many of the server
	killAccount = "0000123456-00001"
)

// TestBulkKilled assigns a fleet by plan and apply, and kills both the client and
// the server three times on the way. Each SIM must be in the result once, with the
// outcome that the server has for it, and the ledger must be right.
func TestBulkKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	b := newBulkTest(t)
	server := b.serve(t, "--seed", "seed.yaml")
	start := time.Now()
	b.client(t, 0, "plan", "assign", "--sku", "SIMSec-IoT", "--file", "fleet.csv")
	planned := time.Since(start)
	start = time.Now()
	client := b.apply(t)
	for i := range 2 * bulkKills {
		b.waitFor(t, client, (i+1)*b.steps()/(2*bulkKills+1))
		if i%2 == 0 {
			_ = client.Process.Kill() // it may have ended
			_ = client.Wait()         // it was killed
			client = b.apply(t)
			continue
		}
		server.kill()
		server = b.serve(t)
	}
	err := client.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitPartly {
		t.Errorf("the last client ended with %v, want status %d, since some SIMs are refused\n%s", err, exitPartly, b.read(t, "client.log"))
	}
	took := time.Since(start)
	done := b.checkResult(t)
	if out := b.client(t, 0, "subscriptions", "--output", "csv"); !strings.Contains(out, fmt.Sprintf(",%d,%d,%d\n", b.devices, done, b.devices-done)) {
		t.Errorf("%d SIMs succeeded, and the pool is\n%s", done, out)
	}
	if out := b.client(t, 0, "verify", "--database", "sqlite:simlatch.db"); !strings.Contains(out, "the ledger is right") {
		t.Errorf("verify says %s", out)
	}
	// What is done is not done again.
	before := b.read(t, "fleet.result.csv")
	b.client(t, exitPartly, "apply", "fleet.plan")
	if !bytes.Equal(before, b.read(t, "fleet.result.csv")) {
		t.Error("applied again, the plan has another result")
	}
	t.Logf("%d devices, %d of them assigned: planned in %s, applied in %s through %d kills", b.devices, done, planned.Round(time.Millisecond),
		took.Round(time.Millisecond), 2*bulkKills)
}

// bulkTest is a fleet, and a server and a client that are killed.
type bulkTest struct {
	dir, address string
	devices      int
	log          *os.File // of the server
	clientLog    *os.File

	journal           *os.File // read so far
	tail              []byte   // of it: a line that was not whole
	answers, outcomes int      // in it
}

func newBulkTest(t *testing.T) *bulkTest {
	t.Helper()
	b := &bulkTest{dir: t.TempDir(), address: freeAddress(t), devices: bulkDevices}
	if n := os.Getenv("TEST_BULK"); n != "" {
		var err error
		if b.devices, err = strconv.Atoi(n); err != nil {
			t.Fatal(err)
		}
	}
	var inventory, fleet bytes.Buffer
	inventory.WriteString("account,iccid,imei\n")
	fleet.WriteString("IMEI;ICCID\r\n")
	for i := range b.devices {
		f := load.Fleet{Mark: 5}
		fmt.Fprintf(&inventory, "%s,%s,%s\n", killAccount, f.ICCID(i), f.IMEI(i))
		fmt.Fprintf(&fleet, "%s;%s\r\n", f.IMEI(i), f.ICCID(i))
	}
	for name, text := range map[string]string{
		"inventory.csv": inventory.String(), "fleet.csv": fleet.String(),
		"seed.yaml": "applications: [{key: k, secret: a-secret-of-some-length}]\n" +
			"users: [{username: u, password: password, accounts: [" + killAccount + "]}]\n" +
			fmt.Sprintf("accounts: [{name: %s, pools: {SIMSec-IoT: %d}}]\ndeviceFiles: [inventory.csv]\n", killAccount, b.devices),
	} {
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range map[string]**os.File{"server.log": &b.log, "client.log": &b.clientLog} {
		var err error
		if *f, err = os.Create(filepath.Join(b.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bulkTest) read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (b *bulkTest) serve(t *testing.T, more ...string) *process {
	t.Helper()
	p, err := startProcess(b.dir, b.log, append([]string{
		"serve", "--carrier", "simulated", "--carrier-refuse-rate", "0.002", "--listen", b.address,
		"--callback-allow", "127.0.0.1/32", "--callback-interval", "1s",
	}, more...)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, b.read(t, "server.log"))
	}
	t.Cleanup(p.kill)
	return p
}

func (b *bulkTest) command(args ...string) *exec.Cmd {
	self, _ := os.Executable() // startProcess has found it
	cmd := &exec.Cmd{Path: self, Args: append([]string{"simlatch"}, args...), Dir: b.dir, Stdout: b.clientLog, Stderr: b.clientLog}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, envPrefix) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+b.dir, "SIMLATCH_SERVER=http://"+b.address,
		"SIMLATCH_KEY=k", "SIMLATCH_SECRET=a-secret-of-some-length", "SIMLATCH_USER=u", "SIMLATCH_PASSWORD=password")
	return cmd
}

// client runs a command to its end and returns what it printed.
func (b *bulkTest) client(t *testing.T, status int, args ...string) string {
	t.Helper()
	cmd := b.command(args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("simlatch %s ended with %v, want status %d\n%s", strings.Join(args, " "), err, status, out.String())
	}
	return out.String()
}

func (b *bulkTest) apply(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := b.command("apply", "fleet.plan", "--listen", "127.0.0.1:0", "--batch", strconv.Itoa(bulkBatch), "--timeout", "1m")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, unless the test failed
	return cmd
}

// steps is how far a journal has come in the end: each request accepted, and
// each with its devices ended.
func (b *bulkTest) steps() int { return 2 * ((b.devices + bulkBatch - 1) / bulkBatch) }

// waitFor waits until the journal has come so far. It reads what is new in it.
func (b *bulkTest) waitFor(t *testing.T, client *exec.Cmd, steps int) {
	t.Helper()
	late := time.After(2 * time.Minute)
	for {
		if b.journal == nil {
			b.journal, _ = os.Open(filepath.Join(b.dir, "fleet.journal")) // it may not be there yet
		}
		if b.journal != nil {
			news, err := io.ReadAll(b.journal)
			if err != nil {
				t.Fatal(err)
			}
			b.tail = append(b.tail, news...)
			whole := bytes.LastIndexByte(b.tail, '\n') + 1
			b.outcomes += bytes.Count(b.tail[:whole], []byte(`{"kind":"outcome"`))
			b.answers += bytes.Count(b.tail[:whole], []byte(`{"kind":"accepted"`)) + bytes.Count(b.tail[:whole], []byte(`{"kind":"settled"`))
			b.tail = b.tail[whole:]
		}
		if b.answers+b.outcomes/bulkBatch >= steps {
			return
		}
		select {
		case <-late:
			t.Fatalf("the journal has not come to %d steps of %d (%v)\n%s\n%s", steps, b.steps(), client.ProcessState,
				b.read(t, "client.log"), b.read(t, "server.log"))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// checkResult holds the result against the fleet, and returns how many succeeded.
func (b *bulkTest) checkResult(t *testing.T) (done int) {
	t.Helper()
	rows := csv.NewReader(bytes.NewReader(b.read(t, "fleet.result.csv")))
	for i := -1; ; i++ {
		row, err := rows.Read()
		switch {
		case errors.Is(err, io.EOF):
			if i != b.devices {
				t.Errorf("the result has %d rows, want %d", i, b.devices)
			}
			return done
		case err != nil:
			t.Fatal(err)
		case i < 0: // the titles
			continue
		}
		if want := (load.Fleet{Mark: 5}).ICCID(i); row[0] != want {
			t.Fatalf("row %d is of %s, want %s", i, row[0], want)
		}
		switch row[3] {
		case "Success":
			done++
		case "Failed":
			if row[4] != "UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful" {
				t.Errorf("%v: the carrier alone may refuse", row)
			}
		default:
			t.Errorf("row %d: %v", i, row)
		}
	}
}
