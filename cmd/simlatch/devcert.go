package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// vendorHosts are the hosts that the vendor's SDKs have compiled in
// (docs/sdks.md).
func vendorHosts() []string {
	return []string{
		"thingspace.verizon.com",
		"staging.thingspace.verizon.com",
		"mock.thingspace.verizon.com",
		"mock-staging.thingspace.verizon.com",
		"devmanagement-staging.thingspace.verizon.com",
		"tsd-nginx-qa-us-east-1.thingspace.verizon.com",
	}
}

type devCertOptions struct {
	dir   string
	hosts []string
	days  int
	force bool
	now   time.Time
}

func newDevCertCommand() *cobra.Command {
	var o devCertOptions
	cmd := &cobra.Command{
		Use:   "dev-cert",
		Short: "Make a certificate for the vendor's host names, for tests",
		Long: `Make a certificate for the vendor's host names, for tests.

The vendor's SDKs have their host names compiled in and speak HTTPS only. To
point one at Simlatch, its machine must resolve that name to Simlatch and trust
the certificate Simlatch shows. This command makes both halves and prints the
lines that use them.

Four things limit what the files are good for besides: the authority can vouch
for these names only, its key is thrown away once it has signed, everything
expires after --days, and nothing is installed on this machine.`,
		Example: `  simlatch dev-cert
  simlatch dev-cert --dir certs --host m2m.example.test --days 7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.now = time.Now()
			return runDevCert(o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&o.dir, "dir", "simlatch-cert", "`directory` to put the files in")
	cmd.Flags().StringArrayVar(&o.hosts, "host", nil, "another host `name` or address to vouch for (repeatable)")
	cmd.Flags().IntVar(&o.days, "days", 30, "days until the certificate expires")
	cmd.Flags().BoolVar(&o.force, "force", false, "make new files even where good ones exist")
	return cmd
}

// certFiles are the files of a development certificate.
type certFiles struct{ authority, certificate, key string }

func (o devCertOptions) files() certFiles {
	return certFiles{
		authority:   filepath.Join(o.dir, "ca.pem"),
		certificate: filepath.Join(o.dir, "server.pem"),
		key:         filepath.Join(o.dir, "server-key.pem"),
	}
}

// runDevCert makes the files, or keeps those that still serve, and prints how
// to use them.
func runDevCert(o devCertOptions, out, messages io.Writer) error {
	if o.days < 1 || o.days > 397 {
		return usagef("--days %d: a certificate may live 1 to 397 days", o.days)
	}
	hosts := append(append(vendorHosts(), "localhost", "127.0.0.1", "::1"), o.hosts...)
	files := o.files()
	if !o.force && stillGood(files, hosts, o.now) {
		fmt.Fprintf(messages, "simlatch: the certificate in %s still serves; it was kept (--force makes a new one)\n", o.dir)
		return printSDKLines(out, files)
	}
	made, err := makeCertificate(hosts, o.now, o.now.AddDate(0, 0, o.days))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil { //nolint:gosec // certificates are public; the keys in it are written for their owner alone
		return fmt.Errorf("making the directory: %w", err)
	}
	for _, f := range []struct {
		path string
		data []byte
		mode os.FileMode
	}{{files.key, made.key, 0o600}, {files.certificate, made.certificate, 0o644}, {files.authority, made.authority, 0o644}} {
		if err := replaceFile(f.path, f.data, f.mode); err != nil {
			return err
		}
	}
	fmt.Fprintf(messages, "simlatch: made %s, %s and %s, good until %s\n",
		files.authority, files.certificate, files.key, o.now.AddDate(0, 0, o.days).Format(time.DateOnly))
	return printSDKLines(out, files)
}

// replaceFile writes a file in one step and with its mode from the start, so
// that a key is never readable by others and a server that reloads its
// certificate never reads half of it.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
