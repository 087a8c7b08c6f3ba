package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/exchange"
)

type conformanceOptions struct {
	server string
	seed   string
	dir    string
	only   string
	offers []string

	listen    string
	listenURL string
	tlsCA     string
	patience  time.Duration
	quiet     time.Duration

	form       string
	reportFile string
	verbose    bool
	list       bool
	printSeed  bool
}

func newConformanceCommand() *cobra.Command {
	var o conformanceOptions
	cmd := &cobra.Command{
		Use:     "conformance --server URL",
		Short:   "Hold any server against the recorded exchanges and report what differs",
		Long:    conformanceHelp,
		Example: conformanceExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runConformance(cmd.Context(), streamsOf(cmd), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "the server's `URL`, without the API's paths")
	f.StringVar(&o.seed, "seed", "", "a `file` in the form of --print-seed with the server's own names and credentials (default the embedded seed)")
	f.StringVar(&o.dir, "dir", "", "run the exchanges in this `directory` too; see docs/conformance.md")
	f.StringVar(&o.only, "only", "", "run those only whose names this `regexp` matches")
	f.StringSliceVar(&o.offers, "offers", nil, "`what` the server offers beyond the API: "+strings.Join(needNames(), ", "))
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`address` to receive callbacks on; port 0 takes a free one")
	f.StringVar(&o.listenURL, "listen-url", "", "the `URL` at which the server reaches --listen, where that differs")
	f.StringVar(&o.tlsCA, "tls-ca", "", "trust the authorities in this PEM `file` instead of the system's")
	f.DurationVar(&o.patience, "patience", 10*time.Second, "how long to wait for a callback, or for an answer that is to come eventually")
	f.DurationVar(&o.quiet, "quiet", 300*time.Millisecond, "how long to wait for what must not come")
	f.StringVar(&o.form, "report", "text", "`form` of the report: text, json or junit")
	f.StringVar(&o.reportFile, "report-file", "", "write the report to this `file`, and text to standard output")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show every request, answer and callback whole, not only where something differs")
	f.BoolVar(&o.list, "list", false, "list the exchanges and run none")
	f.BoolVar(&o.printSeed, "print-seed", false, "print the embedded seed and run nothing")
	for name, values := range map[string][]string{"offers": needNames(), "report": {"text", formJSON, formJUnit}} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // they are there
	}
	cmd.MarkFlagsMutuallyExclusive("list", "print-seed")
	return cmd
}

const conformanceHelp = `Send the recorded exchanges to a server, ours or another that speaks the same API,
and report where its answers and callbacks are not those expected. An exchange is
one scenario: requests, the answers they must get, and the callbacks that must
come. --list names them all; docs/conformance.md has the form of their files, for
those of your own in --dir.

THE SEED gives exchanges their names: who logs in, by which application, which
accounts and devices there are. --print-seed prints the embedded one, with which
a Simlatch server can be started. For another server, put its own credentials,
accounts and devices into a copy, each under the name in the comment behind it,
and give that as --seed. What it leaves out is not asked about: exchanges that
need it are skipped.

Exchanges REALLY ASSIGN LICENSES to the devices of the seed, some for life, fail
to log in on purpose, and replace the listeners of its accounts. Never name what
others use. Each uses devices of its own and expects them without a license, so a
server is asked once; then start it on a new database.

WHAT A SERVER OFFERS beyond the API is said by --offers. Exchanges that need what
is not offered are skipped:

  callbacks        it can reach the listener of this command: --listen is where
                   that listens, --listen-url how the server gets there
  quick-retry      callbacks are tried again sooner than --quiet
  private-refused  of the private addresses, listeners may use loopback only
  simlatch         what the reference does not have: dry runs, idempotency keys, …
  carrier          the carrier refuses some devices of the seed, and is silent
                   about others; see docs/conformance.md

THE VENDOR'S SIMULATOR takes any session token and a test token that never
expires. An application and a user of the seed may have them instead of being
asked to log in: {token: …} # app and {session: anything} # user, with
TestAccount-1 as the account. We have had no access to it: what of it differs is
news to us, too.

The exit status is 0 when all that was run conforms, 3 when some of it differs, 1
when the server cannot be reached or lets nobody in. Reports hold no passwords,
secrets or tokens.`

const conformanceExample = `  # a Simlatch server, in one terminal; conformance.db must not be there yet
  simlatch conformance --print-seed >conformance.yaml
  simlatch serve --carrier simulated --database sqlite:conformance.db --seed conformance.yaml \
      --callback-allow 127.0.0.0/8 --callback-interval 100ms
  # and in another
  simlatch conformance --server http://127.0.0.1:8080 --offers callbacks,quick-retry,private-refused,simlatch

  # another implementation elsewhere, with its own data, which calls back to this machine
  simlatch conformance --server https://licenses.example.com --seed theirs.yaml --offers callbacks \
      --listen :9001 --listen-url http://build.example.com:9001 --report junit --report-file conformance.xml

  # only what concerns sessions, every message shown
  simlatch conformance --server http://127.0.0.1:8080 --only '^session' --verbose

  # exchanges of your own
  simlatch conformance --server http://127.0.0.1:8080 --dir ./exchanges --only '^acme-'`

