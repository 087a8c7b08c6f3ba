package simulation

import "testing"

func BenchmarkSeeds(b *testing.B) {
	s, err := New(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	seed := uint64(1)
	for b.Loop() {
		r, err := s.Run(b.Context(), seed, Options{})
		if err != nil {
			b.Fatal(err)
		}
		_ = r
		seed++
	}
}
