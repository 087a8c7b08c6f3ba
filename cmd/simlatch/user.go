package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
)

func newUserCommand() *cobra.Command {
	cmd := group("user", "Add and list users, and set passwords and access",
		newUserAddCommand(), newUserPasswordCommand(), newUserGrantCommand(), newUserUnlockCommand(), newUserListCommand())
	booksFlags(cmd)
	cmd.Long = `Add and list users, and set passwords and access.

A user's name and password open a session; the session may use the accounts that
the user was given.

Passwords are asked for at the terminal, twice and without showing them, or read
from a file (--password-file, or SIMLATCH_PASSWORD_FILE) or from SIMLATCH_PASSWORD.` + onBooks
	return cmd
}

// minPassword is the shortest password that is taken.
const minPassword = 8

// passwordFlag is the --password-file flag of the commands that set one.
func passwordFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "password-file", "", "`file` with the password on one line; - is standard input")
}

func readPassword(cmd *cobra.Command, file string) (auth.Secret, error) {
	from := secretSource{what: "password", file: file, flag: "password-file", env: "SIMLATCH_PASSWORD", twice: true}
	password, err := from.read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err == nil && len(password) < minPassword {
		err = fmt.Errorf("the password has %d characters; it needs at least %d", len(password), minPassword)
	}
	return password, err
}

func newUserAddCommand() *cobra.Command {
	var file string
	var accounts []string
	cmd := &cobra.Command{
		Use:   "add NAME --account NAME",
		Short: "Add a user",
		Long:  `Add a user, with access to the accounts named.` + onBooks,
		Example: `  simlatch user add ada --account 0000123456-00001
  simlatch user add robot --account 0000123456-00001 --account 0000123456-00002 --password-file robot.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUserAdd(cmd, args[0], accounts, file)
		},
	}
	cmd.Flags().StringArrayVar(&accounts, "account", nil, "an account's `name` (repeatable)")
	passwordFlag(cmd, &file)
	return cmd
}

func runUserAdd(cmd *cobra.Command, name string, accountNames []string, file string) error {
	if err := checkName("name", name); err != nil {
		return err
	}
	return withBooks(cmd, func(s books) error {
		accounts, err := findAccounts(cmd, s, accountNames, false)
		if err != nil {
			return err
		}
		password, err := readPassword(cmd, file)
		if err != nil {
			return err
		}
		if err := s.NewUser(cmd.Context(), name, password, accounts); err != nil {
			return exists(err, "there is a user %s already; 'simlatch user password %s' sets another password", name, name)
		}
		if len(accounts) == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "simlatch: %s has no account yet; 'simlatch user grant %s --account NAME' gives one\n", name, name)
		}
		fmt.Fprintln(cmd.OutOrStdout(), name)
		return nil
	})
}

func newUserPasswordCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "password NAME",
		Short: "Set a user's password",
		Long: `Set a user's password. Failed logins are forgotten with it, so a user who was
locked out can log in again.` + onBooks,
		Example: `  simlatch user password ada
  pwgen -s 24 1 | tee password.txt | simlatch user password robot --password-file -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBooks(cmd, func(s books) error {
				password, err := readPassword(cmd, file)
				if err != nil {
					return err
				}
				return missing(s.NewPassword(cmd.Context(), args[0], password), "there is no user %s", args[0])
			})
		},
	}
	passwordFlag(cmd, &file)
	return cmd
}

func newUserGrantCommand() *cobra.Command {
	var names []string
	var none bool
	cmd := &cobra.Command{
		Use:   "grant NAME --account NAME",
		Short: "Say which accounts a user may use",
		Long: `Say which accounts a user may use: those named and no others. Open sessions
follow with their next call.` + onBooks,
		Example: `  simlatch user grant ada --account 0000123456-00001 --account 0000123456-00002
  simlatch user grant ada --none`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if none == (len(names) > 0) {
				return usagef("name the accounts with --account, or take all access away with --none")
			}
			return withBooks(cmd, func(s books) error {
				accounts, err := findAccounts(cmd, s, names, false)
				if err != nil {
					return err
				}
				return missing(s.GrantAccounts(cmd.Context(), args[0], accounts), "there is no user %s", args[0])
			})
		},
	}
	cmd.Flags().StringArrayVar(&names, "account", nil, "an account's `name` (repeatable)")
	cmd.Flags().BoolVar(&none, "none", false, "no account at all")
	return cmd
}

func newUserUnlockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock NAME",
		Short: "Forget a user's failed logins",
		Long: `Forget a user's failed logins, so that the next one is checked at once. Under
'simlatch serve --login-lock reference' this is how a locked user gets in again.` + onBooks,
		Example: `  simlatch user unlock ada`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBooks(cmd, func(s books) error {
				return missing(s.UnlockUser(cmd.Context(), args[0]), "there is no user %s", args[0])
			})
		},
	}
}

func newUserListCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List users with the accounts they may use",
		Example: `  simlatch user list --output csv`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBooks(cmd, func(s books) error {
				users, err := s.Users(cmd.Context())
				if err != nil {
					return err
				}
				return writeList(cmd.OutOrStdout(), form, userColumns, users)
			})
		},
	}
	outputFlag(cmd, &form)
	return cmd
}

var userColumns = []column[auth.User]{
	{"user", "USER", func(u auth.User) any { return u.Name }},
	{"disabled", "DISABLED", func(u auth.User) any { return u.Disabled }},
	{"accounts", "ACCOUNTS", func(u auth.User) any { return accountStrings(u.Accounts) }},
}

func accountStrings(accounts []license.AccountName) []string {
	names := make([]string, 0, len(accounts))
	for _, a := range accounts {
		names = append(names, string(a))
	}
	return names
}
