package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

type benchOptions struct {
	server       string
	key          string
	secretFile   string
	user         string
	passwordFile string
	account      string
	sku          string

	devices     int
	fleet       int
	connections int
	requests    int
	duration    time.Duration
	patience    time.Duration

	listen      string
	callbackURL string
	anyServer   bool
	keep        bool
	form        string
}

func newBenchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench --server URL --account NAME --key KEY --user NAME",
		Short: "Put load on a server and measure what it does",
		Long: `Put load on a server, ours or another that speaks the same API, and measure what
it does: accepted requests a second, devices a second to the last callback, and
percentiles of the time to the answer and to the callback.

The account's devices that hold no license are assigned one, a request of
--devices at a time on each of --connections; when their callbacks have come it
is taken back, and so on until --duration has passed or --requests were sent. At
the end all licenses are taken back, unless --keep is given. A callback that is
missing or comes twice is an error.

The callbacks come to a listener of this command's own, which the server must be
able to reach: --listen says where it listens, --callback-url what to register
for it where that differs. An account that has a listener keeps it, and cannot
be used.

The secret and the password come from --secret-file and --password-file, from
SIMLATCH_SECRET and SIMLATCH_PASSWORD, or are asked for. Another server than
Simlatch gives out real licenses, and is used with --any-server only.`,
		Example: `  simlatch bench --server https://simlatch.example.com --account 0000123456-00001 \
      --key app --user ada --devices 100 --connections 8 --duration 30s
  simlatch bench --server http://127.0.0.1:8080 --account 0000123456-00001 \
      --key app --user ada --devices 2 --connections 64 --requests 10000 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBench(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "the server's `URL`")
	f.StringVar(&o.account, "account", "", "the account's `name`")
	f.StringVar(&o.key, "key", "", "the application's `key`")
	f.StringVar(&o.secretFile, "secret-file", "", "`file` with the application's secret; - is standard input")
	f.StringVar(&o.user, "user", "", "the user's `name`")
	f.StringVar(&o.passwordFile, "password-file", "", "`file` with the user's password; - is standard input")
	f.StringVar(&o.sku, "sku", string(license.SKUFlexible), "the license to assign; its `SKU`")
	f.IntVar(&o.devices, "devices", 100, "`number` of devices in a request")
	f.IntVar(&o.fleet, "fleet", 0, "`number` of the account's devices to use; 0 is enough for four requests on each connection")
	f.IntVar(&o.connections, "connections", 8, "`number` of calls at once")
	f.IntVar(&o.requests, "requests", 0, "end after this `number` of requests")
	f.DurationVar(&o.duration, "duration", 0, "end after this time (default 30s, unless --requests is given)")
	f.DurationVar(&o.patience, "patience", time.Minute, "how long to wait for callbacks after the last request")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`address` to receive callbacks on; port 0 takes a free one")
	f.StringVar(&o.callbackURL, "callback-url", "", "the listener's `URL` as the server sees it, if not that of --listen")
	f.BoolVar(&o.anyServer, "any-server", false, "go on also where the server is not Simlatch and licenses may be real")
	f.BoolVar(&o.keep, "keep", false, "leave the licenses assigned at the end")
	f.StringVarP(&o.form, "output", "o", "text", "`form` of the output: text or json")
	completeFlag(cmd, "sku", skuNames)
	for _, name := range []string{"server", "account", "key", "user"} {
		_ = cmd.MarkFlagRequired(name) // it is there
	}
	return cmd
}

// check says what is wrong with the options by themselves.
func (o *benchOptions) check() error {
	sku, err := license.ParseSKU(o.sku)
	switch {
	case err != nil:
		return usagef("--sku: %v", err)
	case sku.Lifetime():
		return usagef("--sku %s: a lifetime license stays on its SIM for ever; a load would use up all there are", sku)
	case o.devices < 1 || o.connections < 1:
		return usagef("--devices and --connections must be at least 1")
	case o.requests < 0 || o.duration < 0 || o.fleet < 0:
		return usagef("--requests, --duration and --fleet must not be negative")
	case o.fleet > 0 && o.fleet < o.devices:
		return usagef("--fleet %d: a request of %d devices needs as many", o.fleet, o.devices)
	case o.form != "text" && o.form != formJSON:
		return usagef("unknown output form %q: use text or json", o.form)
	}
	if o.requests == 0 && o.duration == 0 {
		o.duration = 30 * time.Second
	}
	if o.fleet == 0 {
		o.fleet = 4 * o.devices * o.connections
	}
	return nil
}

func runBench(cmd *cobra.Command, o benchOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	ctx, s := cmd.Context(), streamsOf(cmd)
	client, err := o.login(cmd)
	if err != nil {
		return err
	}
	devices, err := o.findDevices(ctx, client, s)
	if err != nil {
		return err
	}
	sink := &load.Sink{}
	l, err := load.New(load.Config{
		Client: client, Sink: sink, Account: o.account, SKU: o.sku, Devices: devices, Size: o.devices,
		Connections: o.connections, Requests: o.requests, Duration: o.duration, Keep: o.keep, Patience: o.patience,
	})
	if err != nil {
		return fmt.Errorf("account %s: %w", o.account, err)
	}
	deregister, err := o.register(ctx, client, sink)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, deregister()) }()
	say(s.err, "simlatch: %d devices a request, %d connections, %s devices in all", o.devices, o.connections, thousands(len(devices)))
	stop := watchLoad(s.err, l)
	result, err := l.Run(ctx)
	stop()
	if err2 := o.print(s.out, result); err == nil {
		err = err2
	}
	if err == nil && result.Refused > 0 {
		return withStatus(exitPartly, fmt.Errorf("%d requests were refused", result.Refused))
	}
	return err
}

// login makes the client and sees whether the server lets it in.
func (o *benchOptions) login(cmd *cobra.Command) (*m2m.Client, error) {
	secret, err := secretSource{what: "secret", file: o.secretFile, flag: "secret-file", env: "SIMLATCH_SECRET"}.
		read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	password, err := secretSource{what: "password", file: o.passwordFile, flag: "password-file", env: "SIMLATCH_PASSWORD"}.
		read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: o.connections, MaxConnsPerHost: o.connections,
		IdleConnTimeout: 90 * time.Second, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	client, err := m2m.New(m2m.Config{
		BaseURL: o.server, Key: o.key, Secret: string(secret), Username: o.user, Password: string(password), Retries: -1,
		HTTPClient: &http.Client{
			Timeout: 2 * time.Minute, Transport: transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, usagef("--server: %v", err)
	}
	if err := client.Login(cmd.Context()); err != nil {
		return nil, fmt.Errorf("logging in: %w", err)
	}
	return client, nil
}

// findDevices finds devices of the account to use. Only Simlatch can be asked
// which of them may be assigned a license without assigning it.
func (o *benchOptions) findDevices(ctx context.Context, client *m2m.Client, s streams) ([]m2m.Device, error) {
	const chunk = 500
	var usable, asked []m2m.Device
	ask := func() error {
		plan, err := client.Plan(ctx, m2m.ActionAssign, m2m.LicenseRequest{AccountName: o.account, SKUNumber: o.sku, Devices: asked})
		if errors.Is(err, m2m.ErrNoDryRun) {
			if !o.anyServer {
				return errors.New("the server has not said that it is Simlatch: it may give out, and charge for, real licenses; --any-server goes on all the same")
			}
			usable, asked = append(usable, asked...), nil
			return nil
		}
		if err != nil {
			return fmt.Errorf("asking which devices hold no license: %w", err)
		}
		for i, d := range plan.Devices {
			if d.Outcome == "ok" && i < len(asked) {
				usable = append(usable, asked[i])
			}
		}
		asked = nil
		return nil
	}
	for info, err := range client.Devices(ctx, m2m.DeviceListRequest{AccountName: o.account, CurrentState: "active"}) {
		if err != nil {
			return nil, fmt.Errorf("listing the devices: %w", err)
		}
		imei, iccid := deviceID(info.DeviceIDs, "imei"), deviceID(info.DeviceIDs, m2m.KindListICCID)
		asked = append(asked, m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: imei, Kind: "imei"}, {ID: iccid, Kind: "iccid"}}})
		if len(asked) == chunk || len(usable)+len(asked) == o.fleet {
			if err := ask(); err != nil {
				return nil, err
			}
		}
		if len(usable) >= o.fleet {
			return usable[:o.fleet], nil
		}
	}
	if len(asked) > 0 {
		if err := ask(); err != nil {
			return nil, err
		}
	}
	say(s.err, "simlatch: the account has %s devices that hold no license; %s were wanted", thousands(len(usable)), thousands(o.fleet))
	return usable, nil
}
