package main

import (
	"slices"

	"github.com/spf13/cobra"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "simlatch",
		Short: "A self-hosted license service for IoT SIMs",
		Long: `Simlatch assigns licenses to IoT SIMs. It is wire-compatible with the
ThingSpace "SIM-Secure for IoT" license API and independent of its vendor.

Commands that call a server use what 'simlatch login' stored, unless a flag or
an environment variable (SIMLATCH_SERVER, SIMLATCH_PROFILE, …) says otherwise.

The settings of simlatch serve, and --database and --secrets-key-file of every
command, can also be given as environment variables (--callback-interval is
SIMLATCH_CALLBACK_INTERVAL; lists are separated by commas) or in a YAML or JSON
file named by --config (callback-interval: 5m). A flag wins over the
environment, the environment over the file. Secrets can stand in a file of
their own, named by the variable with _FILE behind it.`,
		Example: `  simlatch demo
  simlatch serve --carrier simulated --seed seed.yaml
  simlatch login --server http://127.0.0.1:8080 --key demo-key --user demo
  simlatch verify --database sqlite:simlatch.db`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noSuchCommand,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fillFlags(cmd) },
	}
	root.PersistentFlags().String("config", "", "a YAML or JSON `file` with settings, named like the flags")
	addDatabaseFlags(root.PersistentFlags())
	root.AddCommand(commands()...)
	groupHelp(root)
	tellUsageErrors(root)
	return root
}

// helpGroups are the commands by whom they are for; others are for all.
var helpGroups = []struct {
	id, title string
	commands  []string
}{
	{
		"client", "Commands that call a server, Simlatch or another:",
		[]string{
			"login", "logout", "profile", "subscriptions", "devices", "plan", "apply", "assign", "unassign",
			"status", "callbacks", "listen", "bench", "conformance",
		},
	},
	{"server", "Commands that run a server:", []string{"serve", "demo", "sandbox", "migrate", "verify", "config", "dev-cert"}},
	{
		"operator", "Commands of an operator, on the database or (--server) a server:",
		[]string{
			"account", "pool", "device", "application", "user", "listener", "callback", "stuck", "carrier", "upstream",
			"policy", "operator", "audit",
		},
	},
}

// groupHelp sorts the root's commands into groups, and leaves what is about the
// database out of the help of commands that have none.
func groupHelp(root *cobra.Command) {
	help := root.HelpFunc()
	for _, g := range helpGroups {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, c := range root.Commands() {
			if !slices.Contains(g.commands, c.Name()) {
				continue
			}
			c.GroupID = g.id
			if g.id == "client" {
				c.SetHelpFunc(func(c *cobra.Command, args []string) {
					for _, name := range []string{"database", "secrets-key-file"} {
						c.InheritedFlags().Lookup(name).Hidden = true // they are the root's
					}
					help(c, args)
				})
			}
		}
	}
}
