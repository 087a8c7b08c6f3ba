package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/server"
)

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve --carrier NAME",
		Short: "Run the service",
		Long: `Run the service: the API, the workers that ask the carrier, and the sender of
callbacks. When it is ready it prints one line with its address. SIGTERM or
Ctrl-C lets what is in flight end; a second one ends at once.

The carrier, who makes licenses real on SIMs, must be named. "http:URL" is a
provisioning system of yours that answers as docs/carriers.md says;
"upstream:URL" is the reference platform or another Simlatch, which this one then
guards; "simulated" answers as a carrier would and licenses no SIM really.

The database is a SQLite file by default, for one process. On PostgreSQL any
number of equal nodes share the work; they need the same --secrets-key-file.

A seed creates accounts, pools, users, applications and devices that are not
there yet. It changes nothing that is: where it differs from the database, the
log names the command that would apply it.

Callbacks go to public addresses only, unless --callback-allow names others.

For whoever watches: /healthz, /readyz, /metrics and /version, and the API's
description at /docs; and traces by OTLP, where OTEL_EXPORTER_OTLP_ENDPOINT or the
other standard variables of OpenTelemetry ask for them (docs/observability.md).`,
		Example: `  # try it out: everything in ./simlatch.db, listeners on this machine
  simlatch serve --carrier simulated --seed seed.yaml --callback-allow 127.0.0.0/8

  # a node on PostgreSQL, with TLS, reached from elsewhere
  SIMLATCH_DATABASE_FILE=/run/secrets/database simlatch serve --config simlatch.yaml \
      --listen :8443 --tls-cert tls.crt --tls-key tls.key --secrets-key-file simlatch.key

  # licenses made real by a provisioning system
  SIMLATCH_CARRIER_TOKEN_FILE=token SIMLATCH_CARRIER_SECRET_FILE=secret \
      simlatch serve --carrier http:https://carrier.example/licenses

  # what a setting is, and where it came from
  simlatch config show --config simlatch.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := serveOptionsOf(cmd)
			if err != nil {
				return err
			}
			return runServe(cmd.Context(), streamsOf(cmd), o)
		},
	}
	addServeFlags(cmd.Flags())
	return cmd
}

// addServeFlags adds the server's settings. None is bound to a variable, since
// config show has the same.
func addServeFlags(f *pflag.FlagSet) {
	own := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	own.String("listen", server.DefaultListen, "the `address` to serve on; port 0 is any free one")
	own.String("tls-cert", "", "serve TLS with the certificate in this PEM `file`, read again when it changes")
	own.String("tls-key", "", "the certificate's key, a PEM `file`")
	own.String("seed", "", "a YAML or JSON `file` of what to create if it is not there yet")
	own.String("carrier", "", "`name` of who makes licenses real: http:URL for a provisioning system, upstream:URL for a service with the same API, or simulated (which does not)")
	addCarrierFlags(own)
	own.Duration("carrier-delay", 0, "how long the simulated carrier takes")
	own.Float64("carrier-refuse-rate", 0, "the `share` of devices that the simulated carrier refuses, always the same ones")
	own.StringSlice("callback-allow", nil, "a private or loopback `network` that listeners may be in, such as 127.0.0.0/8 (repeatable)")
	own.StringSlice("callback-ports", nil, "a `port` that listeners may have, such as 443 or 9001-9006, or reference for those of the reference (repeatable; default any)")
	own.Duration("callback-interval", 5*time.Minute, "time between two attempts of a callback")
	own.Duration("callback-timeout", 10*time.Second, "time a listener has to answer")
	own.Int("callback-attempts", 4, "`number` of attempts of a callback in all")
	own.Int("max-devices", server.DefaultMaxDevices, "the largest `number` of devices in a request")
	own.Float64("rate-limit", 0, "`calls` a second that an application may make on all nodes together; 0 is no limit")
	own.Float64("address-rate-limit", 0, "`calls` a second of each API that may come from one address, or one IPv6 /64, on all nodes together; 0 is no limit; not behind a proxy, which is one address")
	own.Int("max-connections", 0, "`number` of connections of clients, and of an upstream's callbacks, at once; further ones are closed at once; 0 is half of the files that may be open, and 10000 at most")
	own.Int("max-calls", 2000, "`number` of calls worked on at once; an application may have half of them, and what is above is turned away")
	own.Int64("max-bodies", 256<<20, "`bytes` of request bodies held at once; as above")
	own.String("login-lock", string(auth.LockSlow), "after many failed logins: `slow` delays more and more, reference locks until 'simlatch user unlock', or 'application unlock' for a key")
	own.String("alert-url", "", "the `URL` that gets a message when a pool falls below its threshold ('simlatch pool threshold')")
	own.String("alert-secret", "", "the `secret`, whsec_…, that those messages are signed with")
	own.Int("workers", 4, "`number` of calls to the carrier at once; 0 makes a node that only serves")
	own.Duration("retention", server.DefaultRetention, "how long ended work is kept")
	own.Duration("audit-retention", 0, "how long entries of the audit are kept; 0 is for ever")
	own.Duration("grace", server.DefaultGrace, "how long what is in flight may take to end at shutdown")
	own.Duration("drain-delay", 0, "how long to go on serving at shutdown while /readyz fails already; part of --grace")
	own.String("node-id", "", "this node's `name` among others on the database (default the host's name and a random part)")
	own.String("log-format", "auto", "`form` of the log: json, text, or auto for text on a terminal")
	own.String("log-level", "info", "least `level` to log: debug, info, warn or error")
	addGuardFlags(own)
	own.VisitAll(func(flag *pflag.Flag) { markSetting(own, flag.Name) })
	markSecret(own, "alert-url") // many hold a token
	markSecret(own, "alert-secret")
	f.AddFlagSet(own)
}

// serveOptions are what serve runs with.
type serveOptions struct {
	server    server.Config
	logFormat string
	logLevel  slog.Level
}

// serveOptionsOf reads the flags of addServeFlags. The flags exist and their
// forms were checked when they were set, so reading them cannot fail.
func serveOptionsOf(cmd *cobra.Command) (o serveOptions, err error) {
	f := cmd.Flags()
	text := func(name string) string { v, _ := f.GetString(name); return v }
	number := func(name string) int { v, _ := f.GetInt(name); return v }
	size := func(name string) int64 { v, _ := f.GetInt64(name); return v }
	fraction := func(name string) float64 { v, _ := f.GetFloat64(name); return v }
	span := func(name string) time.Duration { v, _ := f.GetDuration(name); return v }
	database := databaseOf(cmd)
	o.server = server.Config{
		Listen: text("listen"), TLSCert: text("tls-cert"), TLSKey: text("tls-key"),
		Database: database.URL, SecretsKeyFile: database.SecretsKeyFile, Seed: text("seed"),
		Carrier: text("carrier"), CarrierDelay: span("carrier-delay"), CarrierRefuseRate: fraction("carrier-refuse-rate"),
		Workers: number("workers"), ServeOnly: number("workers") == 0,
		CallbackInterval: span("callback-interval"), CallbackTimeout: span("callback-timeout"), CallbackAttempts: number("callback-attempts"),
		MaxDevices: number("max-devices"), RateLimit: fraction("rate-limit"), AddressRateLimit: fraction("address-rate-limit"), MaxCalls: number("max-calls"), MaxBodies: size("max-bodies"), MaxConnections: number("max-connections"), LoginLock: auth.Lock(text("login-lock")),
		Upstream: upstreamOf(cmd), AlertURL: text("alert-url"), AlertSecret: text("alert-secret"),
		Retention: span("retention"), AuditRetention: span("audit-retention"), Grace: span("grace"), DrainDelay: span("drain-delay"), Node: text("node-id"),
	}
	setCarrier(&o.server, f)
	networks, _ := f.GetStringSlice("callback-allow")
	for _, n := range networks {
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			return o, usagef("--callback-allow %s: a network is written like 127.0.0.0/8 or ::1/128", n)
		}
		o.server.CallbackAllow = append(o.server.CallbackAllow, prefix)
	}
	ports, _ := f.GetStringSlice("callback-ports")
	if o.server.CallbackPorts, err = server.ParseCallbackPorts(ports); err != nil {
		return o, usagef("--callback-ports: %w", err)
	}
	if err := o.logLevel.UnmarshalText([]byte(text("log-level"))); err != nil {
		return o, usagef("--log-level %s: a level is debug, info, warn or error", text("log-level"))
	}
	if err := o.server.Check(); err != nil {
		return o, withStatus(exitUsage, err)
	}
	switch o.logFormat = text("log-format"); o.logFormat {
	case "auto", "json", "text":
	default:
		return o, usagef("--log-format %s: a form is auto, json or text", o.logFormat)
	}
	return o, nil
}

// runServe serves until ctx ends. The line that says that it is ready goes to
// standard output, for whoever started it to read; all else is log.
func runServe(ctx context.Context, s streams, o serveOptions) error {
	if os.Getenv("GOGC") == "" {
		// Most of what a request allocates is gone when its callbacks are; the heap
		// is small, and collecting it half as often saves a twentieth of the work.
		debug.SetGCPercent(200)
	}
	o.server.Logger = newLogger(s, o.logFormat, o.logLevel)
	o.server.Ready = func(url string) {
		_, _ = fmt.Fprintf(s.out, "simlatch: ready at %s\n", url) // nobody may be reading
		if o.server.Carrier == server.CarrierSimulated {
			_, _ = fmt.Fprintln(s.err, "simlatch: the carrier is SIMULATED: no SIM is really licensed")
		}
	}
	endTraces, err := traceTo(ctx, &o.server, o.server.Logger)
	if err != nil {
		return err
	}
	defer endTraces()
	srv, err := server.New(ctx, o.server)
	if err != nil {
		return err
	}
	return srv.Run(ctx)
}

// newLogger makes the logger of --log-format.
func newLogger(s streams, format string, level slog.Level) *slog.Logger {
	file, isFile := s.err.(*os.File)
	terminal := isFile && isatty.IsTerminal(file.Fd())
	if format == "text" || format == "auto" && terminal {
		return slog.New(tint.NewTextHandler(s.err, &tint.Options{
			Level: level, TimeFormat: time.TimeOnly, NoColor: !terminal || os.Getenv("NO_COLOR") != "",
		}))
	}
	return slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: level}))
}
