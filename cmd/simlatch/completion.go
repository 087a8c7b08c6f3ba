package main

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// shells are those that completion is made for.
var shells = []string{"bash", "zsh", "fish", "powershell"}

func newCompletionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print what has a shell complete commands, flags, SKUs and profiles",
		Long: `Print what has a shell complete commands, flags, the forms of lists, SKUs and the
names of stored profiles. The shell reads it at its start.`,
		Example: `  # bash, with the package bash-completion
  simlatch completion bash > /etc/bash_completion.d/simlatch

  # zsh, in a directory of $fpath
  simlatch completion zsh > "${fpath[1]}/_simlatch"

  # fish
  simlatch completion fish > ~/.config/fish/completions/simlatch.fish

  # PowerShell, in its profile
  simlatch completion powershell | Out-String | Invoke-Expression`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return usagef("name one shell: %s", strings.Join(shells, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			return map[string]func(io.Writer) error{
				"bash":       func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
				"zsh":        root.GenZshCompletion,
				"fish":       func(w io.Writer) error { return root.GenFishCompletion(w, true) },
				"powershell": root.GenPowerShellCompletionWithDesc,
			}[args[0]](out)
		},
	}
}
