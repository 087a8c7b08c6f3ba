package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
)

func newListenerCommand() *cobra.Command {
	cmd := group("listener", "List and tune callback listeners", newListenerListCommand(), newListenerSetCommand())
	booksFlags(cmd)
	cmd.Long = `List and tune callback listeners.

Listeners are registered through the API, by whoever receives the callbacks. How
persistently one is called, and whether its messages are signed, is set here.` + onBooks
	return cmd
}

func newListenerListCommand() *cobra.Command {
	var form string
	var names []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the registered listeners",
		Long: `List the registered listeners. Passwords and signing secrets are not shown. An
empty setting is the server's own.`,
		Example: `  simlatch listener list
  simlatch listener list --account 0000123456-00001 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBooks(cmd, func(s books) error {
				accounts, err := findAccounts(cmd, s, names, true)
				if err != nil {
					return err
				}
				var listeners []license.Listener
				for _, a := range accounts {
					of, err := s.Listeners(cmd.Context(), a)
					if err != nil {
						return nameKey(err)
					}
					listeners = append(listeners, of...)
				}
				return writeList(cmd.OutOrStdout(), form, listenerColumns, listeners)
			})
		},
	}
	cmd.Flags().StringArrayVar(&names, "account", nil, "only this account, by `name` (repeatable)")
	outputFlag(cmd, &form)
	return cmd
}

var listenerColumns = []column[license.Listener]{
	{"account", "ACCOUNT", func(l license.Listener) any { return l.Account }},
	{"service", "SERVICE", func(l license.Listener) any { return l.Service }},
	{"url", "URL", func(l license.Listener) any { return l.URL }},
	{"username", "USERNAME", func(l license.Listener) any { return l.Username }},
	{"signed", "SIGNED", func(l license.Listener) any { return l.SigningSecret != "" }},
	{"attempts", "ATTEMPTS", func(l license.Listener) any { return set(l.Attempts) }},
	{"interval", "INTERVAL", func(l license.Listener) any { return set(l.Interval) }},
	{"timeout", "TIMEOUT", func(l license.Listener) any { return set(l.Timeout) }},
}

// set is a setting in a list; nil where it is the server's own.
func set[T int | time.Duration](v T) any {
	if v == 0 {
		return nil
	}
	if d, ok := any(v).(time.Duration); ok {
		return d.String()
	}
	return v
}

type listenerSetOptions struct {
	account, service     string
	attempts             int
	interval, timeout    time.Duration
	secretFile           string
	makeSecret, forgetIt bool
	tuned                struct{ attempts, interval, timeout bool } // which flags were given
}

func newListenerSetCommand() *cobra.Command {
	var o listenerSetOptions
	cmd := &cobra.Command{
		Use:   "set --account NAME",
		Short: "Tune one listener, or have its messages signed",
		Long: `Tune one listener, or have its messages signed. What no flag names stays as it is;
0 gives a setting back to the server's own.

With a signing secret every message carries the webhook-signature header of
Standard Webhooks (standardwebhooks.com), for which there are verifiers in many
languages. --new-signing-secret makes one and prints it, once.` + onBooks,
		Example: `  simlatch listener set --account 0000123456-00001 --attempts 6 --interval 30s
  simlatch listener set --account 0000123456-00001 --new-signing-secret`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.tuned.attempts = cmd.Flags().Changed("attempts")
			o.tuned.interval = cmd.Flags().Changed("interval")
			o.tuned.timeout = cmd.Flags().Changed("timeout")
			return runListenerSet(cmd, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.account, "account", "", "the account's `name`")
	f.StringVar(&o.service, "service", license.CarrierService, "the `service` the listener is registered for")
	f.IntVar(&o.attempts, "attempts", 0, "attempts in all to deliver a message, at most 100")
	f.DurationVar(&o.interval, "interval", 0, "time from one attempt to the next, such as 5m")
	f.DurationVar(&o.timeout, "timeout", 0, "time to answer in, such as 10s; at most 1m")
	f.BoolVar(&o.makeSecret, "new-signing-secret", false, "make a signing secret and print it")
	f.StringVar(&o.secretFile, "signing-secret-file", "", "take the signing secret, whsec_…, from this `file`; - is standard input")
	f.BoolVar(&o.forgetIt, "no-signing-secret", false, "stop signing")
	_ = cmd.MarkFlagRequired("account")
	cmd.MarkFlagsMutuallyExclusive("new-signing-secret", "signing-secret-file", "no-signing-secret")
	cmd.MarkFlagsOneRequired("attempts", "interval", "timeout", "new-signing-secret", "signing-secret-file", "no-signing-secret")
	return cmd
}

// nameKey says how to go on where a sealed secret is in the way.
func nameKey(err error) error {
	if errors.Is(err, license.ErrNotConfigured) {
		return fmt.Errorf("%w; name the server's with --secrets-key-file", err)
	}
	return err
}

// check refuses settings that would make a listener useless or a burden.
func (o listenerSetOptions) check() error {
	switch {
	case o.attempts < 0 || o.attempts > 100:
		return usagef("--attempts %d: it must be 1 to 100, or 0 for the server's own", o.attempts)
	case o.interval < 0 || o.interval > 24*time.Hour:
		return usagef("--interval %s: it must be at most 24h", o.interval)
	case o.timeout < 0 || o.timeout > time.Minute:
		return usagef("--timeout %s: it must be at most 1m", o.timeout)
	}
	return nil
}

func runListenerSet(cmd *cobra.Command, o listenerSetOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	secret, err := o.signingSecret(cmd)
	if err != nil {
		return err
	}
	return withBooks(cmd, func(s books) error {
		account, err := findAccount(cmd, s, o.account)
		if err != nil {
			return err
		}
		if err := s.Tune(cmd.Context(), account, o.service, o.tuning(secret)); err != nil {
			return missing(nameKey(err), "account %s has no listener for %s: it is registered through the API", account, o.service)
		}
		if o.makeSecret {
			fmt.Fprintln(cmd.OutOrStdout(), secret)
			fmt.Fprintln(cmd.ErrOrStderr(), "simlatch: keep the secret now: it is not shown again")
		}
		return nil
	})
}

// tuning is what the flags change.
func (o listenerSetOptions) tuning(secret string) (t tuning) {
	if o.tuned.attempts {
		t.attempts = &o.attempts
	}
	if o.tuned.interval {
		t.interval = &o.interval
	}
	if o.tuned.timeout {
		t.timeout = &o.timeout
	}
	if secret != "" || o.forgetIt {
		t.signingSecret = &secret
	}
	return t
}

// secretPrefix marks a signing secret of Standard Webhooks.
const secretPrefix = "whsec_"

// signingSecret is the secret to set; empty for none.
func (o listenerSetOptions) signingSecret(cmd *cobra.Command) (string, error) {
	switch {
	case o.makeSecret:
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		return secretPrefix + base64.StdEncoding.EncodeToString(key), nil
	case o.secretFile == "":
		return "", nil
	}
	from := secretSource{what: "signing secret", file: o.secretFile, flag: "signing-secret-file"}
	secret, err := from.read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err != nil {
		return "", err
	}
	return string(secret), checkSigningSecret(string(secret))
}

// checkSigningSecret refuses what is no signing secret.
func checkSigningSecret(secret string) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil || !strings.HasPrefix(secret, secretPrefix) || len(key) < 24 || len(key) > 64 {
		return fmt.Errorf("the signing secret must be %s and 24 to 64 bytes in base64", secretPrefix)
	}
	return nil
}
