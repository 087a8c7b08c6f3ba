package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/m2m"
)

// startListening runs the listener until the test ends and returns its URL and
// what it writes.
func startListening(t *testing.T, o listenOptions) (url string, out *bytes.Buffer, end func() error) {
	t.Helper()
	o.address = "127.0.0.1:0"
	out = new(bytes.Buffer)
	messages, w := io.Pipe()
	receiver, err := newCallbackReceiver(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- errors.Join(runListen(ctx, streams{out: out, err: w}, receiver, nil), w.Close())
	}()
	lines := bufio.NewScanner(messages)
	lines.Scan()
	m := regexp.MustCompile(`on (http://\S+)$`).FindStringSubmatch(lines.Text())
	if m == nil {
		t.Fatalf("the first line is %q, want one that names the URL", lines.Text())
	}
	go func() {
		for lines.Scan() {
		}
	}()
	return m[1], out, func() error {
		if o.count == 0 {
			cancel()
		}
		defer cancel()
		return <-ended
	}
}

func post(t *testing.T, url, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func callbackBody(t *testing.T, m m2m.CallbackMessage) string {
	t.Helper()
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	goodMessage = m2m.CallbackMessage{
		Username: "u", Password: "p", RequestID: "c3f3d17c", Status: m2m.CallbackSuccess, CallbackCount: 1, MaxCallbackThreshold: 4,
		DeviceIDs: []m2m.DeviceID{{ID: "89148000000000000012", Kind: "ICCID"}, {ID: "490154203237518", Kind: "IMEI"}},
		DeviceResponse: &m2m.DeviceResponse{DeviceSKUSubscriptionResponse: m2m.SKUSubscriptionResponse{
			AccountName: "0000123456-00001", SKUNumber: "SIMSec-IoT", Action: "Assign",
		}},
	}
	failedMessage = m2m.CallbackMessage{
		RequestID: "c3f3d17c", Status: m2m.CallbackFailed, CallbackCount: 2, MaxCallbackThreshold: 4,
		FaultResponse: &m2m.FaultResponse{FaultCode: "UnifiedWebService.X", FaultString: "no \x1b[31mway"},
	}
)

func TestListenPrintsALine(t *testing.T) {
	url, out, end := startListening(t, listenOptions{form: "text", count: 2})
	for _, m := range []m2m.CallbackMessage{goodMessage, failedMessage} {
		if got := post(t, url, callbackBody(t, m)); got != http.StatusOK {
			t.Errorf("a callback was answered with %d, want 200", got)
		}
	}
	if err := end(); err != nil {
		t.Errorf("runListen = %v after as many messages as asked for, want nil", err)
	}
	want := "Success  Assign SIMSec-IoT  ICCID 89148000000000000012  IMEI 490154203237518  request c3f3d17c  attempt 1 of 4\n" +
		"Failed   request c3f3d17c  attempt 2 of 4  UnifiedWebService.X: no \uFFFD[31mway\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", out, want)
	}
}

func TestListenPrintsJSON(t *testing.T) {
	url, out, end := startListening(t, listenOptions{form: formJSON})
	post(t, url, callbackBody(t, goodMessage))
	if err := end(); err != nil {
		t.Errorf("runListen = %v when interrupted, want nil", err)
	}
	var got m2m.CallbackMessage
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Password != "p" || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("printed %q (%v), want the message on one line", out, err)
	}
}

func TestListenRefusesOtherThings(t *testing.T) {
	url, out, end := startListening(t, listenOptions{form: "text"})
	for body, want := range map[string]int{
		"":                                 http.StatusBadRequest,
		"hello":                            http.StatusBadRequest,
		`{"deviceIds": 7}`:                 http.StatusBadRequest,
		strings.Repeat("x", maxCallback+1): http.StatusBadRequest,
	} {
		if got := post(t, url, body); got != want {
			t.Errorf("POST %.20q was answered with %d, want %d", body, got, want)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET was answered with %d, want 405", resp.StatusCode)
	}
	if err := end(); err != nil || out.Len() > 0 {
		t.Errorf("runListen = %v and printed %q, want neither an error nor a line", err, out)
	}
}

func TestListenerURL(t *testing.T) {
	for _, c := range []struct{ addr, url, allow string }{
		{"127.0.0.1:9001", "http://127.0.0.1:9001/", "127.0.0.1/32"},
		{"[::1]:9001", "http://[::1]:9001/", "::1/128"},
		{"10.1.2.3:80", "http://10.1.2.3:80/", "10.1.2.3/32"},
		{"0.0.0.0:9001", "http://127.0.0.1:9001/", "127.0.0.1/32"},
		{"[::]:9001", "http://127.0.0.1:9001/", "127.0.0.1/32"},
		{"203.0.113.7:443", "http://203.0.113.7:443/", ""},
	} {
		url, allow := listenerURL(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(c.addr)))
		if url != c.url || allow != c.allow {
			t.Errorf("listenerURL(%s) = %s, %q, want %s, %q", c.addr, url, allow, c.url, c.allow)
		}
	}
}
