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
		newSandboxCommand(),
		newMigrateCommand(),
		newVerifyCommand(),
		newBackupCommand(),
		newSecretsCommand(),
		newConfigCommand(),
		newVersionCommand(),
		newCompletionCommand(),
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
		newDoctorCommand(),
		newBenchCommand(),
		newConformanceCommand(),
		newDevCertCommand(),
		newAccountCommand(),
		newPoolCommand(),
		newDeviceCommand(),
		newApplicationCommand(),
		newUserCommand(),
		newListenerCommand(),
		newCallbackCommand(),
		newStuckCommand(),
		newCarrierCommand(),
		newUpstreamCommand(),
		newOperatorCommand(),
		newPolicyCommand(),
		newAuditCommand(),
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
