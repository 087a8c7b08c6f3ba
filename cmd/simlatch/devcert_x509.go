package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// certificate is a server's certificate with what clients need to trust it,
// all in PEM.
type certificate struct{ authority, certificate, key []byte }

// makeCertificate makes an authority that can vouch for hosts and nothing else,
// and a certificate of it. The authority's key is not returned: what a person
// has been told to trust must not be able to vouch for anything more.
func makeCertificate(hosts []string, from, until time.Time) (*certificate, error) {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	names, addresses := splitHosts(hosts)
	authority := &x509.Certificate{
		Subject:                     pkix.Name{CommonName: "Simlatch development authority", Organization: []string{"for tests only"}},
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         names,
		PermittedIPRanges:           only(addresses),
	}
	server := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"Simlatch development server"}},
		DNSNames:    names,
		IPAddresses: addresses,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range []*x509.Certificate{authority, server} {
		c.SerialNumber = serialNumber()
		// Clocks of other machines may be behind.
		c.NotBefore, c.NotAfter = from.Add(-time.Hour), until
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return nil, fmt.Errorf("making the authority: %w", err)
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, authority, serverKey.Public(), authorityKey)
	if err != nil {
		return nil, fmt.Errorf("making the certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return nil, fmt.Errorf("encoding the key: %w", err)
	}
	return &certificate{
		authority:   inPEM("CERTIFICATE", authorityDER),
		certificate: inPEM("CERTIFICATE", serverDER),
		key:         inPEM("PRIVATE KEY", keyDER),
	}, nil
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func serialNumber() *big.Int {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func splitHosts(hosts []string) (names []string, addresses []net.IP) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			addresses = append(addresses, ip)
			continue
		}
		names = append(names, h)
	}
	return names, addresses
}

// only are the ranges that hold these addresses and no others.
func only(addresses []net.IP) []*net.IPNet {
	var ranges []*net.IPNet
	for _, ip := range addresses {
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		ranges = append(ranges, &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))})
	}
	return ranges
}

// stillGood reports whether the files exist, belong together, vouch for every
// host and will do so for another day.
func stillGood(files certFiles, hosts []string, now time.Time) bool {
	pair, err := tls.LoadX509KeyPair(files.certificate, files.key)
	if err != nil {
		return false
	}
	trusted, err := os.ReadFile(files.authority)
	if err != nil {
		return false
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(trusted) {
		return false
	}
	for _, h := range hosts {
		o := x509.VerifyOptions{DNSName: h, Roots: roots, CurrentTime: now.Add(24 * time.Hour)}
		if _, err := pair.Leaf.Verify(o); err != nil {
			return false
		}
	}
	return true
}
