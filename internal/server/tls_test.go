package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeCertificate writes a certificate for 127.0.0.1 that is its own authority.
func writeCertificate(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile = writeFile(t, dir, "tls.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	keyFile = writeFile(t, dir, "tls.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return certFile, keyFile
}

// shown is the name on the certificate that a server shows, and the protocol
// spoken.
func shown(t *testing.T, url string) (name, protocol string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}}
	defer client.CloseIdleConnections()
	answer, err := fetch(t, client, url+"/healthz")
	if err != nil {
		t.Fatal(err)
	}
	return answer.tls.PeerCertificates[0].Subject.CommonName, answer.protocol
}

func TestTLSReload(t *testing.T) {
	dir := t.TempDir()
	cfg := sqliteConfig(t)
	cfg.TLSCert, cfg.TLSKey = writeCertificate(t, dir, "first")
	r := startServer(t, cfg)
	if name, protocol := shown(t, r.URL()); name != "first" || protocol != "HTTP/2.0" {
		t.Errorf("the certificate is of %q over %s, want first over HTTP/2.0", name, protocol)
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}
	dialer := tls.Dialer{Config: old}
	if conn, err := dialer.DialContext(t.Context(), "tcp", r.listener.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 was accepted")
	}
	writeCertificate(t, dir, "second")
	eventually(t, "the new certificate is shown", func() bool {
		name, _ := shown(t, r.URL())
		return name == "second"
	})
}

// TestTLSFilesWrong: while the files are wrong, the last good certificate stands.
func TestTLSFilesWrong(t *testing.T) {
	dir := t.TempDir()
	cfg := sqliteConfig(t)
	cfg.TLSCert, cfg.TLSKey = writeCertificate(t, dir, "good")
	r := startServer(t, cfg)
	shown(t, r.URL())
	clock := time.Now()
	c := &certificate{certFile: cfg.TLSCert, keyFile: cfg.TLSKey, log: r.Server.log, now: func() time.Time { return clock }}
	first, err := c.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return os.WriteFile(cfg.TLSCert, []byte("no certificate"), 0o600) },
		func() error { return os.Remove(cfg.TLSCert) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(2 * lookAgain)
		if got, err := c.get(nil); err != nil || got != first {
			t.Errorf("with %s wrong: %v, %v; want the last good certificate", filepath.Base(cfg.TLSCert), got, err)
		}
	}
	writeCertificate(t, dir, "mended")
	clock = clock.Add(2 * lookAgain)
	if got, err := c.get(nil); err != nil || got.Leaf.Subject.CommonName != "mended" {
		t.Errorf("after mending: %v", err)
	}
}
