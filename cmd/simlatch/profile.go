package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newProfileCommand() *cobra.Command {
	cmd := group("profile", "List, choose and remove stored profiles",
		newProfileListCommand(), newProfileUseCommand(), newProfileRemoveCommand())
	cmd.Long = `List, choose and remove stored profiles. 'simlatch login' makes them.

A profile says which server to call and as whom. Commands use the current one,
unless --profile or SIMLATCH_PROFILE names another.`
	return cmd
}

func newProfileListCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the stored profiles",
		Long: `List the stored profiles. Secrets are not shown; STORED says whether the profile
has both of them.`,
		Example: `  simlatch profile list
  simlatch profile list --output jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stored, err := readProfiles()
			if err != nil {
				return err
			}
			return writeList(cmd.OutOrStdout(), form, profileColumns(stored.current), stored.list)
		},
	}
	outputFlag(cmd, &form)
	return cmd
}

func profileColumns(current string) []column[clientProfile] {
	return []column[clientProfile]{
		{"profile", "PROFILE", func(p clientProfile) any { return p.name }},
		{"current", "CURRENT", func(p clientProfile) any { return p.name == current }},
		{"server", "SERVER", func(p clientProfile) any { return p.server }},
		{"account", "ACCOUNT", func(p clientProfile) any { return p.acct }},
		{"key", "KEY", func(p clientProfile) any { return p.key }},
		{"user", "USER", func(p clientProfile) any { return p.user }},
		{"stored", "STORED", func(p clientProfile) any { return p.secret != "" && p.password != "" }},
	}
}

func newProfileUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Make a profile the current one",
		Example:           `  simlatch profile use test`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeProfiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			stored, err := readProfiles()
			if err != nil {
				return err
			}
			p, found := stored.find(args[0])
			if !found {
				return noProfile(args[0])
			}
			stored.current = p.name
			if err := stored.store(); err != nil {
				return err
			}
			say(cmd.OutOrStdout(), "%s: %s as %s%s", p.name, p.server, p.user, ofAccount(p.acct))
			return nil
		},
	}
}

func newProfileRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "remove NAME",
		Short:             "Forget a profile and its secrets",
		Example:           `  simlatch profile remove test`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeProfiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			stored, err := readProfiles()
			if err != nil {
				return err
			}
			if !stored.remove(args[0]) {
				return noProfile(args[0])
			}
			if err := stored.store(); err != nil {
				return err
			}
			say(cmd.OutOrStdout(), "forgot profile %s", args[0])
			if stored.current == args[0] && len(stored.list) > 0 {
				say(cmd.ErrOrStderr(), "simlatch: it was the current one; 'simlatch profile use NAME' chooses another")
			}
			return nil
		},
	}
}

func noProfile(name string) error {
	return fmt.Errorf("there is no profile %s; 'simlatch profile list' lists those there are", name)
}

// completeProfiles completes the name of a profile as the only argument.
func completeProfiles(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return profileNames(), cobra.ShellCompDirectiveNoFileComp
}
