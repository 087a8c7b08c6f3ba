package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// madeFiles makes a certificate as the command does.
func madeFiles(t *testing.T) certFiles {
	t.Helper()
	o := devCertOptions{dir: t.TempDir(), days: 30, now: time.Now(), hosts: []string{"m2m.example.test"}}
	if err := runDevCert(o, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	return o.files()
}

func TestDevCertServesTheVendorsHosts(t *testing.T) {
	files := madeFiles(t)
	pair, err := tls.LoadX509KeyPair(files.certificate, files.key)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := os.ReadFile(files.authority)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	for _, host := range append(vendorHosts(), "m2m.example.test", "localhost", "127.0.0.1") {
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- tls.Server(server, &tls.Config{Certificates: []tls.Certificate{pair}}).HandshakeContext(t.Context())
		}()
		if err := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: host}).HandshakeContext(t.Context()); err != nil {
			t.Errorf("a client that wants %s does not trust the certificate: %v", host, err)
		}
		if err := <-done; err != nil {
			t.Errorf("the server's handshake for %s: %v", host, err)
		}
		_, _ = client.Close(), server.Close()
	}
	info, err := os.Stat(files.key)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, want 0600", info.Mode())
	}
}

func TestDevCertAuthorityVouchesForNothingElse(t *testing.T) {
	files := madeFiles(t)
	text, err := os.ReadFile(files.authority)
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(text)
	if block == nil || len(rest) > 0 {
		t.Fatalf("%s does not hold one certificate and nothing else", files.authority)
	}
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !authority.PermittedDNSDomainsCritical || len(authority.PermittedDNSDomains) == 0 || len(authority.PermittedIPRanges) == 0 {
		t.Errorf("the authority may vouch for any name or address: %+v", authority)
	}
	if !authority.MaxPathLenZero || authority.KeyUsage != x509.KeyUsageCertSign {
		t.Error("the authority may make other authorities")
	}
}
