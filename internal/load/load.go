// Package load puts load on a server of the license API and watches what comes
// of it: devices to name in requests, a callback listener that counts each
// device exactly once, and the percentiles of what was measured. "simlatch
// bench" and "make bench" are made of it.
//
// A Sink is the listener. Every request is told to it before it is sent, since
// callbacks may overtake the answer:
//
//	batch := sink.Expect(iccids)
//	id, err := client.Assign(ctx, …)
//	batch.Answered(id)
//	<-batch.Done() // each device has had its callback
//	…
//	err = sink.Check() // nothing is missing, nothing came twice
package load

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// Fleet names SIMs by number, from 0: each has identifiers of its own, with the
// check digits that real ones have. Fleets of different marks, from 0 to 99,
// have no ICCID in common.
type Fleet struct{ Mark int }

// ICCID is that of SIM number i.
func (f Fleet) ICCID(i int) string { return checked(fmt.Sprintf("89148%02d%012d", f.Mark, i)) }

// IMEI is that of the device of SIM number i.
func (f Fleet) IMEI(i int) string { return checked(fmt.Sprintf("35%012d", i)) }

// Device is SIM number i as a request names it.
func (f Fleet) Device(i int) m2m.Device {
	return m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: f.IMEI(i), Kind: "imei"}, {ID: f.ICCID(i), Kind: "iccid"}}}
}

// checked puts the Luhn digit behind digits.
func checked(digits string) string {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return digits + strconv.Itoa((10-sum%10)%10)
}

// Percentiles of durations, in milliseconds.
type Percentiles struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50Ms"`
	P90   float64 `json:"p90Ms"`
	P99   float64 `json:"p99Ms"`
	P999  float64 `json:"p999Ms"`
	Max   float64 `json:"maxMs"`
}

// PercentilesOf sorts the list and reads its percentiles; those of nothing are
// zero.
func PercentilesOf(list []time.Duration) Percentiles {
	slices.Sort(list)
	return Percentiles{
		Count: len(list),
		P50:   at(list, 0.5), P90: at(list, 0.9), P99: at(list, 0.99), P999: at(list, 0.999), Max: at(list, 1),
	}
}

// at is the smallest value that a share of the sorted list does not exceed.
func at(list []time.Duration, share float64) float64 {
	if len(list) == 0 {
		return 0
	}
	i := int(share*float64(len(list))+0.999999) - 1
	return float64(list[min(max(i, 0), len(list)-1)].Microseconds()) / 1000
}
