package carrier

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

func newSimulated(t *testing.T, cfg SimulatedConfig) *Simulated {
	t.Helper()
	c, err := NewSimulated(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSimulatedConformance(t *testing.T) {
	for _, rate := range []float64{0, 0.3, 1} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			testConformance(t, func(t *testing.T) Provisioner { return newSimulated(t, SimulatedConfig{RefuseRate: rate}) })
		})
	}
}

func TestNewSimulatedRefusesNonsense(t *testing.T) {
	for _, tt := range []struct {
		cfg  SimulatedConfig
		want string
	}{
		{SimulatedConfig{Delay: -time.Second}, "delay (-1s)"},
		{SimulatedConfig{RefuseRate: -0.1}, "refuse rate (-0.1)"},
		{SimulatedConfig{RefuseRate: 1.1}, "refuse rate (1.1)"},
		{SimulatedConfig{RefuseRate: math.NaN()}, "refuse rate (NaN)"},
	} {
		if _, err := NewSimulated(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("NewSimulated(%+v) = %v, want an error about the %s", tt.cfg, err, tt.want)
		}
	}
}

func TestSimulatedDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSimulated(t, SimulatedConfig{Delay: 3 * time.Second, RefuseRate: 0.5})
		at := time.Now()
		tasks := someTasks(10, license.Assign, at)
		for range 3 {
			out, err := c.Provision(t.Context(), tasks)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range out {
				if o.Verdict != license.Later || !o.Due.Equal(at.Add(3*time.Second)) {
					t.Fatalf("after %v: %v, due %v, want later, due %v", time.Since(at), o.Verdict, o.Due, at.Add(3*time.Second))
				}
			}
			<-time.After(999 * time.Millisecond)
		}
		<-time.After(3 * time.Millisecond)
		verdicts(t, c, tasks)
	})
}

// The SIMs that are refused are part of what users are promised: recordings and
// demonstrations rely on them.
func TestSimulatedRefusesTheSameSIMs(t *testing.T) {
	low, high := newSimulated(t, SimulatedConfig{RefuseRate: 0.02}), newSimulated(t, SimulatedConfig{RefuseRate: 0.1})
	tasks := someTasks(5000, license.Assign, time.Now())
	few, many := verdicts(t, low, tasks), verdicts(t, high, tasks)
	count := 0
	for key, v := range many {
		if v == license.Refused {
			count++
		} else if few[key] == license.Refused {
			t.Errorf("%s is refused at the lower rate only", key)
		}
	}
	if count < 400 || count > 600 {
		t.Errorf("%d of 5000 refused at a rate of 0.1, want about 500", count)
	}
	// echo -n assign/89148000000000000012 | sha256sum
	const fraction = 0.03859704953446396
	for rate, want := range map[float64]bool{fraction - 0.001: false, fraction + 0.001: true} {
		if got := newSimulated(t, SimulatedConfig{RefuseRate: rate}).refuses(license.Assign, "89148000000000000012"); got != want {
			t.Errorf("at a rate of %v the SIM is refused: %v, want %v", rate, got, want)
		}
	}
}

func TestSimulatedRefusal(t *testing.T) {
	out, err := newSimulated(t, SimulatedConfig{RefuseRate: 1}).Provision(t.Context(), someTasks(3, license.Unassign, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out {
		if o.Verdict != license.Refused || o.Comment != SimulatedRefusal || o.Code != "" {
			t.Errorf("refusal is %v, code %q, comment %q", o.Verdict, o.Code, o.Comment)
		}
	}
}

func TestSimulatedEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newSimulated(t, SimulatedConfig{}).Provision(ctx, someTasks(1, license.Assign, time.Now())); !errors.Is(err, context.Canceled) {
		t.Errorf("Provision with an ended context: %v, want context.Canceled", err)
	}
}
