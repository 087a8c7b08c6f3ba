package server

import (
	"net/http"
	"testing"
	"time"
)

// TestClockJumps has the clock go a day ahead and a day back while the carrier has
// the work of requests: each ends, once, and the ledger holds. What was put off by
// a clock that was ahead waits until that time; it goes on by itself when the clock
// is right again.
func TestClockJumps(t *testing.T) {
	onEachEngine(t, func(t *testing.T, cfg Config) {
		withFleet(t, &cfg, 60)
		clock := &nodeClock{}
		cfg.Clock, cfg.CarrierDelay = clock, 100*time.Millisecond
		r := startServer(t, cfg)
		const day = 24 * time.Hour
		for i, jumps := range [][]time.Duration{{}, {day}, {-day, day}, {day, -day}, {day, day}} {
			c := r.login(t) // sessions and tokens end by the clock, too
			listener := c.listen(nil)
			c.call(http.MethodPost, "/devices/license/actions/assign", licenseRequest("SIMSec-IoT", fleet(10*i, 10)...), http.StatusOK, nil)
			for _, jump := range jumps {
				clock.shift.Add(int64(jump))
			}
			listener.wait(t, 10)
			c = r.login(t)
			eventually(t, "the request is settled", func() bool { return c.pool("SIMSec-IoT").LicenseAssigned == int64(10*(i+1)) })
		}
		noDrift(t, r)
	})
}
