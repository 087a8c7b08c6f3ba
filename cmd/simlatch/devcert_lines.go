package main

import (
	"fmt"
	"io"
	"path/filepath"
	"text/template"
)

// sdkLines is what dev-cert prints: the ways to use its files. docs/sdks.md
// says the same at length, with what was tried.
const sdkLines = `Serve with it, on the port that the SDKs use:

  simlatch serve --carrier simulated --listen 127.0.0.1:443 \
      --tls-cert {{.Certificate}} --tls-key {{.Key}}

  Port 443 needs root, or on Linux, until the machine is started again:
      sudo sysctl net.ipv4.ip_unprivileged_port_start=443

Make the vendor's names mean this machine (in /etc/hosts; take it out afterwards):

  127.0.0.1 {{range $i, $h := .Hosts}}{{if $i}} {{end}}{{$h}}{{end}}

Trust the authority, only in the process that needs it:

  JavaScript, TypeScript   export NODE_EXTRA_CA_CERTS={{.Authority}}
  Python (requests)        export REQUESTS_CA_BUNDLE={{.Authority}}
  Python (httpx), Go       export SSL_CERT_FILE={{.Authority}}
  Ruby, .NET on Linux      export SSL_CERT_FILE={{.Authority}}
  PHP                      php -d curl.cainfo={{.Authority}} …
  curl                     export CURL_CA_BUNDLE={{.Authority}}
  Java                     keytool -importcert -noprompt -alias simlatch -storepass changeit \
                               -keystore {{.Truststore}} -file {{.Authority}}
                           java -Djavax.net.ssl.trustStore={{.Truststore}} \
                               -Djavax.net.ssl.trustStorePassword=changeit …

The vendor's newest TypeScript and Python SDKs take another base URL and need
none of this. docs/sdks.md has the exact lines for each SDK.
`

// printSDKLines prints how to point each known SDK at a server that shows the
// certificate in files.
func printSDKLines(w io.Writer, files certFiles) error {
	lines, err := template.New("lines").Parse(sdkLines)
	if err != nil {
		return fmt.Errorf("reading the template: %w", err)
	}
	data := struct {
		Certificate, Key, Authority, Truststore string
		Hosts                                   []string
	}{Hosts: vendorHosts()}
	// Other processes run elsewhere: a relative path would mislead them.
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&data.Certificate, files.certificate},
		{&data.Key, files.key},
		{&data.Authority, files.authority},
		{&data.Truststore, filepath.Join(filepath.Dir(files.authority), "truststore.p12")},
	} {
		if *f.to, err = filepath.Abs(f.from); err != nil {
			return fmt.Errorf("finding %s: %w", f.from, err)
		}
	}
	if err := lines.Execute(w, data); err != nil {
		return fmt.Errorf("printing the lines: %w", err)
	}
	return nil
}
