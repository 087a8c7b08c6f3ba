package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/store"
)

func newOperatorCommand() *cobra.Command {
	cmd := group("operator", "Create and list operators, and set their tokens and passwords",
		newOperatorCreateCommand(), newOperatorListCommand(), newOperatorRotateCommand(), newOperatorPasswordCommand(),
		newOperatorRoleCommand(), newOperatorSwitchCommand("disable", true), newOperatorSwitchCommand("enable", false))
	cmd.Long = `Create and list operators, and set their tokens and passwords.

An operator runs the installation: a person or a program, with a token for the
operator's API and, for people, a password for the console. What an operator may
do is their role:

  viewer    read everything
  operator  also the daily work: purchases, SIMs, callbacks, stuck tasks
  admin     also who may do what: operators, applications, users, policies

These commands need no operator: who can open the database is above them all.` + onDatabase
	return cmd
}

func newOperatorCreateCommand() *cobra.Command {
	var role, file string
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Create an operator and print their token, once",
		Long: `Create an operator and print their token.

The token is shown this once and stored as a hash: one that was lost is replaced
with 'simlatch operator rotate'. --password-file also gives the operator a password,
for the console, /console on the server.` + onDatabase,
		Example: `  simlatch operator create olga --role operator
  simlatch operator create billing --role viewer`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runOperatorCreate(cmd, args[0], role, file) },
	}
	cmd.Flags().StringVar(&role, "role", "", "what the operator may do: `viewer`, operator or admin")
	_ = cmd.MarkFlagRequired("role")
	completeFlag(cmd, "role", roleNames)
	passwordFlag(cmd, &file)
	return cmd
}

func roleNames() (names []string) {
	for _, r := range auth.Roles() {
		names = append(names, string(r))
	}
	return names
}

func runOperatorCreate(cmd *cobra.Command, name, roleName, file string) error {
	if err := checkName("name", name); err != nil {
		return err
	}
	role, err := auth.ParseRole(roleName)
	if err != nil {
		return err
	}
	token := auth.NewOperatorToken()
	o := auth.OperatorRecord{Operator: auth.Operator{Name: name, Role: role}, TokenHash: auth.HashSecret(token)}
	if file != "" {
		password, err := readPassword(cmd, file)
		if err != nil {
			return err
		}
		o.PasswordHash = auth.HashPassword(password)
	}
	return withStore(cmd, func(s *store.Store) error {
		if err := s.AddOperator(cmd.Context(), o, time.Now()); err != nil {
			return exists(err, "there is an operator %s already; 'simlatch operator rotate %s' gives them a new token", name, name)
		}
		return showToken(cmd, name, token)
	})
}

// showToken prints an operator's token, there and then and never again.
func showToken(cmd *cobra.Command, name string, token auth.Secret) error {
	if _, err := fmt.Fprintf(cmd.OutOrStdout(), "operator  %s\ntoken     %s\n", name, string(token)); err != nil {
		return err
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "simlatch: keep the token now: it is not shown again")
	return nil
}

func newOperatorRotateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give an operator a new token and print it, once",
		Long: `Give an operator a new token and print it, once. The old one stops working within
a second.` + onDatabase,
		Example: `  simlatch operator rotate olga`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, func(s *store.Store) error {
				token := auth.NewOperatorToken()
				if err := s.RotateOperator(cmd.Context(), args[0], auth.HashSecret(token)); err != nil {
					return missing(err, "there is no operator %s", args[0])
				}
				return showToken(cmd, args[0], token)
			})
		},
	}
}

func newOperatorPasswordCommand() *cobra.Command {
	var file string
	var none bool
	cmd := &cobra.Command{
		Use:   "password NAME",
		Short: "Set an operator's password for the console",
		Long: `Set an operator's password for the console, or take it away with --none. Failed
sign-ins are forgotten with it.

It is asked for at the terminal, twice and without showing it, or read from a file
(--password-file, or SIMLATCH_PASSWORD_FILE) or from SIMLATCH_PASSWORD.` + onDatabase,
		Example: `  simlatch operator password olga
  simlatch operator password billing --none`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if none && file != "" {
				return usagef("--none takes the password away, and --password-file gives one")
			}
			return withStore(cmd, func(s *store.Store) error {
				hash := ""
				if !none {
					password, err := readPassword(cmd, file)
					if err != nil {
						return err
					}
					hash = auth.HashPassword(password)
				}
				return missing(s.SetOperatorPassword(cmd.Context(), args[0], hash), "there is no operator %s", args[0])
			})
		},
	}
	passwordFlag(cmd, &file)
	cmd.Flags().BoolVar(&none, "none", false, "take the password away")
	return cmd
}

func newOperatorRoleCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "role NAME ROLE",
		Short: "Change what an operator may do",
		Long: `Change what an operator may do: viewer, operator or admin. It counts for their token
within a second, and for the console from the next page on.` + onDatabase,
		Example: `  simlatch operator role olga admin`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			role, err := auth.ParseRole(args[1])
			if err != nil {
				return err
			}
			return withStore(cmd, func(s *store.Store) error {
				return missing(s.SetOperatorRole(cmd.Context(), args[0], role), "there is no operator %s", args[0])
			})
		},
	}
}

// newOperatorSwitchCommand makes disable and enable.
func newOperatorSwitchCommand(verb string, disabled bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:     verb + " NAME",
		Short:   "Let an operator in again",
		Long:    `Let an operator who was disabled in again, with the token and password they had.` + onDatabase,
		Example: `  simlatch operator enable olga`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd, func(s *store.Store) error {
				return missing(s.DisableOperator(cmd.Context(), args[0], disabled), "there is no operator %s", args[0])
			})
		},
	}
	if disabled {
		cmd.Short = "Shut an operator out, and keep what they did"
		cmd.Long = `Shut an operator out: the token and the password stop working within a second. What
they did stays in the audit under their name. Whoever is signed in to the console is
signed out.` + onDatabase
		cmd.Example = `  simlatch operator disable olga`
	}
	return cmd
}

func newOperatorListCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the operators with their roles",
		Example: `  simlatch operator list --output jsonl`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, func(s *store.Store) error {
				operators, err := s.Operators(cmd.Context())
				if err != nil {
					return err
				}
				return writeList(cmd.OutOrStdout(), form, operatorColumns, operators)
			})
		},
	}
	outputFlag(cmd, &form)
	return cmd
}

var operatorColumns = []column[auth.OperatorRecord]{
	{"operator", "OPERATOR", func(o auth.OperatorRecord) any { return o.Name }},
	{"role", "ROLE", func(o auth.OperatorRecord) any { return o.Role }},
	{"disabled", "DISABLED", func(o auth.OperatorRecord) any { return o.Disabled }},
	{"token", "TOKEN", func(o auth.OperatorRecord) any { return o.TokenHash != "" }},
	{"password", "PASSWORD", func(o auth.OperatorRecord) any { return o.PasswordHash != "" }},
	{"lastUsed", "LAST USED", func(o auth.OperatorRecord) any { return when(o.Used) }},
}
