package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/server"
)

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print what this program was built of",
		Example: `  simlatch version --json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVersion(streamsOf(cmd), server.ReadBuild(), asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func runVersion(s streams, b server.Build, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(s.out).Encode(b)
	}
	line := "simlatch " + b.Version
	if b.Revision != "" {
		line += " " + b.Revision
		if b.Modified {
			line += " with changes"
		}
	}
	_, err := fmt.Fprintf(s.out, "%s, %s, %s\n", line, b.Go, b.Platform)
	return err
}
