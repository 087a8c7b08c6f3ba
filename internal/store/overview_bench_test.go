package store_test

import (
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// BenchmarkOverview looks at an installation with a million SIMs and a million
// tasks of the last hours (-short: ten thousand): of few large requests, and of many
// small ones.
func BenchmarkOverview(b *testing.B) {
	sims := 1_000_000
	if testing.Short() {
		sims = 10_000
	}
	for _, e := range storetest.Engines(b) {
		for name, devices := range map[string]int{"large": 10_000, "small": 10} {
			s, now := e.NewDatabase(b).Open(b), storetest.Start()
			fill(b, s, sims, devices, now)
			b.Run(e.Name+"/requests="+name, func(b *testing.B) {
				for b.Loop() {
					o, err := s.Overview(b.Context(), now)
					if err != nil || len(o.Pools) == 0 {
						b.Fatal(o, err)
					}
				}
			})
		}
	}
}

// fill has so many SIMs assigned licenses, in requests of so many devices.
func fill(b *testing.B, s *store.Store, sims, devices int, now time.Time) {
	b.Helper()
	list := storetest.Seed(b, s, storetest.Fixture{SIMs: sims, Pools: map[license.SKU]int64{license.SKUFlexible: int64(sims)}})
	parts := make(chan []license.SIM)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for part := range parts {
				r, err := license.NewRequest(license.NewRequestID(now, rand.Reader), storetest.Account, license.SKUFlexible,
					license.Assign, storetest.Devices(part), now)
				if err != nil {
					b.Error(err)
					continue
				}
				a, err := s.Accept(b.Context(), license.AcceptParams{Request: r, Room: len(part), LeaseUntil: now.Add(time.Minute)})
				if err != nil {
					b.Error(err)
				}
				for some := range slices.Chunk(a.Tasks, 500) {
					if _, err := s.SettleTasks(b.Context(), license.SettleParams{Now: now, Outcomes: outcomes(some, license.Done)}); err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	for part := range slices.Chunk(list, devices) {
		parts <- part
	}
	close(parts)
	workers.Wait()
}
