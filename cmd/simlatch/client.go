package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// How a command calls a server: clientFlags adds the flags, and clientOf makes
// of them, of the environment and of the stored profile a client:
//
//	clientFlags(cmd)
//	…
//	client, profile, err := clientOf(cmd)
//	account, err := profile.account(cmd.Context(), client)

// onServer ends the help of the commands that call a server.
const onServer = `

This calls a server: the one that 'simlatch login' stored, or that --server or
SIMLATCH_SERVER names. It may be Simlatch or any other that speaks the same API.`

// clientFlags adds the flags that say which server a command calls, and as
// whom. Each but those of files can stand in the environment too.
func clientFlags(cmd *cobra.Command) {
	own := pflag.NewFlagSet("client", pflag.ContinueOnError)
	own.String("profile", "", "the `name` of a stored profile (default the current one)")
	own.String("server", "", "the server's `URL`, if not the profile's")
	own.String("account", "", "the account's `name`; not needed where the user has one only")
	own.String("key", "", "the application's `key`")
	own.String("user", "", "the user's `name`")
	own.String("tls-ca", "", "trust the authorities in this PEM `file` instead of the system's")
	own.VisitAll(func(f *pflag.Flag) { markSetting(own, f.Name) })
	own.String("secret-file", "", "`file` with the application's secret; - is standard input")
	own.String("password-file", "", "`file` with the user's password; - is standard input")
	cmd.Flags().AddFlagSet(own)
	completeFlag(cmd, "profile", profileNames)
}

// skuFlag adds --sku to a command. Which SKUs there are is for the server to
// say: another's may be others than ours, which are offered for completion.
func skuFlag(cmd *cobra.Command, sku *string, usage string) {
	cmd.Flags().StringVar(sku, "sku", "", usage)
	completeFlag(cmd, "sku", skuNames)
}

// skuNames are the SKUs, for completion.
func skuNames() []string {
	var names []string
	for _, s := range license.SKUs() {
		names = append(names, cobra.CompletionWithDesc(string(s), s.Label()))
	}
	return names
}

// completeFlag has shells complete a flag's value with one of values.
func completeFlag(cmd *cobra.Command, flag string, values func() []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	}) // fails only for a flag that is not there
}

// clientOf makes the client that a command's flags, the environment and the
// stored profile ask for, in this order, and returns as well what it was made
// of. Secrets that none of them has are asked for at the terminal. Nobody is
// called yet; change may change the client's configuration before.
func clientOf(cmd *cobra.Command, change ...func(*m2m.Config)) (*m2m.Client, clientProfile, error) {
	p, err := profileOf(cmd, true)
	if err != nil {
		return nil, p, err
	}
	if err := p.readSecrets(cmd); err != nil {
		return nil, p, err
	}
	client, err := p.client(change...)
	return client, p, err
}

// profileOf reads the flags of clientFlags over the stored profile that they
// name, or the current one. A profile that was named must exist if mustExist.
//
// A stored secret goes only where it belongs: to the profile's server, with the
// profile's key or user.
func profileOf(cmd *cobra.Command, mustExist bool) (clientProfile, error) {
	stored, err := readProfiles()
	if err != nil {
		return clientProfile{}, err
	}
	text := func(name string) string { v, _ := cmd.Flags().GetString(name); return v } // clientFlags added it
	named := text("profile")
	name := named
	if name == "" {
		name = stored.current
	}
	p, found := stored.find(name)
	if !found && named != "" && mustExist {
		return p, usagef("there is no profile %q; 'simlatch login --profile %s' makes it, and 'simlatch profile list' lists those there are", named, named)
	}
	p.name = name
	if server := trimURL(text("server")); server != "" && server != p.server {
		if found && named != "" && mustExist {
			return p, usagef("profile %s is one of %s, not of %s: give --profile or --server, not both", name, p.server, server)
		}
		p = clientProfile{name: name, server: server}
	}
	p.override(text("key"), text("user"), text("account"))
	if ca := text("tls-ca"); ca != "" {
		if p.tlsCA, err = filepath.Abs(ca); err != nil {
			return p, err
		}
	}
	return p, nil
}

// override puts other names in place of the profile's. What is stored for
// another key or user is not theirs.
func (p *clientProfile) override(key, user, acct string) {
	if key != "" && key != p.key {
		p.key, p.secret = key, ""
	}
	if user != "" && user != p.user {
		p.user, p.password, p.acct = user, "", ""
	}
	if acct != "" {
		p.acct = acct
	}
}

