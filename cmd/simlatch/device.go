package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
)

func newDeviceCommand() *cobra.Command {
	cmd := group("device", "Import and list devices, and set their state",
		newDeviceImportCommand(), newDeviceListCommand(), newDeviceSetStateCommand())
	booksFlags(cmd)
	cmd.Long = `Import and list devices, and set their state.

A device is an IMEI with the SIM (ICCID) in it. Only devices that are active and
4G can be assigned a license.` + onBooks
	return cmd
}

func newDeviceImportCommand() *cobra.Command {
	var account string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Import devices from a CSV file, all or nothing",
		Long: `Import devices from a CSV file, all or nothing. - is standard input.

The first line names the columns, in any order: iccid and imei must be there;
account must be there too, unless --account names one for the lines without;
mdn, state (active), generation (4G) and imsi may be. A bad line is named with
its number and nothing is imported. A device that is there already with the same
identifiers is left as it is, so a file can be imported again.` + onBooks,
		Example: `  simlatch device import fleet.csv --account 0000123456-00001
  zcat fleet.csv.gz | simlatch device import -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runDeviceImport(cmd, args[0], account) },
	}
	cmd.Flags().StringVar(&account, "account", "", "account `name` of lines that name none")
	return cmd
}

func runDeviceImport(cmd *cobra.Command, path, account string) error {
	messages := cmd.ErrOrStderr()
	in, name := cmd.InOrStdin(), "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		in, name = f, path
	}
	return withBooks(cmd, func(s books) error {
		file := deviceFile{in: in, name: name, warn: importWarnings(messages)}
		if account != "" {
			a, err := findAccount(cmd, s, account)
			if err != nil {
				return err
			}
			file.account = a
		}
		last := time.Now()
		file.progress = func(n int) {
			if now := time.Now(); now.Sub(last) >= 5*time.Second {
				last = now
				fmt.Fprintf(messages, "simlatch: %d devices read\n", n)
			}
		}
		result, err := s.ImportFile(cmd.Context(), file)
		if err != nil {
			return fmt.Errorf("nothing was imported: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d added, %d unchanged\n", result.Added, result.Unchanged)
		return nil
	})
}

// importWarnings prints the first few warnings of an import: a whole inventory
// with wrong check digits would bury everything else.
func importWarnings(w io.Writer) func(string) {
	const most = 20
	n := 0
	return func(warning string) {
		switch n++; {
		case n <= most:
			fmt.Fprintf(w, "simlatch: warning: %s\n", warning)
		case n == most+1:
			fmt.Fprintln(w, "simlatch: more warnings are not shown")
		}
	}
}

type deviceListOptions struct {
	accounts         []string
	iccid, imei, mdn string
	state, form      string
	limit            int
}

func newDeviceListCommand() *cobra.Command {
	var o deviceListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List devices with the license each holds",
		Long: `List devices with the license each holds or awaits, in the order they were
imported.`,
		Example: `  simlatch device list --limit 0 --output csv > fleet.csv
  simlatch device list --iccid 89148000000000000012
  simlatch device list --account 0000123456-00001 --state suspend`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDeviceList(cmd, o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.accounts, "account", nil, "only this account, by `name` (repeatable)")
	f.StringVar(&o.iccid, "iccid", "", "only the device with this `ICCID`")
	f.StringVar(&o.imei, "imei", "", "only the device with this `IMEI`")
	f.StringVar(&o.mdn, "mdn", "", "only the device with this `MDN`")
	f.StringVar(&o.state, "state", "", "only devices in this `state`: active, suspend, deactive, pre-active")
	f.IntVar(&o.limit, "limit", 100, "at most this many; 0 for all")
	outputFlag(cmd, &o.form)
	return cmd
}

// filter is what the options select, but for the accounts.
func (o deviceListOptions) filter() (license.DeviceFilter, error) {
	var f license.DeviceFilter
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	var err error
	if o.iccid != "" {
		f.Device.ICCID, err = license.ParseICCID(o.iccid)
		note(err)
	}
	if o.imei != "" {
		f.Device.IMEI, err = license.ParseIMEI(o.imei)
		note(err)
	}
	if o.mdn != "" {
		f.Device.MDN, err = license.ParseMDN(o.mdn)
		note(err)
	}
	if o.state != "" {
		f.State, err = license.ParseState(o.state)
		note(err)
	}
	if o.limit < 0 {
		note(usagef("--limit %d: it must not be negative", o.limit))
	}
	return f, errors.Join(errs...)
}

// devicePage is how many devices are read at a time.
const devicePage = 2000

func runDeviceList(cmd *cobra.Command, o deviceListOptions) error {
	filter, err := o.filter()
	if err != nil {
		return err
	}
	list, err := newLister(cmd.OutOrStdout(), o.form, deviceColumns)
	if err != nil {
		return err
	}
	return withBooks(cmd, func(s books) error {
		if filter.Accounts, err = findAccounts(cmd, s, o.accounts, true); err != nil {
			return err
		}
		if len(filter.Accounts) == 0 {
			return list.end()
		}
		more, err := listDevices(cmd.Context(), s, filter, o.limit, list)
		if err != nil {
			return err
		}
		if more {
			fmt.Fprintf(cmd.ErrOrStderr(), "simlatch: there are more; --limit 0 lists all\n")
		}
		return list.end()
	})
}

// listDevices lists devices, up to limit unless that is 0, and reports whether
// there were more.
func listDevices(ctx context.Context, s books, filter license.DeviceFilter, limit int, list *lister[license.SIM]) (more bool, err error) {
	n := 0
	for sim, err := range s.EachDevice(ctx, filter) {
		if err != nil {
			return false, err
		}
		if limit > 0 && n == limit {
			return true, nil
		}
		if err := list.put(sim); err != nil {
			return false, err
		}
		n++
	}
	return false, nil
}

var deviceColumns = []column[license.SIM]{
	{"account", "ACCOUNT", func(s license.SIM) any { return s.Account }},
	{"iccid", "ICCID", func(s license.SIM) any { return s.Device.ICCID }},
	{"imei", "IMEI", func(s license.SIM) any { return s.Device.IMEI }},
	{"mdn", "MDN", func(s license.SIM) any { return s.Device.MDN }},
	{"state", "STATE", func(s license.SIM) any { return s.State }},
	{"generation", "GENERATION", func(s license.SIM) any { return s.Generation }},
	{"imsi", "IMSI", func(s license.SIM) any { return s.IMSI }},
	{"sku", "LICENSE", func(s license.SIM) any { return s.SKU }},
}

func newDeviceSetStateCommand() *cobra.Command {
	var account, state, file string
	cmd := &cobra.Command{
		Use:   "set-state --account NAME --state STATE ICCID…",
		Short: "Set the state of devices",
		Long: `Set the state of devices: active, suspend, deactive or pre-active.

A device keeps the license it holds in any state; only an active one can be
assigned one. If one of the ICCIDs is unknown nothing is changed.` + onBooks,
		Example: `  simlatch device set-state --account 0000123456-00001 --state suspend 89148000000000000012
  simlatch device set-state --account 0000123456-00001 --state active --file iccids.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDeviceSetState(cmd, account, state, file, args)
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "the account's `name`")
	cmd.Flags().StringVar(&state, "state", "", "the new `state`")
	cmd.Flags().StringVar(&file, "file", "", "`file` with one ICCID a line; - is standard input")
	_ = cmd.MarkFlagRequired("account")
	_ = cmd.MarkFlagRequired("state")
	return cmd
}

func runDeviceSetState(cmd *cobra.Command, account, stateText, file string, args []string) error {
	state, err := license.ParseState(stateText)
	if err != nil {
		return err
	}
	if file != "" {
		lines, err := readLines(cmd.InOrStdin(), file)
		if err != nil {
			return err
		}
		args = append(args, lines...)
	}
	if len(args) == 0 {
		return usagef("no ICCID: name some, or give --file")
	}
	var iccids []license.ICCID
	for _, arg := range args {
		id, err := license.ParseICCID(arg)
		if err != nil {
			return err
		}
		iccids = append(iccids, id)
	}
	return withBooks(cmd, func(s books) error {
		a, err := findAccount(cmd, s, account)
		if err != nil {
			return err
		}
		changed, err := s.SetState(cmd.Context(), a, iccids, state)
		if err != nil {
			return fmt.Errorf("nothing was changed: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d changed to %s\n", changed, state)
		return nil
	})
}

// readLines reads the lines of a file that are not blank; - is in.
func readLines(in io.Reader, path string) ([]string, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	var lines []string
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" {
			lines = append(lines, line)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return lines, nil
}
