package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitPartly  = 3 // some devices failed
	exitTimeout = 4
)

// exitError is an error with an exit status of its own. Its message may be
// empty where the command has said everything.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// withStatus gives err, which may be nil, an exit status.
func withStatus(status int, err error) error { return &exitError{status: status, err: err} }

// usagef is an error of how a command was called.
func usagef(format string, args ...any) error {
	return withStatus(exitUsage, fmt.Errorf(format, args...))
}

// runError marks what a command's own function returned. Every other error is
// cobra's, and one of usage.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

func exitStatus(err error) int {
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.status
	}
	var ran runError
	if errors.As(err, &ran) {
		return exitFailed
	}
	return exitUsage
}

// tellUsageErrors marks the errors of every command's own function, so that
// those of cobra can be told from them.
func tellUsageErrors(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		tellUsageErrors(c)
	}
	if own := cmd.RunE; own != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := own(cmd, args); err != nil {
				return runError{err}
			}
			return nil
		}
	}
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var names []string
			for _, c := range cmd.Commands() {
				names = append(names, c.Name())
			}
			return usagef("name what to do: %s %s", cmd.CommandPath(), strings.Join(names, "|"))
		},
	}
	c.AddCommand(commands...)
	return c
}

// noSuchCommand is the Args of a command that takes only the names of others.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", strings.Join(near, ", "))
	}
	return usagef("unknown command %q for %q%s; see %s --help", args[0], cmd.CommandPath(), hint, cmd.CommandPath())
}