// complete says what is missing to call a server.
func (p *clientProfile) complete() error {
	var missing []string
	for _, m := range []struct{ value, flag string }{{p.server, "server"}, {p.key, "key"}, {p.user, "user"}} {
		if m.value == "" {
			missing = append(missing, fmt.Sprintf("--%s or %s", m.flag, variable(m.flag)))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return usagef("which server to call, and as whom? run 'simlatch login', or give %s", strings.Join(missing, ", "))
}

// readSecrets reads the secret and the password from where the command's flags,
// the environment or, failing these, the profile has them; or asks.
func (p *clientProfile) readSecrets(cmd *cobra.Command) error {
	if err := p.complete(); err != nil {
		return err
	}
	file := func(flag string) string { v, _ := cmd.Flags().GetString(flag); return v }
	if file("secret-file") == "-" && file("password-file") == "-" {
		return usagef("--secret-file and --password-file cannot both be standard input")
	}
	var err error
	p.secret, err = secretSource{
		what: "secret of the application " + p.key, file: file("secret-file"), flag: "secret-file", env: "SIMLATCH_SECRET", stored: p.secret,
	}.read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	p.password, err = secretSource{
		what: "password of " + p.user, file: file("password-file"), flag: "password-file", env: "SIMLATCH_PASSWORD", stored: p.password,
	}.read(cmd.InOrStdin(), cmd.ErrOrStderr())
	return err
}

// client makes the profile's client.
func (p *clientProfile) client(change ...func(*m2m.Config)) (*m2m.Client, error) {
	cfg := m2m.Config{
		BaseURL: p.server, Key: p.key, Secret: string(p.secret), Username: p.user, Password: string(p.password),
		UserAgent: "simlatch",
	}
	if p.tlsCA != "" {
		transport, err := p.transport()
		if err != nil {
			return nil, err
		}
		cfg.HTTPClient = &http.Client{Timeout: time.Minute, Transport: transport, CheckRedirect: noRedirect}
	}
	for _, f := range change {
		f(&cfg)
	}
	client, err := m2m.New(cfg)
	if err != nil {
		return nil, usagef("--server %s: %s", p.server, strings.TrimPrefix(err.Error(), "m2m: "))
	}
	return client, nil
}

// transport trusts whom the profile trusts.
func (p *clientProfile) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone() // which is one unless somebody has replaced it
	if p.tlsCA == "" {
		return t, nil
	}
	pool, err := readAuthorities(p.tlsCA)
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, err
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// readAuthorities reads the certificates of --tls-ca.
func readAuthorities(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the authorities to trust: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usagef("--tls-ca %s: no certificate in PEM is there", path)
	}
	return pool, nil
}

// account is the account to work on: the one that was named or stored, or else
// the only one that the user has.
func (p *clientProfile) account(ctx context.Context, client *m2m.Client) (string, error) {
	if p.acct != "" {
		return p.acct, nil
	}
	// A list of pools that names no account tells which one it is of.
	list, err := client.Subscriptions(ctx, "", "")
	switch {
	case errors.Is(err, m2m.ErrMultipleAccounts):
		return "", usagef("%s has access to more than one account: name one with --account or SIMLATCH_ACCOUNT (%w)", p.user, err)
	case err != nil:
		return "", called(err)
	}
	p.acct = list.AccountName
	return p.acct, nil
}

// called says what an error of a call means to whoever typed the command.
func called(err error) error {
	var e *m2m.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case errors.Is(err, m2m.ErrAuthentication):
		return fmt.Errorf("the server does not know this user, or the password is wrong: %w; 'simlatch login' stores another", err)
	case errors.Is(err, m2m.ErrInvalidClient):
		return fmt.Errorf("the server does not know this application, or its secret is wrong: %w; 'simlatch login' stores another", err)
	case errors.Is(err, m2m.ErrAccountNotFound):
		return fmt.Errorf("%w; is --account right, and does the user have access to it?", err)
	}
	return err
}

// profileNames are the names of the stored profiles, for completion.
func profileNames() []string {
	stored, err := readProfiles()
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range stored.list {
		names = append(names, cobra.CompletionWithDesc(p.name, p.server+" as "+p.user))
	}
	return names
}

func trimURL(url string) string { return strings.TrimSuffix(url, "/") }
