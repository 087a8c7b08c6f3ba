package callback

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/simlatch/simlatch/internal/license"
)

// everywhere allows what any setting could allow.
func everywhere() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
}

// TestSSRFSpellings gives hosts in every spelling that some program takes for an
// address, at registration and at the dial, to a guard that allows nothing and to
// one that allows all that can be allowed.
func TestSSRFSpellings(t *testing.T) {
	never := []string{
		// The metadata services, and link-local, however they are written.
		"169.254.169.254", "169.254.170.2", "169.254.0.1",
		"2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376", "025177524776", "169.254.43518", "169.16689662",
		"169.254.169.254.", "169.254.169.0xfe", "0xa9fea9fe.",
		"::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "0:0:0:0:0:ffff:a9fe:a9fe", "::169.254.169.254", "::a9fe:a9fe",
		"::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1",
		"2001:0:1:2:3:4:5601:5601", "2606:4700::5efe:a9fe:a9fe", "2606:4700::200:5efe:a9fe:a9fe",
		"fe80::1", "fe80::1%eth0", "fe80::a9fe:a9fe", "::1%lo", "2606:4700::1%eth0",
		"fd00:ec2::254", "fd00:ec2::23", "fd00:0ec2:0:0:0:0:0:253", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd20:ce::254",
		"100.100.100.200", "168.63.129.16", "192.0.0.192", "::ffff:168.63.129.16", "64:ff9b::a83f:8110",
		// No host.
		"0", "0.0.0.0", "0.1.2.3", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "ff0e::1", "::ffff:0.0.0.0", "64:ff9b::",
		// Addresses that only some take for such.
		"127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7f.1", "0x7F.0.0.1", "0177.0.0.1", "0x", "127.0.0.1.", "10.1", "1",
		"010.0.0.1", "127.0.0.01", "a.b.1", "a.0x1f",
		"１２７.0.0.1", "127。0。0。1", "ⓛocalhost", "①②⑦.0.0.1", "bücher.example", "loca\u00adlhost",
		"fe80::1%25eth0", "a:b", "a%b",
	}
	allowable := []string{
		"127.0.0.1", "127.255.0.9", "10.0.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "198.18.0.1", "192.0.2.1", "240.0.0.1",
		"::1", "[::1]", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::127.0.0.1", "::7f00:1",
		"64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a00:1::1", "2001::7f00:1",
		"fc00::1", "fd12:3456::1", "fec0::1", "2001:db8::1", "100::1", "5f00::1",
	}
	public := []string{"93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "[2606:4700::1111]", "::ffff:93.184.215.14"}
	nothing, all := NewGuard(nil), NewGuard(everywhere())
	check := func(host string, bare, widest bool) {
		t.Helper()
		for g, want := range map[*Guard]bool{nothing: bare, all: widest} {
			g.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
				t.Errorf("%s was looked up", host)
				return nil, nil
			}
			if err := g.CheckHost(t.Context(), host, 443); (err == nil) != want {
				t.Errorf("registering %s with all allowed %v: %v, want passing %v", host, g == all, err, want)
			}
			if want { // it would be dialled
				continue
			}
			_, err := g.DialContext(t.Context(), "tcp", net.JoinHostPort(strings.Trim(host, "[]"), "443"))
			var address *AddressError
			var spelling *SpellingError
			if !errors.As(err, &address) && !errors.As(err, &spelling) {
				t.Errorf("dialling %s with all allowed %v: %v, want a refusal", host, g == all, err)
			}
		}
	}
	for _, host := range never {
		check(host, false, false)
	}
	for _, host := range allowable {
		check(host, false, true)
	}
	for _, host := range public {
		check(host, true, true)
	}
}

// TestSSRFTranslatedNeedsBoth has a setting that allows translated addresses not
// allow the private ones behind them.
func TestSSRFTranslatedNeedsBoth(t *testing.T) {
	g := NewGuard([]netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("10.0.0.0/8")})
	for host, want := range map[string]bool{"64:ff9b::5db8:d70e": true, "64:ff9b::a00:1": true, "64:ff9b::7f00:1": false} {
		if err := g.CheckHost(t.Context(), host, 80); (err == nil) != want {
			t.Errorf("%s: %v, want passing %v", host, err, want)
		}
	}
}

