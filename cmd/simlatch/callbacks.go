package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/m2m"
)

func newCallbacksCommand() *cobra.Command {
	cmd := group("callbacks", "List, register and deregister an account's listeners",
		newCallbacksListCommand(), newCallbacksRegisterCommand(), newCallbacksDeregisterCommand())
	cmd.Long = `List, register and deregister the listeners of an account: the URLs that are told
how each device of a request ended. 'simlatch listen' is such a listener.` + onServer + `

Two others are the operator's, and work on the database: 'simlatch listener' tunes
how persistently a listener is called and has its messages signed, and 'simlatch
callback' shows which messages nobody acknowledged, and sends them again.`
	return cmd
}

func newCallbacksListCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the account's listeners",
		Long: `List the account's listeners. Passwords are not shown, whatever the server sends:
PASSWORD says whether there is one.` + onServer,
		Example: `  simlatch callbacks list
  simlatch callbacks list --account 0000123456-00001 --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, profile, err := clientOf(cmd)
			if err != nil {
				return err
			}
			account, err := profile.account(cmd.Context(), client)
			if err != nil {
				return err
			}
			listeners, err := client.Listeners(cmd.Context(), account)
			if err != nil {
				return called(err)
			}
			return writeList(cmd.OutOrStdout(), form, registeredColumns, listeners)
		},
	}
	clientFlags(cmd)
	outputFlag(cmd, &form)
	return cmd
}

var registeredColumns = []column[m2m.Listener]{
	{"account", "ACCOUNT", func(l m2m.Listener) any { return l.AccountName }},
	{"service", "SERVICE", func(l m2m.Listener) any { return l.ServiceName }},
	{"url", "URL", func(l m2m.Listener) any { return l.URL }},
	{"username", "USERNAME", func(l m2m.Listener) any { return l.Username }},
	{"password", "PASSWORD", func(l m2m.Listener) any { return l.Password != "" }},
}

type registerOptions struct {
	service      string
	username     string
	passwordFile string
	replace      bool
}

func newCallbacksRegisterCommand() *cobra.Command {
	var o registerOptions
	cmd := &cobra.Command{
		Use:   "register URL",
		Short: "Register a listener of the account",
		Long: `Register a listener of the account. An account has one for each service; for
CarrierService it is told how assign and unassign ended. One that is there already
with another URL is replaced with --replace only, since all messages would go to
the new one from then on.

The listener may be given a user name and a password, which come in every message
and tell it that the message is meant for it. The password is read from
--callback-password-file or SIMLATCH_CALLBACK_PASSWORD, or is asked for.` + onServer + `

A Simlatch server sends nothing to loopback and private addresses, unless it was
started with --callback-allow.`,
		Example: `  simlatch callbacks register https://listener.example.com/simlatch
  simlatch callbacks register http://127.0.0.1:9001/ --replace
  simlatch callbacks register https://listener.example.com/ \
      --callback-user me --callback-password-file password.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runRegister(cmd, o, args[0]) },
	}
	clientFlags(cmd)
	f := cmd.Flags()
	serviceFlag(cmd, &o.service)
	f.StringVar(&o.username, "callback-user", "", "the user `name` that comes in messages")
	f.StringVar(&o.passwordFile, "callback-password-file", "", "`file` with the password that comes in messages; - is standard input")
	f.BoolVar(&o.replace, "replace", false, "take the place of the listener that is registered")
	return cmd
}

func serviceFlag(cmd *cobra.Command, service *string) {
	cmd.Flags().StringVar(service, "service", m2m.CarrierService, "the `service` the listener is for")
}

func runRegister(cmd *cobra.Command, o registerOptions, url string) error {
	client, profile, err := clientOf(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	account, err := profile.account(ctx, client)
	if err != nil {
		return err
	}
	password, err := o.password(cmd)
	if err != nil {
		return err
	}
	l := m2m.ListenerRequest{Name: o.service, URL: url, Username: o.username, Password: string(password)}
	if err := checkReplace(ctx, client, account, l, o.replace); err != nil {
		return err
	}
	answer, err := client.RegisterListener(ctx, account, l)
	if err != nil {
		return called(err)
	}
	say(cmd.OutOrStdout(), "registered %s for %s of account %s", url, answer.ServiceName, answer.AccountName)
	return nil
}

// checkReplace refuses to take the place of another listener by the way.
func checkReplace(ctx context.Context, client *m2m.Client, account string, l m2m.ListenerRequest, replace bool) error {
	registered, err := client.Listeners(ctx, account)
	if err != nil {
		return called(err)
	}
	for _, other := range registered {
		if other.ServiceName == l.Name && other.URL != l.URL && !replace {
			return fmt.Errorf("account %s has a listener for %s, %s; --replace takes its place", account, l.Name, other.URL)
		}
	}
	return nil
}

// password is the listener's; without a user name there is none.
func (o registerOptions) password(cmd *cobra.Command) (auth.Secret, error) {
	if o.username == "" {
		if o.passwordFile != "" {
			return "", usagef("--callback-password-file needs --callback-user")
		}
		return "", nil
	}
	return secretSource{
		what: "password of the listener", file: o.passwordFile, flag: "callback-password-file", env: "SIMLATCH_CALLBACK_PASSWORD",
	}.read(cmd.InOrStdin(), cmd.ErrOrStderr())
}

func newCallbacksDeregisterCommand() *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "deregister",
		Short: "Take the account's listener away",
		Long: `Take the account's listener away. Nothing is sent from then on; Simlatch keeps
what it would have sent, and 'simlatch callback send' sends it later.` + onServer,
		Example: `  simlatch callbacks deregister
  simlatch callbacks deregister --account 0000123456-00001 --service DeviceService`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, profile, err := clientOf(cmd)
			if err != nil {
				return err
			}
			account, err := profile.account(cmd.Context(), client)
			if err != nil {
				return err
			}
			_, err = client.DeregisterListener(cmd.Context(), account, service)
			switch {
			case errors.Is(err, m2m.ErrCallbackNotFound):
				return fmt.Errorf("account %s has no listener for %s", account, service)
			case err != nil:
				return called(err)
			}
			say(cmd.OutOrStdout(), "deregistered the listener for %s of account %s", service, account)
			return nil
		},
	}
	clientFlags(cmd)
	serviceFlag(cmd, &service)
	return cmd
}
