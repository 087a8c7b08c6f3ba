package callback

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// A Guard keeps callbacks away from addresses that an account must not reach
// through this service: private and loopback ones unless they are allowed, and
// link-local ones and those of cloud metadata services always.
//
// It judges the address that is really dialled, so a name that resolves to
// something else later, or to many addresses, gets nobody past it.
type Guard struct {
	guardian *ssrf.Guardian
	lookup   func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// lookupTimeout bounds the resolution of a name at registration: the caller
// waits for it, and the dial will judge the address anyway.
const lookupTimeout = 2 * time.Second

// NewGuard makes a guard that lets callbacks go to public addresses and to
// those in allow.
func NewGuard(allow []netip.Prefix) *Guard {
	var v4, v6 []netip.Prefix
	for _, p := range allow {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return &Guard{
		guardian: ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...)),
		lookup:   net.DefaultResolver.LookupNetIP,
	}
}

// AddressError refuses an address callbacks may not be sent to.
type AddressError struct {
	Addr      netip.Addr
	Allowable bool // whether --callback-allow would allow it
}

func (e *AddressError) Error() string {
	if !e.Allowable {
		return fmt.Sprintf("callbacks are never sent to %s: it is link-local, of a metadata service, or no host's address", e.Addr)
	}
	return fmt.Sprintf("callbacks are not sent to %s, which is private, loopback or reserved; --callback-allow %s would allow it",
		e.Addr, e.Prefix())
}

// Prefix is the narrowest prefix that --callback-allow would need to allow the
// address.
func (e *AddressError) Prefix() netip.Prefix { return netip.PrefixFrom(e.Addr, e.Addr.BitLen()) }

// Control is the Control function of a net.Dialer: it refuses a connection, with
// an *AddressError, before the first packet is sent.
func (g *Guard) Control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("callbacks are not sent over %s", network)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("judging the address of a listener: %w", err)
	}
	return g.judge(ap.Addr())
}

// CheckHost tells, when a listener is registered, whether callbacks to host
// would be refused: at once for an address, and for a name when none of its
// addresses may be dialled. A name that does not resolve passes, since the dial
// decides. The error is an *AddressError.
func (g *Guard) CheckHost(ctx context.Context, host string) error {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if addr, err := netip.ParseAddr(host); err == nil {
		return g.judge(addr)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := g.lookup(ctx, "ip", host)
	if err != nil {
		return nil //nolint:nilerr // unresolvable now is no reason to refuse: the dial decides
	}
	var refused error
	for _, addr := range addrs {
		err := g.judge(addr)
		if err == nil {
			return nil
		}
		var ae *AddressError
		if refused == nil || errors.As(err, &ae) && ae.Allowable {
			refused = err
		}
	}
	return refused
}

func (g *Guard) judge(addr netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	if never(addr) || never(embedded(addr)) {
		return &AddressError{Addr: addr}
	}
	if g.guardian.SafeAddr(addr) != nil {
		return &AddressError{Addr: addr, Allowable: true}
	}
	return nil
}

// never reports addresses that no setting allows: whoever reaches them acts as
// this machine, or they name no host at all.
func never(addr netip.Addr) bool {
	switch addr {
	case netip.Addr{}:
		return false
	case netip.AddrFrom4([4]byte{168, 63, 129, 16}), // Azure
		netip.AddrFrom4([4]byte{100, 100, 100, 200}), // Alibaba Cloud
		netip.AddrFrom4([4]byte{192, 0, 0, 192}),     // Oracle Cloud
		netip.AddrFrom4([4]byte{255, 255, 255, 255}),
		netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54}), // AWS, fd00:ec2::254
		netip.AddrFrom16([16]byte{0xfd, 0x20, 0x00, 0xce, 14: 0x02, 15: 0x54}): // Google Cloud, fd20:ce::254
		return true
	}
	return addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() ||
		addr.Is4() && addr.As4()[0] == 0 // "this network": Linux takes it for this host
}

// embedded is the IPv4 address that a NAT64 (RFC 6052) or 6to4 (RFC 3056)
// address stands for; the zero Addr for others.
func embedded(addr netip.Addr) netip.Addr {
	if !addr.Is6() {
		return netip.Addr{}
	}
	b := addr.As16()
	switch {
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	case [12]byte(b[:12]) == [12]byte{0x00, 0x64, 0xff, 0x9b}:
		return netip.AddrFrom4([4]byte(b[12:16]))
	}
	return netip.Addr{}
}
