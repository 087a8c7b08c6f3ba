package callback

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	allow := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::ffff:10.1.0.0/112"), netip.MustParsePrefix("fd00::/8"),
		netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"),
	}
	tests := []struct {
		addr                 string
		bare, narrow, widest bool // passes with nothing, the first three, all allowed
		allowable            bool
	}{
		{"93.184.215.14", true, true, true, false},
		{"2606:2800:21f:cb07:6820:80da:af6b:8b2c", true, true, true, false},
		{"127.0.0.1", false, true, true, true},
		{"127.8.9.1", false, true, true, true},
		{"::ffff:127.0.0.1", false, true, true, true},
		{"::1", false, false, true, true},
		{"10.1.2.3", false, true, true, true},
		{"10.2.2.3", false, false, true, true},
		{"172.16.0.1", false, false, true, true},
		{"192.168.1.1", false, false, true, true},
		{"100.64.0.1", false, false, true, true},
		{"198.18.0.1", false, false, true, true},
		{"fd12::1", false, true, true, true},
		{"fc00::1", false, false, true, true},
		{"169.254.169.254", false, false, false, false},
		{"169.254.0.1", false, false, false, false},
		{"::ffff:169.254.169.254", false, false, false, false},
		{"64:ff9b::a9fe:a9fe", false, false, false, false},
		{"2002:a9fe:a9fe::1", false, false, false, false},
		{"fe80::1", false, false, false, false},
		{"fe80::1%eth0", false, false, false, false},
		{"fd00:ec2::254", false, false, false, false},
		{"fd20:ce::254", false, false, false, false},
		{"100.100.100.200", false, false, false, false},
		{"168.63.129.16", false, false, false, false},
		{"0.0.0.0", false, false, false, false},
		{"0.1.2.3", false, false, false, false},
		{"::", false, false, false, false},
		{"224.0.0.1", false, false, false, false},
		{"ff02::1", false, false, false, false},
		{"255.255.255.255", false, false, false, false},
	}
	guards := []struct {
		name  string
		guard *Guard
	}{{"nothing", NewGuard(nil)}, {"some", NewGuard(allow[:3])}, {"everything", NewGuard(allow)}}
	for _, tt := range tests {
		for i, g := range guards {
			want := []bool{tt.bare, tt.narrow, tt.widest}[i]
			hostErr := g.guard.CheckHost(t.Context(), tt.addr, 443)
			dialErr := g.guard.Control("tcp4", netip.AddrPortFrom(netip.MustParseAddr(tt.addr), 80).String(), nil)
			if (hostErr == nil) != want || (dialErr == nil) != want {
				t.Errorf("%s with %s allowed: CheckHost %v, Control %v, want passing: %v", tt.addr, g.name, hostErr, dialErr, want)
			}
			var ae *AddressError
			if hostErr != nil && (!errors.As(hostErr, &ae) || ae.Allowable != tt.allowable) {
				t.Errorf("%s with %s allowed: %#v, want Allowable %v", tt.addr, g.name, hostErr, tt.allowable)
			}
		}
	}
	if err := NewGuard(nil).Control("unix", "/run/x", nil); err == nil {
		t.Error("a unix socket passed")
	}
}

func TestGuardNamesTheFlag(t *testing.T) {
	for host, want := range map[string]string{
		"192.168.1.7": "--callback-allow 192.168.1.7/32",
		"[::1]":       "--callback-allow ::1/128",
	} {
		err := NewGuard(nil).CheckHost(t.Context(), host, 443)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckHost(%q) = %v, want it to name %s", host, err, want)
		}
	}
	err := NewGuard(nil).CheckHost(t.Context(), "169.254.169.254", 443)
	if err == nil || strings.Contains(err.Error(), "--callback-allow") {
		t.Errorf("CheckHost(169.254.169.254) = %v, want an error that names no flag", err)
	}
}

func TestGuardNames(t *testing.T) {
	names := map[string][]netip.Addr{
		"public.example":  {netip.MustParseAddr("93.184.215.14")},
		"inside.example":  {netip.MustParseAddr("10.0.0.1")},
		"both.example":    {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("93.184.215.14")},
		"rebound.example": {netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("10.0.0.1")},
	}
	g := NewGuard(nil)
	g.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if a, ok := names[host]; ok {
			return a, nil
		}
		return nil, errors.New("no such host")
	}
	for host, want := range map[string]bool{
		"public.example": true, "inside.example": false, "both.example": true, "rebound.example": false, "unknown.example": true,
	} {
		err := g.CheckHost(t.Context(), host, 443)
		if (err == nil) != want {
			t.Errorf("CheckHost(%q) = %v, want passing: %v", host, err, want)
		}
		var ae *AddressError
		if err != nil && (!errors.As(err, &ae) || !ae.Allowable) {
			t.Errorf("CheckHost(%q) = %v, want it to say that it can be allowed", host, err)
		}
	}
}
