package store_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// BenchmarkDevice is the store's whole work for one device, from acceptance to
// the delivered callback, in requests of some size: the unit is one device. What
// each of the three transactions takes of it is told as well.
func BenchmarkDevice(b *testing.B) {
	for _, e := range storetest.Engines(b) {
		for _, size := range []struct {
			name    string
			devices int
		}{{"1", 1}, {"100", 100}, {"10000", 10000}} {
			b.Run(e.Name+"/request="+size.name, func(b *testing.B) {
				s := e.NewDatabase(b).Open(b)
				sims := storetest.Seed(b, s, storetest.Fixture{
					SIMs:  max(b.N, size.devices),
					Pools: map[license.SKU]int64{license.SKUFlexible: 100_000_000},
				})
				now := storetest.Start()
				if err := s.PutListener(b.Context(), license.Listener{
					Account: storetest.Account,
					Service: license.CarrierService, URL: "https://example.com/",
				}, now); err != nil {
					b.Fatal(err)
				}
				var accept, settle, finish time.Duration
				b.ReportAllocs()
				b.ResetTimer()
				for len(sims) > 0 && b.N > 0 {
					n := min(size.devices, len(sims))
					r, err := license.NewRequest(license.NewRequestID(now, rand.Reader), storetest.Account,
						license.SKUFlexible, license.Assign, storetest.Devices(sims[:n]), now)
					if err != nil {
						b.Fatal(err)
					}
					sims = sims[n:]
					since := time.Now()
					a, err := s.Accept(b.Context(), license.AcceptParams{Request: r, Room: n, LeaseUntil: now.Add(time.Minute)})
					if err != nil {
						b.Fatal(err)
					}
					accept += time.Since(since)
					for tasks := a.Tasks; len(tasks) > 0; {
						k := min(500, len(tasks))
						since := time.Now()
						settled, err := s.SettleTasks(b.Context(), license.SettleParams{
							Now:      now,
							Outcomes: outcomes(tasks[:k], license.Done), LeaseUntil: now.Add(time.Minute),
							Room: map[license.AccountName]int{storetest.Account: k},
						})
						if err != nil {
							b.Fatal(err)
						}
						settle += time.Since(since)
						tasks = tasks[k:]
						ends := make([]license.Delivery, len(settled.Callbacks))
						for i, c := range settled.Callbacks {
							ends[i] = license.Delivery{Callback: c, Verdict: license.Delivered, Status: 200, At: now}
						}
						since = time.Now()
						if err := s.FinishCallbacks(b.Context(), now, ends); err != nil {
							b.Fatal(err)
						}
						finish += time.Since(since)
					}
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "devices/s")
				b.ReportMetric(float64(accept.Nanoseconds())/float64(b.N), "accept-ns/op")
				b.ReportMetric(float64(settle.Nanoseconds())/float64(b.N), "settle-ns/op")
				b.ReportMetric(float64(finish.Nanoseconds())/float64(b.N), "finish-ns/op")
			})
		}
	}
}

// BenchmarkImport imports SIMs; the unit is one.
func BenchmarkImport(b *testing.B) {
	for _, e := range storetest.Engines(b) {
		b.Run(e.Name, func(b *testing.B) {
			s := e.NewDatabase(b).Open(b)
			storetest.Seed(b, s, storetest.Fixture{SIMs: -1})
			b.ReportAllocs()
			b.ResetTimer()
			_, err := s.Import(b.Context(), func(yield func(license.SIM, error) bool) {
				for i := range b.N {
					if !yield(storetest.SIM(storetest.Account, i), nil) {
						return
					}
				}
			}, storetest.Start(), nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "SIMs/s")
		})
	}
}
