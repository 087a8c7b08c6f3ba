package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/m2m"
)

// The forms in which messages are printed, beside those of lists.
const formText = "text"

type listenOptions struct {
	address string
	form    string
	count   int
	counts  bool

	secretFile   string
	username     string
	passwordFile string

	answers []string
	delay   time.Duration
	command string

	register, replace bool
	callbackURL       string
}

func newListenCommand() *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive callbacks and print them",
		Long: `Receive callbacks and print them, until interrupted or until --count messages were
acknowledged.

--output says how: text is a line for people, table has columns, csv too, jsonl
(or json) is the message itself on one line, for programs. With --counts nothing
is printed until the end, and then how often each device was told of.
Passwords in messages are printed as they are with jsonl only.

--register has the listener registered for the account, and deregistered at the
end; --callback-url says what to register where the server reaches this listener
by another URL. Without it 'simlatch callbacks register' does so. A Simlatch
server sends nothing to loopback or private addresses unless it was started with
--callback-allow; this command prints the flag that is needed.

What does not come from the server is answered with 401 and not printed: with
--signing-secret-file, or SIMLATCH_SIGNING_SECRET (the secret that 'simlatch
listener set' made), a message that is not signed with the secret; with
--callback-user one that does not carry that user and password.

Every message is answered with 200, unless --answer says what else. 503,503,200
refuses the first two attempts of each message and takes the third and all
later ones; with an ICCID and = before it that holds for one device only.

--exec runs a command for each message, one at a time and once however often the
message comes. It has the message on its standard input, and in its environment
CALLBACK_ICCID, CALLBACK_IMEI, CALLBACK_MDN, CALLBACK_REQUEST, CALLBACK_STATUS,
CALLBACK_ACTION, CALLBACK_SKU, CALLBACK_FAULTCODE, CALLBACK_FAULTSTRING and
CALLBACK_COUNT. If it fails the message is answered with 500, and will come again.`,
		Example: `  simlatch listen
  simlatch listen --register --output table
  simlatch listen --listen 0.0.0.0:9001 --signing-secret-file secret.txt
  simlatch listen --output jsonl --count 2 | jq .status
  simlatch listen --answer 503,503,200 --answer 89148000000000000012=410
  simlatch listen --exec 'logger "SIM $CALLBACK_ICCID: $CALLBACK_STATUS"'
  simlatch listen --counts --output csv > counts.csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listen(cmd, o) },
	}
	clientFlags(cmd)
	o.addFlags(cmd)
	return cmd
}

func (o *listenOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.address, "listen", "127.0.0.1:0", "`address` to listen on; port 0 takes a free one")
	f.StringVarP(&o.form, "output", "o", formText, "`form` of the output: text, table, csv or jsonl")
	f.IntVar(&o.count, "count", 0, "end after this many messages; 0 goes on until interrupted")
	f.BoolVar(&o.counts, "counts", false, "print no messages, but at the end how many there were for each device")
	f.StringVar(&o.secretFile, "signing-secret-file", "", "`file` with the secret that messages are signed with, whsec_…; - is standard input")
	f.StringVar(&o.username, "callback-user", "", "the user `name` that messages must carry")
	f.StringVar(&o.passwordFile, "callback-password-file", "", "`file` with the password that messages must carry; - is standard input")
	f.StringArrayVar(&o.answers, "answer", nil, "`statuses` to answer each message's attempts with, [ICCID=]503,503,200 (repeatable)")
	f.DurationVar(&o.delay, "delay", 0, "wait so long before each answer")
	f.StringVar(&o.command, "exec", "", "run this shell `command` for each message")
	f.BoolVar(&o.register, "register", false, "register the listener, and deregister it at the end")
	f.BoolVar(&o.replace, "replace", false, "with --register, take the place of another listener for good")
	f.StringVar(&o.callbackURL, "callback-url", "", "the listener's `URL` as the server sees it, to be registered")
	completeFlag(cmd, "output", func() []string { return []string{formText, formTable, formCSV, formJSONL} })
}

// listenForms are the values of --output.
var listenForms = []string{formText, formTable, formCSV, formJSONL, formJSON}

// check says what is wrong with the options by themselves.
func (o listenOptions) check() error {
	switch {
	case !slices.Contains(listenForms, o.form):
		return usagef("unknown output form %q: use text, table, csv or jsonl", o.form)
	case o.count < 0:
		return usagef("--count %d: it must not be negative", o.count)
	case o.delay < 0:
		return usagef("--delay %s: it must not be negative", o.delay)
	case !o.register && (o.callbackURL != "" || o.replace):
		return usagef("--callback-url and --replace are for --register")
	case o.username == "" && o.passwordFile != "":
		return usagef("--callback-password-file needs --callback-user")
	}
	return nil
}

// listen reads what must be known before, and listens.
func listen(cmd *cobra.Command, o listenOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	r, err := newCallbackReceiver(o)
	if err != nil {
		return err
	}
	if r.signingSecret, err = o.signingSecret(cmd); err != nil {
		return err
	}
	if r.password, err = (registerOptions{username: o.username, passwordFile: o.passwordFile}).password(cmd); err != nil {
		return err
	}
	var register func(ctx context.Context, url string) (func() error, error)
	if o.register {
		client, profile, err := clientOf(cmd)
		if err != nil {
			return err
		}
		register = func(ctx context.Context, url string) (func() error, error) {
			return registerForNow(ctx, client, &profile, m2m.ListenerRequest{
				Name: m2m.CarrierService, URL: url, Username: o.username, Password: string(r.password),
			}, o.replace)
		}
	}
	return runListen(cmd.Context(), streamsOf(cmd), r, register)
}

// signingSecret is the secret to check messages with; empty for none.
func (o listenOptions) signingSecret(cmd *cobra.Command) (auth.Secret, error) {
	const env = "SIMLATCH_SIGNING_SECRET"
	from := secretSource{what: "signing secret", file: o.secretFile, flag: "signing-secret-file", env: env}
	if !from.given() {
		return "", nil
	}
	secret, err := from.read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return "", err
	}
	return secret, checkSigningSecret(string(secret))
}

// registerForNow registers a listener; what it returns deregisters it.
func registerForNow(ctx context.Context, client *m2m.Client, profile *clientProfile, l m2m.ListenerRequest, replace bool) (undo func() error, err error) {
	account, err := profile.account(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := checkReplace(ctx, client, account, l, replace); err != nil {
		return nil, err
	}
	if _, err := client.RegisterListener(ctx, account, l); err != nil {
		return nil, fmt.Errorf("registering the listener: %w", called(err))
	}
	return func() error {
		// Also after an interrupt: a listener that is gone should not be called.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if _, err := client.DeregisterListener(ctx, account, l.Name); err != nil {
			return fmt.Errorf("deregistering the listener: %w", err)
		}
		return nil
	}, nil
}

// runListen receives callbacks until ctx ends or enough have come. A listener
// that register, if not nil, has registered is deregistered at the end.
func runListen(ctx context.Context, s streams, r *callbackReceiver, register func(context.Context, string) (func() error, error)) (err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", r.o.address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if err := r.start(s, stop); err != nil {
		return errors.Join(err, ln.Close())
	}
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.serve(ctx, w, req) }),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	undo, err := r.announce(ctx, s, ln.Addr(), register)
	if err != nil {
		return errors.Join(err, srv.Close())
	}
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("serving: %w", err), undo())
	case <-ctx.Done():
	}
	err = undo()
	// Those being answered get their answer, or they would be sent again. A
	// connection on which nothing has come yet is not waited for.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second+r.o.delay)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		err = errors.Join(err, srv.Close())
	}
	<-served //nolint:errcheck // that it was shut down
	if cause := context.Cause(ctx); !errors.Is(cause, errEnough) && !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return errors.Join(err, r.end(s))
}

// errEnough ends a listener that has received as many messages as it was asked
// to.
var errEnough = errors.New("enough messages have come")

// announce says where the listener is, and registers it or says how to.
func (r *callbackReceiver) announce(ctx context.Context, s streams, addr net.Addr, register func(context.Context, string) (func() error, error)) (undo func() error, err error) {
	url, allow := listenerURL(addr)
	say(s.err, "simlatch: listening for callbacks on %s", url)
	if r.o.callbackURL != "" {
		url, allow = r.o.callbackURL, ""
	}
	if register != nil {
		undo, err := register(ctx, url)
		if err != nil && allow != "" {
			err = fmt.Errorf("%w (a Simlatch server calls this address only with --callback-allow %s)", err, allow)
		}
		if err == nil {
			say(s.err, "simlatch: registered %s until this ends", url)
		}
		return undo, err
	}
	if allow != "" {
		say(s.err, "simlatch: start the server with --callback-allow %s, or it will not call this address", allow)
	}
	say(s.err, "simlatch: register it with: simlatch callbacks register %s", url)
	return func() error { return nil }, nil
}

// listenerURL is the URL of a listener at addr, and the range a server must
// allow to call it; empty where none is needed.
func listenerURL(addr net.Addr) (url, allow string) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return "http://" + addr.String() + "/", ""
	}
	ip := tcp.AddrPort().Addr().Unmap()
	switch {
	case ip.IsUnspecified():
		// Reachable by every address of this machine; loopback is one of them.
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		allow = ip.String() + "/32"
	case ip.IsLoopback() || ip.IsPrivate():
		allow = netip.PrefixFrom(ip.WithZone(""), ip.BitLen()).String()
	}
	return "http://" + netip.AddrPortFrom(ip, uint16(tcp.Port)).String() + "/", allow //nolint:gosec // a port has 16 bits
}
