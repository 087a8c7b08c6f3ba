package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/m2m"
	"github.com/simlatch/simlatch/m2m/m2mtest"
)

// bulkCommands runs commands against a server, in a directory with a fleet file.
type bulkCommands struct{ dir string }

func newBulkCommands(t *testing.T, s *m2mtest.Server, server string) *bulkCommands {
	t.Helper()
	b := &bulkCommands{dir: t.TempDir()}
	for name, value := range map[string]string{
		"SERVER": server, "KEY": s.Key, "SECRET": s.Secret, "USER": s.Username, "PASSWORD": s.Password,
		"PROFILES": filepath.Join(b.dir, "profiles.yaml"),
	} {
		t.Setenv(envPrefix+name, value)
	}
	var fleet strings.Builder
	fleet.WriteString("imei,iccid\n")
	for _, d := range s.Devices {
		fleet.WriteString(d.IMEI() + "," + d.ICCID() + "\n")
	}
	if err := os.WriteFile(filepath.Join(b.dir, "fleet.csv"), []byte(fleet.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs a command whose last argument is a file of the directory.
func (b *bulkCommands) run(t *testing.T, status int, args ...string) string {
	t.Helper()
	args[len(args)-1] = filepath.Join(b.dir, args[len(args)-1])
	var out bytes.Buffer
	if got := run(args, streams{in: strings.NewReader(""), out: &out, err: &out}); got != status {
		t.Fatalf("simlatch %s ended with status %d, want %d\n%s", strings.Join(args, " "), got, status, out.String())
	}
	return out.String()
}

// TestApplyStatus: the exit status says how the devices ended.
func TestApplyStatus(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(4), m2mtest.WithCarrierDelay(time.Second))
	b := newBulkCommands(t, s, s.URL)
	b.run(t, exitDone, "plan", "assign", "--sku", m2mtest.SKUFlexible, "--file", "fleet.csv")
	out := b.run(t, exitTimeout, "apply", "--timeout", "200ms", "fleet.plan")
	if !strings.Contains(out, "  4  Pending\n") {
		t.Errorf("apply, out of time, says\n%s", out)
	}
	out = b.run(t, exitDone, "apply", "fleet.plan")
	if !strings.Contains(out, "  4  Success\n") {
		t.Errorf("apply, again, says\n%s", out)
	}
	s.Refuse(s.Devices[2])
	b.run(t, exitDone, "plan", "unassign", "--sku", m2mtest.SKUFlexible, "--out", filepath.Join(b.dir, "back.plan"), "--file", "fleet.csv")
	out = b.run(t, exitPartly, "apply", "back.plan")
	if !strings.Contains(out, "  3  Success\n  1  Failed\n") {
		t.Errorf("apply, refused one, says\n%s", out)
	}
}

// TestPlanOther: a plan for a server that is not Simlatch says what could not be
// checked.
func TestPlanOther(t *testing.T) {
	s := m2mtest.NewServer(t, m2mtest.WithDevices(3))
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	other := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(a *http.Response) error {
			a.Header.Del(m2m.ServerHeader)
			return nil
		},
	})
	t.Cleanup(other.Close)
	b := newBulkCommands(t, s, other.URL)
	out := b.run(t, exitDone, "plan", "assign", "--sku", m2mtest.SKUFlexible, "--file", "fleet.csv")
	for _, want := range []string{
		"  3  to be assigned SIMSec-IoT\n",
		"The server cannot be asked for a dry run. NOT CHECKED:\n  - whether each device is a 4G device\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan does not say %q:\n%s", want, out)
		}
	}
	if out := b.run(t, exitDone, "apply", "fleet.plan"); !strings.Contains(out, "  3  Success\n") {
		t.Errorf("apply says\n%s", out)
	}
}