func TestSSRFPorts(t *testing.T) {
	reference, err := ParsePorts("reference")
	if err != nil {
		t.Fatal(err)
	}
	one, _ := ParsePorts("8443")
	ports := append(reference, one...)
	g := NewGuard(nil, ports...)
	for port, want := range map[uint16]bool{80: true, 443: true, 8443: true, 9001: true, 9006: true, 9007: false, 50559: true, 28220: true, 28221: false, 22: false, 6379: false} {
		err := g.CheckHost(t.Context(), "93.184.215.14", port)
		dial := g.Control("tcp4", "93.184.215.14:"+strconv.Itoa(int(port)), nil)
		if (err == nil) != want || (dial == nil) != want {
			t.Errorf("port %d: %v, %v, want passing %v", port, err, dial, want)
		}
		if err != nil && !strings.Contains(err.Error(), "--callback-ports allows 80, 443, 9001-9006, 50551-50559, 28200-28220, 8443") {
			t.Errorf("the error is %v", err)
		}
	}
	if err := NewGuard(nil).CheckHost(t.Context(), "93.184.215.14", 22); err != nil {
		t.Errorf("by default: %v", err)
	}
	for _, s := range []string{"", "0", "65536", "9-8", "-1", "1-", "a", "80,443", "+80", "0x50"} {
		if p, err := ParsePorts(s); err == nil {
			t.Errorf("ParsePorts(%q) = %v, want an error", s, p)
		}
	}
}

// TestSSRFRebinding registers a name whose address is public, and which is that of
// this machine by the time it is dialled.
func TestSSRFRebinding(t *testing.T) {
	var reached atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer inside.Close()
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())
	number, _ := strconv.ParseUint(port, 10, 16)
	var answer atomic.Pointer[[4]byte]
	answer.Store(&[4]byte{93, 184, 215, 14})
	g := NewGuard(nil)
	g.resolver = &net.Resolver{PreferGo: true, Dial: fakeDNS(t, &answer)}
	g.lookup = g.resolver.LookupNetIP
	if err := g.CheckHost(t.Context(), "rebinds.example.", uint16(number)); err != nil {
		t.Fatalf("at registration: %v", err)
	}
	for _, to := range [][4]byte{{127, 0, 0, 1}, {169, 254, 169, 254}, {0, 0, 0, 0}} {
		answer.Store(&to)
		d := tryOnce(t, g, "http://rebinds.example.:"+port+"/")
		if d.Status != 0 || !strings.Contains(string(d.Answer), "callbacks are ") {
			t.Errorf("dialled as %v: %d %q, want a refusal", to, d.Status, d.Answer)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("this machine was reached %d times", n)
	}
	// The same listener is reached where it may be.
	answer.Store(&[4]byte{127, 0, 0, 1})
	allowed := NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")})
	allowed.resolver = g.resolver
	if d := tryOnce(t, allowed, "http://rebinds.example.:"+port+"/"); d.Status != http.StatusOK || reached.Load() != 1 {
		t.Errorf("allowed: %d %q", d.Status, d.Answer)
	}
}

// TestSSRFRedirect has a listener that may be reached point at one that may not.
func TestSSRFRedirect(t *testing.T) {
	var reached atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer inside.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		outside := httptest.NewServer(http.RedirectHandler(inside.URL, status))
		if d := tryOnce(t, loopback(), outside.URL); d.Status != status || d.Verdict == license.Delivered {
			t.Errorf("%d: %+v", status, d)
		}
		outside.Close()
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// tryOnce sends a test message, which takes the way of every callback.
func tryOnce(t *testing.T, g *Guard, to string) license.Delivery {
	t.Helper()
	s, err := New(Config{Outbox: newOutbox(), Guard: g})
	if err != nil {
		t.Fatal(err)
	}
	defer s.transport.CloseIdleConnections()
	if _, err := url.Parse(to); err != nil {
		t.Fatal(err)
	}
	return s.Test(t.Context(), license.Listener{Account: "0000123456-00001", Service: license.CarrierService, URL: to})
}

// fakeDNS answers every question for an A record with one address, and every other
// with none.
func fakeDNS(t *testing.T, answer *atomic.Pointer[[4]byte]) func(context.Context, string, string) (net.Conn, error) {
	t.Helper()
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for question := make([]byte, 1500); ; {
			n, from, err := server.ReadFrom(question)
			if err != nil {
				return
			}
			end := 12
			for end < n && question[end] != 0 {
				end += int(question[end]) + 1
			}
			end += 5 // the root, the type and the class
			reply := append([]byte{}, question[:end]...)
			binary.BigEndian.PutUint16(reply[2:], 0x8180) // an answer, with recursion
			copy(reply[6:12], make([]byte, 6))
			if binary.BigEndian.Uint16(question[end-4:]) == 1 {
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, answer.Load()[:]...)
			}
			_, _ = server.WriteTo(reply, from)
		}
	}()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp4", server.LocalAddr().String())
	}
}
