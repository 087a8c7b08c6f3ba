// Command simlatch is a self-hosted license service for IoT SIMs: the server,
// the operator's commands and a client, in one binary.
//
// This file is the list of commands. Each other file holds one of them: it
// reads flags and calls a function that takes a context, the streams and a
// small struct.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}

// streams are where a command reads and writes: results to out, everything
// else to err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func streamsOf(cmd *cobra.Command) streams {
	return streams{in: cmd.InOrStdin(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr()}
}

// commands is the table of commands.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newServeCommand(),
		newDemoCommand(),
		newMigrateCommand(),
		newVerifyCommand(),
		newConfigCommand(),
		newVersionCommand(),
		newLoginCommand(),
		newLogoutCommand(),
		newProfileCommand(),
		newSubscriptionsCommand(),
		newPlanCommand(),
		newApplyCommand(),
		newAssignCommand(),
		newUnassignCommand(),
		newStatusCommand(),
		newDevicesCommand(),
		newCallbacksCommand(),
		newListenCommand(),
		newBenchCommand(),
		newDevCertCommand(),
		newAccountCommand(),
		newPoolCommand(),
		newDeviceCommand(),
		newApplicationCommand(),
		newUserCommand(),
		newListenerCommand(),
		newCallbackCommand(),
		newStuckCommand(),
	}
}

// run runs the command that args name and returns its exit status. A first
// SIGINT or SIGTERM ends the command's context, a second one the process.
func run(args []string, s streams) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root := newRoot()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if err.Error() != "" {
		_, _ = fmt.Fprintf(s.err, "simlatch: %v\n", err)
	}
	return exitStatus(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "simlatch",
		Short: "A self-hosted license service for IoT SIMs",
		Long: `Simlatch assigns licenses to IoT SIMs. It is wire-compatible with the
ThingSpace "SIM-Secure for IoT" license API and independent of its vendor.

The settings of simlatch serve, and --database and --secrets-key-file of every
command, can also be given as environment variables (--callback-interval is
SIMLATCH_CALLBACK_INTERVAL; lists are separated by commas) or in a YAML or JSON
file named by --config (callback-interval: 5m). A flag wins over the
environment, the environment over the file. Secrets can stand in a file of
their own, named by the variable with _FILE behind it.`,
		Example: `  simlatch demo
  simlatch serve --carrier simulated --seed seed.yaml
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
	tellUsageErrors(root)
	return root
}
