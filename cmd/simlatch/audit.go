package main

import (
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// commandActor is who the commands on the database are audited as: the user of
// the machine who runs them, as themselves or by sudo.
func commandActor() license.Actor {
	who := license.Actor{Name: os.Getenv("SUDO_USER"), Via: license.ViaCLI}
	if u, err := user.Current(); who.Name == "" && err == nil {
		who.Name = u.Username
	}
	if who.Name == "" {
		who.Name = "unknown"
	}
	who.From, _ = os.Hostname() // empty where it is unknown
	return who
}

func newAuditCommand() *cobra.Command {
	cmd := group("audit", "Show who changed what, when and from where", newAuditListCommand(), newAuditExportCommand())
	cmd.Long = `Show who changed what, when and from where, with the state before and after.

Every change by an operator, a command or the service itself is written down with
the change, and a second later sealed into a chain of hashes: an entry that is
changed, removed or inserted afterwards is found by 'simlatch verify --audit'.
What clients assign and unassign stands in their requests, not here.` + onDatabase
	return cmd
}

type auditListOptions struct {
	account, since, form string
	filter               store.AuditFilter
}

func newAuditListCommand() *cobra.Command {
	var o auditListOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List entries of the audit, the newest first",
		Example: `  simlatch audit list
  simlatch audit list --account 0000123456-00001 --action pool --since 2026-11-01T00:00:00Z
  simlatch audit list --who olga --since 48h --limit 1000 --output csv`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runAuditList(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.account, "account", "", "only what concerns this account, by `name`")
	f.StringVar(&o.filter.Who, "who", "", "only what this operator, user or command did, by `name`")
	f.StringVar(&o.filter.Action, "action", "", "only this `deed`, such as pool.purchase, or all on one kind of thing: pool")
	f.StringVar(&o.filter.Target, "target", "", "only what was done to this `thing`: a SKU, an ICCID, a name")
	f.StringVar(&o.since, "since", "", "only from this `time` on, or since so long ago, such as 48h")
	f.IntVar(&o.filter.Limit, "limit", 100, "at most so `many` entries")
	outputFlag(cmd, &o.form)
	return cmd
}

func runAuditList(cmd *cobra.Command, o auditListOptions) error {
	if o.filter.Limit < 1 {
		return usagef("--limit %d: at least 1", o.filter.Limit)
	}
	since, err := parseMoment("since", o.since, time.Now())
	if err != nil {
		return err
	}
	o.filter.Since = since
	return withStore(cmd, func(s *store.Store) error {
		if o.account != "" {
			account, err := findAccount(cmd, s, o.account)
			if err != nil {
				return err
			}
			o.filter.Account = account
		}
		entries, err := s.Audit(cmd.Context(), o.filter)
		if err != nil {
			return err
		}
		return writeList(cmd.OutOrStdout(), o.form, auditColumns, entries)
	})
}

func newAuditExportCommand() *cobra.Command {
	var after int64
	var sealed bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the whole audit as JSON lines, in the order of the chain",
		Long: `Print the whole audit as JSON lines, in the order of the chain, each entry with
its number and hash. Entries that are not sealed yet come last, without; --sealed
leaves them out. With --after the export goes on where another ended.`,
		Example: `  simlatch audit export >audit.jsonl
  simlatch audit export --sealed --after 1204 >>audit.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, func(s *store.Store) error { return runAuditExport(cmd, s, after, sealed) })
		},
	}
	cmd.Flags().Int64Var(&after, "after", 0, "begin after the entry with this `number`")
	cmd.Flags().BoolVar(&sealed, "sealed", false, "leave out what is not sealed yet")
	return cmd
}

func runAuditExport(cmd *cobra.Command, s *store.Store, after int64, sealed bool) error {
	const page = 1000
	out, err := newLister(cmd.OutOrStdout(), formJSONL, auditColumns)
	if err != nil {
		return err
	}
	put := func(entries []license.AuditEntry) error {
		for _, e := range entries {
			if err := out.put(e); err != nil {
				return err
			}
			after = e.Number
		}
		return nil
	}
	for {
		entries, err := s.SealedAfter(cmd.Context(), after, page)
		if err == nil {
			err = put(entries)
		}
		if err != nil {
			return err
		}
		if len(entries) < page {
			break
		}
	}
	if sealed {
		return nil
	}
	// They become sealed meanwhile, so all at once.
	entries, err := s.Unsealed(cmd.Context(), 1_000_000)
	if err != nil {
		return err
	}
	return put(entries)
}

// rawJSON is JSON that is printed as it is.
type rawJSON string

// MarshalJSON is the JSON itself.
func (j rawJSON) MarshalJSON() ([]byte, error) { return []byte(j), nil }

// stateOf is the state before or after a change; nil where nothing is told of it.
func stateOf(text string) any {
	if text == "" {
		return nil
	}
	return rawJSON(text)
}

var auditColumns = []column[license.AuditEntry]{
	{"number", "NUMBER", func(e license.AuditEntry) any {
		if e.Number == 0 {
			return nil
		}
		return e.Number
	}},
	{"time", "TIME", func(e license.AuditEntry) any { return e.At.Format("2006-01-02T15:04:05.000000Z07:00") }},
	{"who", "WHO", func(e license.AuditEntry) any { return e.Name }},
	{"via", "VIA", func(e license.AuditEntry) any { return e.Via }},
	{"from", "FROM", func(e license.AuditEntry) any { return e.From }},
	{"action", "ACTION", func(e license.AuditEntry) any { return e.Action }},
	{"account", "ACCOUNT", func(e license.AuditEntry) any { return e.Account }},
	{"target", "TARGET", func(e license.AuditEntry) any { return e.Target }},
	{"before", "BEFORE", func(e license.AuditEntry) any { return stateOf(e.Before) }},
	{"after", "AFTER", func(e license.AuditEntry) any { return stateOf(e.After) }},
	{"id", "ID", func(e license.AuditEntry) any { return e.ID }},
	{"hash", "HASH", func(e license.AuditEntry) any { return e.Hash }},
}
