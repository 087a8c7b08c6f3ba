package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/bulk"
	"github.com/simlatch/simlatch/internal/license"
)

func newAssignCommand() *cobra.Command { return newActionCommand(license.Assign) }

func newUnassignCommand() *cobra.Command { return newActionCommand(license.Unassign) }

func newActionCommand(action license.Action) *cobra.Command {
	plan, apply := planOptions{action: action}, applyOptions{}
	what := map[license.Action]string{
		license.Assign: "Assign a license to devices", license.Unassign: "Take the license back from devices",
	}[action]
	cmd := &cobra.Command{
		Use:   string(action) + " --sku SKU (--file FILE | DEVICE…)",
		Short: what,
		Long: what + `: 'simlatch plan' and 'simlatch apply' in one, for those of a
file or a few that are named.

A DEVICE is an ICCID, an IMEI, or both with a comma between them. If one of them
would be refused nothing is sent, unless --skip-bad is given. A file is planned
and applied as those two commands do: the plan, its journal and the result stand
beside it, and after an interruption 'simlatch apply' goes on.` + onServer,
		Example: `  simlatch ` + string(action) + ` --sku SIMSec-IoT 89148000000000000012
  simlatch ` + string(action) + ` --sku SIMSec-IoT 490154203237518,89148000000000000012 --output json
  simlatch ` + string(action) + ` --sku SIMSec-IoT --file fleet.csv`,
		RunE: func(cmd *cobra.Command, args []string) error { return runAction(cmd, plan, apply, args) },
	}
	clientFlags(cmd)
	planFlags(cmd, &plan)
	applyFlags(cmd, &apply)
	_ = cmd.MarkFlagRequired("sku")
	return cmd
}

func runAction(cmd *cobra.Command, o planOptions, a applyOptions, args []string) (err error) {
	if (o.file == "") == (len(args) == 0) {
		return usagef("name the devices, or give --file")
	}
	if err := a.check(); err != nil {
		return err
	}
	path := o.planPath()
	var fleet *bulk.Fleet
	if o.file != "" {
		fleet, err = o.fleet(cmd.InOrStdin())
	} else {
		fleet = bulk.Devices(args)
		var dir string
		if dir, err = os.MkdirTemp("", "simlatch-"+string(o.action)+"-"); err == nil {
			path = filepath.Join(dir, string(o.action)+".plan")
			a.few = true
			defer func() { err = a.tidy(dir, err) }()
		}
	}
	if err != nil {
		return err
	}
	client, profile, err := clientOf(cmd)
	if err != nil {
		return err
	}
	p, err := o.make(cmd.Context(), client, &profile, fleet, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if p.OK() < len(p.Rows) {
		printBadRows(cmd.ErrOrStderr(), p)
	}
	if err := p.WriteFile(path); err != nil {
		return err
	}
	return a.apply(cmd, p, path)
}

// tidy removes the plan of a few devices and what stands beside it, unless there
// is something left to do with it.
func (o *applyOptions) tidy(dir string, err error) error {
	if o.unfinished {
		return err
	}
	return errors.Join(err, os.RemoveAll(dir))
}
