package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/exchange"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/server"
)

// recordedCarrier answers as the exchanges want it to.
type recordedCarrier map[string]exchange.CarrierAnswer // by action and ICCID

func (c recordedCarrier) Provision(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
	outcomes := make([]license.Outcome, len(tasks))
	for i, task := range tasks {
		outcomes[i] = license.Outcome{Task: task, Verdict: license.Done}
		switch answer, ok := c[string(task.Action)+string(task.Device.ICCID)]; {
		case !ok:
		case answer.Silent:
			outcomes[i].Verdict, outcomes[i].Due = license.Later, time.Now().Add(time.Hour)
		default:
			outcomes[i].Verdict, outcomes[i].Comment = license.Refused, answer.Comment
			if answer.Code == exchange.AlreadyLicensed {
				outcomes[i].Code = license.CodeAlreadyLicensed
			}
		}
	}
	return outcomes, nil
}

// startSeeded starts a server with a seed in this process, with a new database,
// and returns its URL.
func startSeeded(t *testing.T, seed []byte, cfg server.Config) string {
	t.Helper()
	dir := t.TempDir()
	cfg.Listen, cfg.Database, cfg.Seed = "127.0.0.1:0", "sqlite:"+filepath.Join(dir, "test.db"), filepath.Join(dir, "seed.yaml")
	cfg.CallbackAllow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if err := os.WriteFile(cfg.Seed, seed, 0o600); err != nil {
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

// startRecorded starts a server of which every exchange must be true.
func startRecorded(t *testing.T) string {
	t.Helper()
	vars, err := exchange.Variables(exchange.Seed())
	if err != nil {
		t.Fatal(err)
	}
	carrier := recordedCarrier{}
	for _, a := range exchange.CarrierAnswers(vars) {
		carrier[a.Action+a.ICCID] = a
	}
	return startSeeded(t, exchange.Seed(), server.Config{
		Carrier: "recorded", Provisioner: carrier, CallbackInterval: 100 * time.Millisecond,
	})
}

// runCommand runs simlatch in this process.
func runCommand(t *testing.T, args ...string) (status int, out, messages string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status = run(args, streams{in: strings.NewReader(""), out: &stdout, err: &stderr})
	return status, stdout.String(), stderr.String()
}

func TestConformanceOfOurOwn(t *testing.T) {
	t.Parallel()
	all, err := exchange.Load()
	if err != nil {
		t.Fatal(err)
	}
	status, out, messages := runCommand(t, "conformance", "--server", startRecorded(t), "--patience", "30s",
		"--offers", strings.Join(needNames(), ","))
	if want := ": " + strconv.Itoa(len(all)) + " conform, 0 differ, 0 skipped, in "; status != exitDone || !strings.Contains(out, want) {
		t.Errorf("the status is %d, want 0, and %q in\n%s%s", status, want, out, messages)
	}
}

// startProxy starts a server in front of another, whose answers it may change.
func startProxy(t *testing.T, behind string, change func(*http.Response) error) string {
	t.Helper()
	target, err := url.Parse(behind)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: change,
		ErrorLog:       log.New(io.Discard, "", 0),
	})
	t.Cleanup(proxy.Close)
	return proxy.URL
}

// startLiar starts a server that gives one answer wrong.
func startLiar(t *testing.T) string {
	t.Helper()
	return startProxy(t, startRecorded(t), func(r *http.Response) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		body = bytes.Replace(body, []byte("skuNumber is a required field."), []byte("no SKU"), 1)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		r.Header.Set("Content-Length", strconv.Itoa(len(body)))
		return nil
	})
}

// TestConformanceNamesTheDifference: of a server with one wrong answer each form
// of the report says which that is, and no more than may be known.
func TestConformanceNamesTheDifference(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "report")
	args := []string{
		"conformance", "--server", startLiar(t), "--only", "^(error-sku-not-defined|session-login-wrong|session-login-logout|assign-flexible|token)$", "--report-file", file,
	}
	for _, form := range []string{"text", formJSON, formJUnit} {
		status, out, messages := runCommand(t, append(args, "--report", form)...)
		if status != exitPartly || !strings.Contains(messages, "simlatch: not as recorded: 1 of the 4 exchanges that were run\n") {
			t.Errorf("the status is %d, want 3, and what was said %q", status, messages)
		}
		report, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := out + string(report)
		for _, secret := range []string{"demo-secret", "demo-password"} {
			if strings.Contains(text, secret) {
				t.Errorf("the report has %q:\n%s", secret, text)
			}
		}
		for _, want := range []string{
			": 3 conform, 1 differ, 1 skipped, in ", "    1 skipped: needs callbacks\ndiffer:\n  error-sku-not-defined\n",
			"differs  error-sku-not-defined: ", "step 1: ", `want "skuNumber is a required field.", got "no SKU"`, "Authorization: Bearer ***\n",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("the text has not %q:\n%s", want, out)
			}
		}
		checkReport(t, form, report)
	}
}

