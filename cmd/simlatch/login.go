package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/simlatch/simlatch/m2m"
)

func newLoginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Store which server to call, and as whom",
		Long: `Store which server to call, and as whom, in a profile that the other commands
use. The credentials are tried first, and stored when the server takes them.

What no flag and no environment variable gives is asked for at the terminal; the
secret and the password are not shown. In scripts they come from --secret-file
and --password-file, from SIMLATCH_SECRET_FILE and SIMLATCH_PASSWORD_FILE, or
from SIMLATCH_SECRET and SIMLATCH_PASSWORD.

The profile is in the user's configuration directory, or in the file that
SIMLATCH_PROFILES names, and can be read by its owner only (mode 0600). Several
servers have a profile each: --profile names one, and 'simlatch profile use' says
which is used where none is named. A stored secret is sent to its own server
only. --tls-ca, for a server whose certificate is not of a public authority, is
kept too.

Nothing need be stored: with SIMLATCH_SERVER, SIMLATCH_KEY, SIMLATCH_USER and the
secrets in the environment every command works by itself.`,
		Example: `  simlatch login --server https://simlatch.example.com --key fleet-app --user ada
  simlatch login --profile test --server http://127.0.0.1:8080 --key app --user ada \
      --secret-file secret.txt --password-file password.txt
  simlatch subscriptions --profile test`,
		Args: cobra.NoArgs,
		RunE: runLogin,
	}
	clientFlags(cmd)
	return cmd
}

func runLogin(cmd *cobra.Command, _ []string) error {
	p, err := profileOf(cmd, false)
	if err != nil {
		return err
	}
	if err := checkProfileName(p.name); err != nil {
		return err
	}
	if err := p.ask(streamsOf(cmd)); err != nil {
		return err
	}
	p.secret, p.password = "", "" // those that are stored are what is to be replaced
	if err := p.readSecrets(cmd); err != nil {
		return err
	}
	client, err := p.client()
	if err != nil {
		return err
	}
	if risk := plainRisk(p.server); risk != "" {
		say(cmd.ErrOrStderr(), "simlatch: warning: %s", risk)
	}
	ctx := cmd.Context()
	if err := client.Login(ctx); err != nil {
		return fmt.Errorf("nothing was stored: %w", refusedBy(p.server, err))
	}
	_, err = p.account(ctx, client)
	several := errors.Is(err, m2m.ErrMultipleAccounts)
	if err == nil {
		_, err = client.Account(ctx, p.acct)
	}
	if err != nil && !several {
		return fmt.Errorf("nothing was stored: %w", called(err))
	}
	return p.keep(streamsOf(cmd), several)
}

// keep stores the profile and says so.
func (p *clientProfile) keep(s streams, several bool) error {
	stored, err := readProfiles()
	if err != nil {
		return err
	}
	former, found := stored.find(p.name)
	stored.put(*p)
	if err := stored.store(); err != nil {
		return err
	}
	say(s.out, "stored profile %s: %s as %s%s", p.name, p.server, p.user, ofAccount(p.acct))
	if found && former.server != p.server {
		say(s.err, "simlatch: it took the place of %s; another name, given with --profile, keeps both", former.server)
	}
	switch {
	case several:
		say(s.err, "simlatch: %s has access to more than one account: name one with --account, here to store it, or with each command", p.user)
	case stored.current != p.name:
		say(s.err, "simlatch: commands use profile %s where none is named; 'simlatch profile use %s' changes that", stored.current, p.name)
	}
	return nil
}

func ofAccount(name string) string {
	if name == "" {
		return ""
	}
	return ", account " + name
}

// ask asks for what is missing in the profile, if there is somebody to ask.
func (p *clientProfile) ask(s streams) error {
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return p.complete()
	}
	lines := bufio.NewReaderSize(oneByte{f}, 1)
	for _, q := range []struct {
		what  string
		value *string
	}{{"server's URL", &p.server}, {"application's key", &p.key}, {"user's name", &p.user}} {
		if *q.value != "" {
			continue
		}
		fmt.Fprintf(s.err, "%s: ", q.what)
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("reading the %s: %w", q.what, err)
		}
		*q.value = strings.TrimSpace(line)
	}
	p.server = trimURL(p.server)
	return p.complete()
}

// oneByte reads no more than it must: what is typed ahead is for the prompts
// that follow.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(len(b), 1)]) }

// refusedBy says what a failed login means.
func refusedBy(server string, err error) error {
	var e *m2m.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%s cannot be reached: %w; 'simlatch doctor' looks for the reason", server, err)
	}
	return called(err)
}

// plainRisk warns of secrets that anyone on the way could read.
func plainRisk(server string) string {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" || isLoopback(u.Hostname()) {
		return ""
	}
	return fmt.Sprintf("%s is not encrypted: whoever is on the way there can read the secret and the password; use https", server)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// checkProfileName refuses names that a shell or the file would take otherwise.
func checkProfileName(name string) error {
	if name == "" || strings.HasPrefix(name, "-") || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return usagef("--profile %q: a name has no spaces and does not begin with a hyphen", name)
	}
	return nil
}

func newLogoutCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Forget a profile's secret and password",
		Long: `Forget a profile's secret and password. The server and the names stay, so that
'simlatch login' asks for the secrets only; 'simlatch profile remove' forgets
everything.

Nothing is sent to the server: its sessions end by themselves when they are not
used, and others may use the same application.`,
		Example: `  simlatch logout
  simlatch logout --profile test`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stored, err := readProfiles()
			if err != nil {
				return err
			}
			if name == "" {
				name = stored.current
			}
			p, found := stored.find(name)
			if !found {
				return fmt.Errorf("there is no profile %s", name)
			}
			p.secret, p.password = "", ""
			stored.put(p)
			if err := stored.store(); err != nil {
				return err
			}
			say(cmd.OutOrStdout(), "forgot the secrets of profile %s", name)
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "profile", "", "the `name` of the profile (default the current one)")
	markSetting(cmd.Flags(), "profile")
	completeFlag(cmd, "profile", profileNames)
	return cmd
}
