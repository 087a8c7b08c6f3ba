package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/m2m"
)

// maxCallback is more than any callback has; a listener is open to strangers.
const maxCallback = 64 << 10

type listenOptions struct {
	address string
	form    string
	count   int
}

func newListenCommand() *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive callbacks and print them",
		Long: `Receive callbacks and print them.

Every message is answered with 200 and printed on standard output: a line for
people, or with --output json the message itself on one line, for programs.
Passwords in messages are printed as they are with --output json only.

A Simlatch server sends nothing to loopback or private addresses unless it was
started with --callback-allow; this command prints the flag that is needed.`,
		Example: `  simlatch listen
  simlatch listen --listen 0.0.0.0:9001
  simlatch listen --output json --count 2 | jq .status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runListen(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&o.address, "listen", "127.0.0.1:0", "`address` to listen on; port 0 takes a free one")
	cmd.Flags().StringVarP(&o.form, "output", "o", "text", "`form` of the output: text or json")
	cmd.Flags().IntVar(&o.count, "count", 0, "end after this many messages; 0 goes on until interrupted")
	return cmd
}

// runListen receives callbacks until ctx ends or enough have come.
func runListen(ctx context.Context, o listenOptions, out, messages io.Writer) error {
	if o.form != "text" && o.form != formJSON {
		return usagef("unknown output form %q: use text or json", o.form)
	}
	if o.count < 0 {
		return usagef("--count %d: it must not be negative", o.count)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", o.address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	p := &callbackPrinter{out: out, messages: messages, form: o.form, want: o.count, stop: stop}
	srv := &http.Server{
		Handler:           p,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      20 * time.Second,
	}
	printListening(messages, ln.Addr())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	// Those being answered get their answer, or they would be sent again.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = srv.Shutdown(grace)
	<-served //nolint:errcheck // that it was shut down
	if cause := context.Cause(ctx); !errors.Is(cause, errEnough) && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// errEnough ends a listener that has received as many messages as it was asked
// to.
var errEnough = errors.New("enough messages have come")

// printListening says where the listener is and how to have it called.
func printListening(w io.Writer, addr net.Addr) {
	url, allow := listenerURL(addr)
	fmt.Fprintf(w, "simlatch: listening for callbacks on %s\n", url)
	if allow != "" {
		fmt.Fprintf(w, "simlatch: start the server with --callback-allow %s, or it will not call this address\n", allow)
	}
	fmt.Fprintf(w, `simlatch: register it with
  curl -sS "$SERVER/api/m2m/v1/callbacks/$ACCOUNT" \
    -H "Authorization: Bearer $TOKEN" -H "VZ-M2M-Token: $SESSION" -H 'Content-Type: application/json' \
    -d '{"name":"CarrierService","url":"%s"}'
`, url)
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
	return "http://" + netip.AddrPortFrom(ip, uint16(tcp.Port)).String() + "/", allow
}

// callbackPrinter prints the callbacks it is sent.
type callbackPrinter struct {
	messages io.Writer
	form     string
	want     int
	stop     context.CancelCauseFunc

	mu   sync.Mutex // guards what follows: lines must not mix
	out  io.Writer
	seen int
}

func (p *callbackPrinter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "this is a callback listener: POST a message", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallback))
	if err != nil {
		http.Error(w, "the message could not be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	var m m2m.CallbackMessage
	if err := json.Unmarshal(body, &m); err != nil {
		fmt.Fprintf(p.messages, "simlatch: a message that is no callback came from %s: %v\n", r.RemoteAddr, err)
		http.Error(w, "not a callback message", http.StatusBadRequest)
		return
	}
	if err := p.print(body, &m); err != nil {
		// Not acknowledged: it was received, but nobody has seen it.
		http.Error(w, "the message could not be printed", http.StatusInternalServerError)
		p.stop(fmt.Errorf("printing: %w", err))
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (p *callbackPrinter) print(body []byte, m *m2m.CallbackMessage) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := callbackLine(m)
	if p.form == formJSON {
		var b bytes.Buffer
		if err := json.Compact(&b, body); err != nil {
			return err
		}
		line = b.String()
	}
	if _, err := fmt.Fprintln(p.out, line); err != nil {
		return err
	}
	if p.seen++; p.seen == p.want {
		p.stop(errEnough)
	}
	return nil
}

// callbackLine is a message on one line: how it ended, what was done, to which
// device, for which request, and at which attempt.
func callbackLine(m *m2m.CallbackMessage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-7s", m.Status)
	if r := m.DeviceResponse; r != nil {
		s := r.DeviceSKUSubscriptionResponse
		fmt.Fprintf(&b, "  %s %s", s.Action, s.SKUNumber)
	}
	for _, id := range m.DeviceIDs {
		fmt.Fprintf(&b, "  %s %s", id.Kind, id.ID)
	}
	fmt.Fprintf(&b, "  request %s  attempt %d of %d", m.RequestID, m.CallbackCount, m.MaxCallbackThreshold)
	if f := m.FaultResponse; f != nil {
		fmt.Fprintf(&b, "  %s: %s", f.FaultCode, f.FaultString)
	}
	return printable(b.String())
}

// printable replaces what could steer a terminal: a listener prints what
// strangers send.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
