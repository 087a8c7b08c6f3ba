package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

func newAccountCommand() *cobra.Command {
	cmd := group("account", "Add and list accounts", newAccountAddCommand(), newAccountListCommand())
	booksFlags(cmd)
	cmd.Long = `Add and list accounts.

An account is a billing account: pools of licenses, SIMs and callback listeners
belong to it, and users are given access to it.` + onBooks
	return cmd
}

// onDatabase ends the help of the commands that work on the database.
const onDatabase = `

This works on the database itself, beside a running server too: what is changed
here counts from the next call on.`

func newAccountAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME",
		Short: "Add an account",
		Long: `Add an account.

Leading zeros count. Two names that differ only by hyphens are the same account.` + onBooks,
		Example: `  simlatch account add 0000123456-00001`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := license.ParseAccountName(args[0])
			if err != nil {
				return err
			}
			return withBooks(cmd, func(s books) error {
				if err := s.AddAccount(cmd.Context(), name, time.Now()); err != nil {
					return exists(err, "account %s exists already (hyphens do not tell accounts apart)", name)
				}
				fmt.Fprintln(cmd.OutOrStdout(), name)
				return nil
			})
		},
	}
}

func newAccountListCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the accounts",
		Example: `  simlatch account list --output json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBooks(cmd, func(s books) error {
				accounts, err := s.Accounts(cmd.Context())
				if err != nil {
					return err
				}
				return writeList(cmd.OutOrStdout(), form, accountColumns, accounts)
			})
		},
	}
	outputFlag(cmd, &form)
	return cmd
}

var accountColumns = []column[license.AccountName]{
	{"account", "ACCOUNT", func(a license.AccountName) any { return a }},
}

// withStore opens the database for fn.
func withStore(cmd *cobra.Command, fn func(*store.Store) error) (err error) {
	s, err := openStore(cmd.Context(), databaseOf(cmd))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return fn(s.As(commandActor()))
}

// exists says in words that what was to be added is there, and leaves other
// errors as they are.
func exists(err error, format string, args ...any) error {
	if errors.Is(err, license.ErrExists) {
		return fmt.Errorf(format, args...)
	}
	return err
}

// missing is the same for what was not found.
func missing(err error, format string, args ...any) error {
	if errors.Is(err, license.ErrNotFound) {
		return fmt.Errorf(format, args...)
	}
	return err
}

// findAccount finds an account by its name with or without hyphens.
func findAccount(cmd *cobra.Command, s accountList, name string) (license.AccountName, error) {
	return findAccountIn(cmd.Context(), s, name)
}

func findAccountIn(ctx context.Context, s accountList, name string) (license.AccountName, error) {
	wanted, err := license.ParseAccountName(name)
	if err != nil {
		return "", err
	}
	accounts, err := s.Accounts(ctx)
	if err != nil {
		return "", err
	}
	for _, a := range accounts {
		if a.Folded() == wanted.Folded() {
			return a, nil
		}
	}
	return "", fmt.Errorf("there is no account %s: add it with 'simlatch account add %s'", wanted, wanted)
}

// findAccounts finds several accounts by name; none means all there are, if all
// says so.
func findAccounts(cmd *cobra.Command, s accountList, names []string, all bool) ([]license.AccountName, error) {
	if len(names) == 0 && all {
		return s.Accounts(cmd.Context())
	}
	var accounts []license.AccountName
	for _, name := range names {
		a, err := findAccount(cmd, s, name)
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, a)
	}
	return accounts, nil
}
