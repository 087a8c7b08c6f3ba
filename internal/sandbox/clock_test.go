package sandbox

import (
	"testing"
	"testing/synctest"
	"time"
)

var newYear = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func passed(ch <-chan time.Time) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestClockStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock(newYear, 0)
		minute, again, hour := c.After(time.Minute), c.After(time.Minute), c.After(time.Hour)
		if minute != again {
			t.Error("two who wait for the same moment have two channels")
		}
		time.Sleep(24 * time.Hour)
		if !c.Now().Equal(newYear) || passed(minute) {
			t.Errorf("the clock went to %v by itself", c.Now())
		}
		c.AdvanceTo(newYear.Add(time.Minute - 1))
		if passed(minute) {
			t.Error("a minute has passed a nanosecond early")
		}
		c.AdvanceTo(newYear.Add(time.Minute))
		if !passed(minute) || passed(hour) {
			t.Errorf("after a minute: a minute has passed: %v, an hour: %v", passed(minute), passed(hour))
		}
		c.AdvanceTo(newYear)
		if got := c.Now(); !got.Equal(newYear.Add(time.Minute)) {
			t.Errorf("the clock went back to %v", got)
		}
		if !passed(c.After(-time.Second)) {
			t.Error("a time that is over has not passed")
		}
	})
}

func TestClockRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClock(newYear, 60)
		hour := c.After(time.Hour)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if passed(hour) {
			t.Error("an hour has passed in 59 s at 60 times the pace")
		}
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if !passed(hour) {
			t.Error("an hour has not passed in a minute at 60 times the pace")
		}
		late := c.After(time.Hour)
		c.SetRate(0)
		time.Sleep(time.Hour)
		synctest.Wait()
		if passed(late) {
			t.Error("time passed on a clock that was stopped")
		}
		c.Reset(newYear, 1)
		if !passed(late) || !c.Now().Equal(newYear) {
			t.Errorf("after a reset to %v it is %v, and those who waited go on: %v", newYear, c.Now(), passed(late))
		}
	})
}

func TestFaultsByChance(t *testing.T) {
	strikes := func(seed uint64) (n int) {
		f := newFate(seed)
		if _, err := f.Add(Fault{ID: "x", On: OnCarrier, Match: Match{Probability: 0.25}, Then: Effect{Do: Never}}); err != nil {
			t.Fatal(err)
		}
		for i := range 10_000 {
			if _, name := f.strike(event{on: OnCarrier, iccid: SIM(i + 1)}); name != "" {
				n++
			}
		}
		return n
	}
	if n := strikes(1); n < 2300 || n > 2700 {
		t.Errorf("a fault with probability 0.25 struck %d of 10,000", n)
	}
	if first, again := strikes(1), strikes(1); first != again {
		t.Errorf("the same seed struck %d devices, then %d", first, again)
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "anything/at all", true},
		{"POST *assign", "POST /api/m2m/v1/devices/license/actions/assign", true},
		{"POST *assign", "DELETE /api/m2m/v1/devices/license/actions/assign", false},
		{"8999900??0*", "8999900120000000001", true},
		{"8999900??0*", "8914800120000000001", false},
		{"[", "[", false},
	} {
		if got := like(c.pattern, c.text); got != c.want {
			t.Errorf("like(%q, %q) = %v", c.pattern, c.text, got)
		}
	}
}
