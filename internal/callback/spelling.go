package callback

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A SpellingError refuses a host whose spelling different programs take for
// different hosts.
type SpellingError struct{ Reason string }

func (e *SpellingError) Error() string { return e.Reason }

// spelled is the address that a host is, or the zero Addr for a name. It fails
// for what only some programs take for an address: 2130706433, 0x7f.1, 0177.0.0.1,
// 127.1, 127.0.0.1 with a dot behind; and for a name that is not in ASCII, of
// which each program makes its own.
func spelled(host string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr, nil
	}
	for i := range len(host) {
		if host[i] >= utf8.RuneSelf {
			return netip.Addr{}, &SpellingError{"its host is not in ASCII; write an international name in its xn-- form"}
		}
	}
	if strings.ContainsAny(host, ":%") {
		return netip.Addr{}, &SpellingError{"its host is neither a name nor an address"}
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	if numeric(labels[len(labels)-1]) {
		return netip.Addr{}, &SpellingError{"its host looks like an address; write that as four decimal numbers, or as IPv6 in brackets"}
	}
	return netip.Addr{}, nil
}

// numeric reports whether a label at the end of a host makes it an address, by
// the rule of the URL standard.
func numeric(label string) bool {
	digits := "0123456789"
	if len(label) >= 2 && (label[:2] == "0x" || label[:2] == "0X") {
		label, digits = label[2:], digits+"abcdefABCDEF"
		return strings.Trim(label, digits) == ""
	}
	return label != "" && strings.Trim(label, digits) == ""
}

// Ports are the ports from First to Last.
type Ports struct{ First, Last uint16 }

// ReferencePorts are those to which the reference sends callbacks
// (thingspace-api.md 6.4).
func ReferencePorts() []Ports {
	return []Ports{{80, 80}, {443, 443}, {9001, 9006}, {50551, 50559}, {28200, 28220}}
}

// ParsePorts reads a port, such as "443", a range of them, such as "9001-9006", or
// "reference".
func ParsePorts(s string) ([]Ports, error) {
	if s == "reference" {
		return ReferencePorts(), nil
	}
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 16)
	last, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return nil, fmt.Errorf("%.40q is no port: write 443, 9001-9006, or reference", s)
	}
	return []Ports{{uint16(first), uint16(last)}}, nil
}

func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// A PortError refuses a port that callbacks may not be sent to.
type PortError struct {
	Port    uint16
	Allowed []Ports
}

func (e *PortError) Error() string {
	allowed := make([]string, len(e.Allowed))
	for i, p := range e.Allowed {
		allowed[i] = p.String()
	}
	return fmt.Sprintf("callbacks are not sent to port %d; --callback-ports allows %s", e.Port, strings.Join(allowed, ", "))
}

func (g *Guard) judgePort(port uint16) error {
	for _, p := range g.ports {
		if p.First <= port && port <= p.Last {
			return nil
		}
	}
	if len(g.ports) == 0 {
		return nil
	}
	return &PortError{Port: port, Allowed: g.ports}
}