func checkReport(t *testing.T, form string, report []byte) {
	t.Helper()
	const place = "body.errorMessage"
	switch form {
	case formJSON:
		var r conformanceReport
		if err := json.Unmarshal(report, &r); err != nil {
			t.Fatal(err)
		}
		if r.Conform != 3 || r.Differ != 1 || r.Skipped != 1 || len(r.Exchanges) != 5 {
			t.Errorf("the report in JSON counts %+v", r)
		}
		for _, x := range r.Exchanges {
			if differs := x.Name == "error-sku-not-defined"; differs != (x.Outcome == "differs") || differs != (len(x.Steps) > 0) {
				t.Errorf("the report in JSON has %+v", x)
			} else if differs && x.Steps[0].Diffs[0].At != place {
				t.Errorf("the report in JSON places the difference at %q, want %q", x.Steps[0].Diffs[0].At, place)
			}
		}
	case formJUnit:
		var suite junitSuite
		if err := xml.Unmarshal(report, &suite); err != nil {
			t.Fatal(err)
		}
		if suite.Tests != 5 || suite.Failures != 1 || suite.Skipped != 1 {
			t.Errorf("the report for JUnit counts %+v", suite)
		}
		for _, c := range suite.Cases {
			if (c.Name == "error-sku-not-defined") != (c.Failure != nil) || (c.Name == "assign-flexible") != (c.Skipped != nil) {
				t.Errorf("the report for JUnit has %+v", c)
			} else if c.Failure != nil && !strings.HasPrefix(c.Failure.Message, place+": want ") {
				t.Errorf("the failure's message is %q", c.Failure.Message)
			}
		}
	}
}

// TestConformanceInterrupted: what was run is reported all the same.
func TestConformanceInterrupted(t *testing.T) {
	t.Parallel()
	all, err := exchange.Load()
	if err != nil {
		t.Fatal(err)
	}
	vars, err := exchange.Variables(exchange.Seed())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	url := startProxy(t, startRecorded(t), func(r *http.Response) error {
		if strings.HasSuffix(r.Request.URL.Path, "/actions/assign") {
			stop()
		}
		return nil
	})
	runner, err := exchange.NewRunner(exchange.Config{URL: url, Vars: vars})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = runner.Close() }) // it has no listener
	c := &conformance{server: "here", runner: runner, vars: vars}
	wanted := regexp.MustCompile("^(account|assign-no-listener|token)$")
	all = slices.DeleteFunc(all, func(x exchange.Exchange) bool { return !wanted.MatchString(x.Name) })
	if err := c.run(ctx, streams{err: io.Discard}, all); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.write(&out, "text", false); err != nil || !strings.Contains(out.String(), "here: 1 conform, 0 differ, 0 skipped, 2 not run, in ") {
		t.Errorf("reported (%v) %s", err, &out)
	}
	if err := c.verdict(ctx); exitStatus(runError{err}) != exitFailed || !strings.Contains(err.Error(), "ended after 1 of 3 exchanges") {
		t.Errorf("the verdict is %v, want one of exit status 1", err)
	}
}

// TestConformanceWithTheirSeed: what a seed leaves out is not asked about.
func TestConformanceWithTheirSeed(t *testing.T) {
	t.Parallel()
	seed := filepath.Join(t.TempDir(), "theirs.yaml")
	const text = `applications:
  - {key: demo-key, secret: demo-secret} # app
users:
  - {username: demo, password: demo-password} # user
accounts:
  - name: "0000123456-00001" # account
`
	if err := os.WriteFile(seed, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, messages := runCommand(t, "conformance", "--server", startRecorded(t),
		"--seed", seed, "--offers", "callbacks", "--only", "^(token|subscriptions-none|assign-flexible|session-login-logout)$")
	for _, want := range []string{
		": 2 conform, 0 differ, 2 skipped, in ", `  1 skipped: assign two devices: the device "d1" of the seed is not defined`,
		`  1 skipped: the user "empty" of the seed is not defined`,
	} {
		if status != exitDone || !strings.Contains(out, want) {
			t.Errorf("the status is %d, want 0, and %q in\n%s%s", status, want, out, messages)
		}
	}
}

// TestConformanceOfTheDocs runs the exchange that docs/conformance.md shows.
func TestConformanceOfTheDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```\nWhat a program of ours")
	own, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/conformance.md shows no exchange")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "own.txtar"), []byte("What a program of ours"+own), 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, messages := runCommand(t, "conformance", "--server", startRecorded(t), "--dir", dir, "--only", "^own$", "--offers", "callbacks")
	if status != exitDone || !strings.Contains(out, ": 1 conform, 0 differ") {
		t.Errorf("the status is %d, want 0, and one that conforms:\n%s%s", status, out, messages)
	}
}
