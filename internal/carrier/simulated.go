// Package carrier holds the carriers that provision.Worker can call. Each of
// them keeps the promises of provision.Carrier, which the package's tests check
// for all of them alike.
package carrier

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// SimulatedConfig sets a Simulated up. The zero value does every action at once.
type SimulatedConfig struct {
	Clock license.Clock // nil: the machine's
	// Delay is how long after a request was accepted its outcomes come.
	Delay time.Duration
	// RefuseRate is the share of SIMs that are refused, from 0 to 1.
	RefuseRate float64
	// Refuses, when not nil, names SIMs that are refused beside those. It is
	// called by several goroutines at once.
	Refuses func(license.ICCID) bool
}

// Simulated is a carrier that licenses no SIM but says it did. It refuses a
// share of them, the same SIMs each time, and keeps nothing: what it says of a
// task follows from the task alone, and from SimulatedConfig.Refuses.
//
// A SIM is refused when the first eight bytes of the SHA-256 of
// "<action>/<ICCID>", as in "assign/89148000000000000012", read as a big-endian
// fraction of one, are less than RefuseRate. So a higher rate refuses the SIMs a
// lower one does, and others; and a SIM that can be assigned may still refuse to
// be unassigned.
type Simulated struct {
	cfg SimulatedConfig
}

// SimulatedRefusal is what a Simulated says of the SIMs it refuses.
const SimulatedRefusal = "REQUEST_FAILED: The simulated carrier refused this SIM."

// NewSimulated makes a Simulated. It fails when the delay is negative or the
// rate not from 0 to 1.
func NewSimulated(cfg SimulatedConfig) (*Simulated, error) {
	if cfg.Delay < 0 {
		return nil, fmt.Errorf("the simulated carrier's delay (%v) must not be negative", cfg.Delay)
	}
	if !(cfg.RefuseRate >= 0 && cfg.RefuseRate <= 1) { // so that NaN fails too
		return nil, fmt.Errorf("the simulated carrier's refuse rate (%v) must be from 0 to 1", cfg.RefuseRate)
	}
	if cfg.Clock == nil {
		cfg.Clock = license.SystemClock{}
	}
	return &Simulated{cfg: cfg}, nil
}

// Provision answers every task: later until its delay is over, then done or
// refused. It fails only when ctx has ended.
func (s *Simulated) Provision(ctx context.Context, tasks []license.Task) ([]license.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("asking the simulated carrier: %w", err)
	}
	now := s.cfg.Clock.Now()
	out := make([]license.Outcome, len(tasks))
	for i := range tasks {
		out[i].Task = tasks[i]
		due := tasks[i].At.Add(s.cfg.Delay)
		switch {
		case s.cfg.Delay > 0 && now.Before(due):
			out[i].Verdict, out[i].Due = license.Later, due
		case s.refuses(tasks[i].Action, tasks[i].Device.ICCID):
			out[i].Verdict, out[i].Comment = license.Refused, SimulatedRefusal
		default:
			out[i].Verdict = license.Done
		}
	}
	return out, nil
}

// refuses tells which SIMs are refused which action.
func (s *Simulated) refuses(action license.Action, id license.ICCID) bool {
	if s.cfg.Refuses != nil && s.cfg.Refuses(id) {
		return true
	}
	if s.cfg.RefuseRate == 0 {
		return false
	}
	text := append(make([]byte, 0, 64), action...)
	text = append(append(text, '/'), id...)
	sum := sha256.Sum256(text)
	const bits = 53 // of a float64, so that the fraction is exact and below 1
	fraction := float64(binary.BigEndian.Uint64(sum[:8])>>(64-bits)) / (1 << bits)
	return fraction < s.cfg.RefuseRate
}
