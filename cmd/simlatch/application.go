package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/auth"
)

func newApplicationCommand() *cobra.Command {
	cmd := group("application", "Add and list applications, and rotate their secrets",
		newApplicationAddCommand(), newApplicationRotateCommand(), newApplicationEndOldSecretCommand(), newApplicationUnlockCommand(), newApplicationListCommand())
	booksFlags(cmd)
	cmd.Long = `Add and list applications, and rotate their secrets.

An application is a program that calls the API: its key and secret buy the bearer
token that every call needs. A person's (or program's) user name and password
open the session that every call needs as well: see 'simlatch user'.` + onBooks
	return cmd
}

// showSecret is how application add and rotate print a credential: on standard
// output, since it is their result, and only there and then.
const showSecret = `key     %s
secret  %s
`

// newSecret makes a key or secret of the form the platform's have: 36
// characters, for which some clients have fixed room (thingspace-api.md 4.1).
// 122 of its bits are random.
func newSecret() string { return uuid.NewString() }

// secretFile is the --secret-file flag of the commands that set a secret.
func secretFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "secret-file", "", "take the secret from this `file` (- for standard input) instead of making one")
}

// minSecret is the shortest secret that is taken: it is stored under a fast
// hash, which only a random secret can bear.
const minSecret = 16

// chooseSecret reads the secret of --secret-file, or makes one.
func chooseSecret(cmd *cobra.Command, file string) (secret auth.Secret, made bool, err error) {
	if file == "" {
		return auth.Secret(newSecret()), true, nil
	}
	from := secretSource{what: "secret", file: file, flag: "secret-file"}
	secret, err = from.read(cmd.InOrStdin(), cmd.ErrOrStderr())
	if err == nil && len(secret) < minSecret {
		err = fmt.Errorf("the secret has %d characters; it needs at least %d, and should be random", len(secret), minSecret)
	}
	return secret, false, err
}

// checkName refuses names of applications and users that could not be told
// apart from others, or not be sent.
func checkName(what, name string) error {
	switch {
	case name == "" || len(name) > 128:
		return usagef("the %s must have 1 to 128 characters", what)
	case strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return usagef("the %s %q has a space or control character", what, name)
	}
	return nil
}

func newApplicationAddCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "add [KEY]",
		Short: "Add an application and print its secret, once",
		Long: `Add an application and print its key and secret.

The key is made up when none is given. The secret is shown this once and stored
as a hash: one that was lost is replaced with 'simlatch application rotate'.` + onBooks,
		Example: `  simlatch application add
  simlatch application add billing --secret-file secret.txt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key := newSecret()
			if len(args) == 1 {
				key = args[0]
			}
			if err := checkApplicationKey(key); err != nil {
				return err
			}
			return setApplication(cmd, key, file, func(s books, secret auth.Secret) error {
				return exists(s.NewApplication(cmd.Context(), key, secret),
					"there is an application %s already; 'simlatch application rotate %s' gives it a new secret", key, key)
			})
		},
	}
	secretFileFlag(cmd, &file)
	return cmd
}

// checkApplicationKey refuses keys that HTTP Basic authentication cannot carry:
// it separates key and secret with a colon.
func checkApplicationKey(key string) error {
	if strings.Contains(key, ":") {
		return usagef("the key %q has a colon, which separates the key from the secret when they are sent", key)
	}
	return checkName("key", key)
}

func newApplicationRotateCommand() *cobra.Command {
	var file string
	var overlap time.Duration
	cmd := &cobra.Command{
		Use:   "rotate KEY",
		Short: "Give an application a new secret and print it, once",
		Long: `Give an application a new secret and print it, once.

The old secret stops working at once, and the token bought with it within a
second: what you want where it has leaked. To rotate without an interruption,
let both work for a while with --overlap, give the new one to every program, and
end the old one with 'simlatch application end-old-secret', or let it end. At
most two work: rotating again during an overlap ends the oldest.` + onBooks,
		Example: `  simlatch application rotate billing
  simlatch application rotate billing --overlap 24h`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if overlap < 0 || overlap > auth.MaxOverlap {
				return usagef("--overlap must be from 0 to %s", auth.MaxOverlap)
			}
			return setApplication(cmd, args[0], file, func(s books, secret auth.Secret) error {
				until, err := s.NewSecret(cmd.Context(), args[0], secret, overlap)
				if err == nil && !until.IsZero() {
					fmt.Fprintf(cmd.ErrOrStderr(), "simlatch: the old secret works as well until %s\n", until.UTC().Format(time.RFC3339))
				}
				return missing(err, "there is no application %s", args[0])
			})
		},
	}
	secretFileFlag(cmd, &file)
	cmd.Flags().DurationVar(&overlap, "overlap", 0, "let the old secret work as well for so long, at most 720h")
	return cmd
}

func newApplicationEndOldSecretCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "end-old-secret KEY",
		Short: "End an application's old secret before its overlap is over",
		Long: `End an application's old secret before the overlap it was rotated with is over.
The token bought with it ends within a second.` + onBooks,
		Example: `  simlatch application end-old-secret billing`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBooks(cmd, func(s books) error {
				return missing(s.EndOldSecret(cmd.Context(), args[0]), "there is no application %s, or it has no old secret", args[0])
			})
		},
	}
}

// setApplication stores a secret by set, and then shows the secret
// if it was made up here.
func setApplication(cmd *cobra.Command, key, file string, set func(s books, secret auth.Secret) error) error {
	secret, made, err := chooseSecret(cmd, file)
	if err != nil {
		return err
	}
	return withBooks(cmd, func(s books) error {
		if err := set(s, secret); err != nil {
			return err
		}
		if !made {
			fmt.Fprintf(cmd.OutOrStdout(), "key     %s\n", key)
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), showSecret, key, string(secret))
		fmt.Fprintln(cmd.ErrOrStderr(), "simlatch: keep the secret now: it is not shown again")
		return nil
	})
}

func newApplicationUnlockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock KEY",
		Short: "Forget the failed tries of an application's key",
		Long: `Forget the failed tries of an application's key, so that the next one is checked
at once. Under 'simlatch serve --login-lock reference' this is how a locked
application gets in again.` + onBooks,
		Example: `  simlatch application unlock billing`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBooks(cmd, func(s books) error {
				return missing(s.UnlockApplication(cmd.Context(), args[0]), "there is no application %s", args[0])
			})
		},
	}
}

func newApplicationListCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the applications",
		Example: `  simlatch application list --output jsonl`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBooks(cmd, func(s books) error {
				applications, err := s.Applications(cmd.Context())
				if err != nil {
					return err
				}
				return writeList(cmd.OutOrStdout(), form, applicationColumns, applications)
			})
		},
	}
	outputFlag(cmd, &form)
	return cmd
}

var applicationColumns = []column[auth.Application]{
	{"key", "KEY", func(a auth.Application) any { return a.Key }},
	{"disabled", "DISABLED", func(a auth.Application) any { return a.Disabled }},
	{"tokenIssued", "TOKEN ISSUED", func(a auth.Application) any { return when(a.Issued) }},
	{"oldSecretUntil", "OLD SECRET UNTIL", func(a auth.Application) any { return when(a.OldUntil) }},
}

// when is a time in a list; nil where there is none.
func when(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}
