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
// link-local ones and those of cloud metadata services always; and from ports that
// are not allowed.
//
// It judges the address that is really dialled, so a name that resolves to
// something else later, or to many addresses, gets nobody past it.
type Guard struct {
	guardian *ssrf.Guardian
	ports    []Ports // none: any
	resolver *net.Resolver
	lookup   func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// lookupTimeout bounds the resolution of a name at registration: the caller
// waits for it, and the dial will judge the address anyway.
const lookupTimeout = 2 * time.Second

// NewGuard makes a guard that lets callbacks go to public addresses and to
// those in allow, at the given ports; at any where none is given.
func NewGuard(allow []netip.Prefix, ports ...Ports) *Guard {
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
		ports:    ports,
		resolver: net.DefaultResolver,
		lookup:   net.DefaultResolver.LookupNetIP,
	}
}

// NewOwnGuard makes a guard for what an operator, and no account, names: it may be
// anywhere but where a Guard never lets anything go.
func NewOwnGuard() *Guard {
	return NewGuard([]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
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

// DialContext connects to an address that passes, and to no other. The host must
// pass CheckHost's look at its form too: a resolver of the machine may take for an
// address what is none here.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("judging the address of a listener: %w", err)
	}
	if _, err := spelled(host); err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, Resolver: g.resolver, Control: g.Control}
	return dialer.DialContext(ctx, network, address)
}

// Control is the Control function of a net.Dialer: it refuses a connection, with
// an *AddressError or a *PortError, before the first packet is sent.
func (g *Guard) Control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("callbacks are not sent over %s", network)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("judging the address of a listener: %w", err)
	}
	if err := g.judgePort(ap.Port()); err != nil {
		return err
	}
	return g.judge(ap.Addr())
}

// CheckHost tells, when a listener is registered, whether callbacks to a port of
// host would be refused: at once for an address, and for a name when none of its
// addresses may be dialled. A name that does not resolve passes, since the dial
// decides. The error is an *AddressError, a *PortError or a *SpellingError.
func (g *Guard) CheckHost(ctx context.Context, host string, port uint16) error {
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if err := g.judgePort(port); err != nil {
		return err
	}
	addr, err := spelled(host)
	if err != nil {
		return err
	}
	if addr.IsValid() {
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

// judge judges an address, and what it stands for elsewhere: both must pass.
func (g *Guard) judge(addr netip.Addr) error {
	zone := addr.Zone()
	addr = addr.WithZone("").Unmap()
	inner := embedded(addr)
	if zone != "" || never(addr) || never(inner) {
		return &AddressError{Addr: addr}
	}
	if g.guardian.SafeAddr(addr) != nil {
		return &AddressError{Addr: addr, Allowable: true}
	}
	if inner.IsValid() && g.guardian.SafeAddr(inner) != nil {
		return &AddressError{Addr: inner, Allowable: true}
	}
	return nil
}

// awsLocal is where AWS has its services for the machine itself: metadata, the
// credentials of containers, time and names.
var awsLocal = netip.MustParsePrefix("fd00:ec2::/32")

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
		netip.AddrFrom16([16]byte{0xfd, 0x00, 0x00, 0xc1, 12: 0xa9, 13: 0xfe, 14: 0xa9, 15: 0xfe}), // Oracle Cloud, fd00:c1::a9fe:a9fe
		netip.AddrFrom16([16]byte{0xfd, 0x00, 0x00, 0x42, 15: 0x42}),                               // Scaleway, fd00:42::42
		netip.AddrFrom16([16]byte{0xfd, 0x20, 0x00, 0xce, 14: 0x02, 15: 0x54}):                     // Google Cloud, fd20:ce::254
		return true
	}
	return addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() || awsLocal.Contains(addr) ||
		addr.Is4() && addr.As4()[0] == 0 // "this network": Linux takes it for this host
}

// embedded is the IPv4 address that an IPv6 address stands for, where translators
// or tunnels may carry it on; the zero Addr for others. Mapped addresses are
// unmapped before.
func embedded(addr netip.Addr) netip.Addr {
	if !addr.Is6() {
		return netip.Addr{}
	}
	b := addr.As16()
	last := netip.AddrFrom4([4]byte(b[12:16]))
	switch {
	case b[0] == 0x20 && b[1] == 0x02: // 6to4, RFC 3056
		return netip.AddrFrom4([4]byte(b[2:6]))
	case [4]byte(b[:4]) == [4]byte{0x20, 0x01}: // Teredo, RFC 4380: inverted
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	case [12]byte(b[:12]) == [12]byte{0x00, 0x64, 0xff, 0x9b}, // NAT64, RFC 6052
		[6]byte(b[:6]) == [6]byte{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01},                                            // NAT64 of a site, RFC 8215, by its longest prefix
		[12]byte(b[:12]) == [12]byte{8: 0xff, 9: 0xff},                                                           // translated, RFC 2765
		[4]byte(b[8:12]) == [4]byte{0x00, 0x00, 0x5e, 0xfe}, [4]byte(b[8:12]) == [4]byte{0x02, 0x00, 0x5e, 0xfe}: // ISATAP, RFC 5214
		return last
	case [12]byte(b[:12]) == [12]byte{} && addr != netip.IPv6Unspecified() && addr != netip.IPv6Loopback(): // compatible, RFC 4291
		return last
	}
	return netip.Addr{}
}
