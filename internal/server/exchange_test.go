package server

import (
	"context"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/exchange"
	"github.com/simlatch/simlatch/internal/license"
)

// answering is a carrier that answers as the exchanges want it to.
type answering map[string]exchange.CarrierAnswer // by action and ICCID

func (a answering) Provision(_ context.Context, tasks []license.Task) ([]license.Outcome, error) {
	outcomes := make([]license.Outcome, len(tasks))
	for i, task := range tasks {
		outcomes[i] = license.Outcome{Task: task, Verdict: license.Done}
		switch answer, ok := a[string(task.Action)+string(task.Device.ICCID)]; {
		case !ok:
		case answer.Silent:
			outcomes[i].Verdict, outcomes[i].Due = license.Later, time.Now().Add(time.Hour)
		default:
			outcomes[i].Verdict, outcomes[i].Comment = license.Refused, answer.Comment
			if answer.Code == exchange.AlreadyLicensed {
				outcomes[i].Code = license.CodeAlreadyLicensed
			}
		}
	}
	return outcomes, nil
}

// TestExchanges holds the server against every recorded exchange.
func TestExchanges(t *testing.T) {
	vars, err := exchange.Variables(exchange.Seed())
	if err != nil {
		t.Fatal(err)
	}
	exchanges, err := exchange.Load()
	if err != nil {
		t.Fatal(err)
	}
	carrier := answering{}
	for _, a := range exchange.CarrierAnswers(vars) {
		carrier[a.Action+a.ICCID] = a
	}
	onEachEngine(t, func(t *testing.T, cfg Config) {
		cfg.Seed = writeFile(t, t.TempDir(), "seed.yaml", string(exchange.Seed()))
		cfg.Carrier, cfg.Provisioner = "exchanges", carrier
		cfg.CallbackInterval = 100 * time.Millisecond
		r := startServer(t, cfg)
		runner, err := exchange.NewRunner(exchange.Config{URL: r.URL(), Vars: vars, Offers: exchange.Needs(), Patience: patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := runner.Close(); err != nil {
				t.Error(err)
			}
		})
		for _, x := range exchanges {
			t.Run(x.Name, func(t *testing.T) {
				if result := runner.Run(t.Context(), x); !result.OK() {
					t.Error(result)
				}
			})
		}
		noDrift(t, r)
	})
}