func needNames() []string {
	var names []string
	for _, n := range exchange.Needs() {
		names = append(names, string(n))
	}
	return names
}

// check says what is wrong with the options by themselves.
func (o *conformanceOptions) check() error {
	for _, name := range o.offers {
		if !slices.Contains(needNames(), name) {
			return usagef("--offers %s: a server can offer %s", name, strings.Join(needNames(), ", "))
		}
	}
	switch o.form {
	case "text", formJSON, formJUnit:
	default:
		return usagef("--report %s: a form is text, json or junit", o.form)
	}
	if o.patience <= 0 || o.quiet <= 0 {
		return usagef("--patience and --quiet must be more than 0")
	}
	if o.list {
		return nil
	}
	if o.server == "" {
		return usagef("--server is missing: give the URL of the server to ask, such as http://127.0.0.1:8080")
	}
	for flag, text := range map[string]string{"server": o.server, "listen-url": o.listenURL} {
		u, err := url.Parse(text)
		if text != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
			return usagef("--%s %s: a URL is written like http://127.0.0.1:8080", flag, text)
		}
	}
	return nil
}

func runConformance(ctx context.Context, s streams, o conformanceOptions) (err error) {
	if o.printSeed {
		_, err := s.out.Write(exchange.Seed())
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	vars, err := o.variables()
	if err != nil {
		return err
	}
	exchanges, err := o.exchanges(vars)
	if err != nil {
		return err
	}
	if o.list {
		return listExchanges(s.out, o.form, exchanges)
	}
	cfg, err := o.runnerConfig(vars)
	if err != nil {
		return err
	}
	runner, err := exchange.NewRunner(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.Close()) }()
	c := &conformance{runner: runner, vars: vars, server: o.server}
	if err := c.run(ctx, s, exchanges); err != nil {
		return err
	}
	if err := o.report(s.out, c); err != nil {
		return err
	}
	return c.verdict(ctx)
}

// variables are the names and values of the seed.
func (o *conformanceOptions) variables() (map[string]string, error) {
	seed := exchange.Seed()
	if o.seed != "" {
		var err error
		if seed, err = os.ReadFile(o.seed); err != nil {
			return nil, fmt.Errorf("reading the seed: %w", err)
		}
	}
	vars, err := exchange.Variables(seed)
	if err != nil {
		return nil, err
	}
	if len(vars) == 0 {
		return nil, usagef("--seed %s: nothing there has a name; names stand in comments, see simlatch conformance --print-seed", o.seed)
	}
	return vars, nil
}

// exchanges are those to run: the embedded ones and the user's own, of which
// --only selects. In those of the user, what cannot work is a mistake.
func (o *conformanceOptions) exchanges(vars map[string]string) ([]exchange.Exchange, error) {
	all, err := exchange.Load()
	if err != nil {
		return nil, err
	}
	if o.dir != "" {
		own, err := exchange.LoadFS(os.DirFS(o.dir))
		if err != nil {
			return nil, err
		}
		if len(own) == 0 {
			return nil, usagef("--dir %s: no file there is named *.txtar", o.dir)
		}
		for _, x := range own {
			if slices.ContainsFunc(all, func(other exchange.Exchange) bool { return other.Name == x.Name }) {
				return nil, usagef("--dir %s: %s.txtar is also the name of an embedded exchange", o.dir, x.Name)
			}
			if err := x.Check(vars); err != nil {
				return nil, fmt.Errorf("--dir %s: %w", o.dir, err)
			}
		}
		all = append(all, own...)
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return nil, usagef("--only: %v", err)
	}
	all = slices.DeleteFunc(all, func(x exchange.Exchange) bool { return !only.MatchString(x.Name) })
	if len(all) == 0 {
		return nil, usagef("--only %s: no exchange has such a name; see --list", o.only)
	}
	return all, nil
}

func (o *conformanceOptions) runnerConfig(vars map[string]string) (exchange.Config, error) {
	cfg := exchange.Config{
		URL: o.server, Vars: vars, Listen: o.listen, ListenURL: o.listenURL,
		Patience: o.patience, Quiet: o.quiet, TLS: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	for _, name := range o.offers {
		cfg.Offers = append(cfg.Offers, exchange.Need(name))
	}
	if o.tlsCA == "" {
		return cfg, nil
	}
	var err error
	cfg.TLS.RootCAs, err = readAuthorities(o.tlsCA)
	return cfg, err
}
