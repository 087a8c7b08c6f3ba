package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/server"
	"github.com/simlatch/simlatch/internal/store"
)

func newCarrierCommand() *cobra.Command {
	cmd := group("carrier", "Check a provisioning system, and list its strange outcomes",
		newCarrierCheckCommand(), newCarrierStrangeCommand())
	cmd.Long = `Check a provisioning system that speaks the carrier's protocol, and list the
outcomes that it brought by itself and that cannot be true. docs/carriers.md says
how a carrier is chosen and what one must do.`
	return cmd
}

// addCarrierFlags adds how a carrier is called, which serve and carrier check
// share.
func addCarrierFlags(f *pflag.FlagSet) {
	own := pflag.NewFlagSet("carrier", pflag.ContinueOnError)
	own.String("carrier-token", "", "bearer `token` for the carrier; better in SIMLATCH_CARRIER_TOKEN_FILE")
	own.String("carrier-secret", "", "`secret` in base64 that signs calls of the carrier, and its own calls here; better in SIMLATCH_CARRIER_SECRET_FILE")
	own.String("carrier-cert", "", "certificate for the carrier (mutual TLS), a PEM `file`, read again when it changes")
	own.String("carrier-key", "", "the certificate's key, a PEM `file`")
	own.String("carrier-ca", "", "authorities who say who the carrier is, a PEM `file` (default those of the machine)")
	own.VisitAll(func(flag *pflag.Flag) { markSetting(own, flag.Name) })
	markSecret(own, "carrier-token")
	markSecret(own, "carrier-secret")
	f.AddFlagSet(own)
}

// setCarrier reads the flags of addCarrierFlags.
func setCarrier(cfg *server.Config, f *pflag.FlagSet) {
	text := func(name string) string { v, _ := f.GetString("carrier-" + name); return v }
	cfg.CarrierToken, cfg.CarrierSecret = auth.Secret(text("token")), auth.Secret(text("secret"))
	cfg.CarrierCert, cfg.CarrierKey, cfg.CarrierCA = text("cert"), text("key"), text("ca")
}

func newCarrierStrangeCommand() *cobra.Command {
	var form string
	var names []string
	cmd := &cobra.Command{
		Use:   "strange",
		Short: "List outcomes that the carrier brought by itself and that cannot be true",
		Long: `List outcomes that the carrier brought by itself and that cannot be true: they
contradict what stands, name a task that there is not, or come long after their
request was purged. They changed nothing. Each is one line, however often it was
said, until the retention is over.

A contradiction means that somebody is wrong: the carrier, or whoever resolved a
stuck task. Ask what became of the SIM; where a license is held that is not real,
unassign it or have the carrier make it real.` + onDatabase,
		Example: `  simlatch carrier strange --output csv`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStore(cmd, func(s *store.Store) error {
				accounts, err := findAccounts(cmd, s, names, true)
				if err != nil {
					return err
				}
				var list []license.StrangeOutcome
				for _, a := range accounts {
					of, err := s.StrangeOutcomes(cmd.Context(), a)
					if err != nil {
						return err
					}
					list = append(list, of...)
				}
				return writeList(cmd.OutOrStdout(), form, strangeColumns, list)
			})
		},
	}
	cmd.Flags().StringArrayVar(&names, "account", nil, "only this account, by `name` (repeatable)")
	outputFlag(cmd, &form)
	return cmd
}

var strangeColumns = []column[license.StrangeOutcome]{
	{"account", "ACCOUNT", func(o license.StrangeOutcome) any { return o.Account }},
	{"request", "REQUEST", func(o license.StrangeOutcome) any { return o.Request }},
	{"iccid", "ICCID", func(o license.StrangeOutcome) any { return o.ICCID }},
	{"outcome", "OUTCOME", func(o license.StrangeOutcome) any { return o.Verdict }},
	{"result", "RESULT", func(o license.StrangeOutcome) any { return o.Result }},
	{"times", "TIMES", func(o license.StrangeOutcome) any { return o.Times }},
	{"last", "LAST", func(o license.StrangeOutcome) any { return when(o.Last) }},
	{"text", "TEXT", func(o license.StrangeOutcome) any { return o.Comment }},
}
