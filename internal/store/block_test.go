package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// TestBlock accepts SIMs that lie next to each other, and some that do not.
func TestBlock(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 12})
		for _, test := range []struct {
			sims  []license.SIM
			block bool
		}{
			{b.sims[1:5], true},
			{slices.Concat(b.sims[5:8], b.sims[9:10]), false},
		} {
			p := b.params(license.Assign, license.SKUFlexible, test.sims...)
			p.Room, p.LeaseUntil = len(test.sims), b.now.Add(time.Minute)
			accepted, err := s.Accept(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			for i, task := range accepted.Tasks {
				if task.Device != test.sims[i].Device || task.Place != i+1 {
					t.Errorf("task %d is %+v, want %+v", i, task, test.sims[i].Device)
				}
			}
			block, err := s.AcceptAfter(t.Context(), b.params(license.Assign, license.SKUFlexible, test.sims...), func() {})
			if block != test.block || !errors.Is(err, license.ErrHeld) {
				t.Errorf("again: block %v, %v; want %v, held", block, err, test.block)
			}
		}
		b.wantPool(license.SKUFlexible, 8, 0)
		wrong := b.params(license.Assign, license.SKUFlexible, b.sims[10], b.sims[11])
		wrong.Request.Devices[1].IMEI = b.sims[10].Device.IMEI
		if block, _ := s.AcceptAfter(t.Context(), wrong, func() {}); block {
			t.Error("a SIM with another's IMEI is in a block")
		}
		b.verify()
	})
}

// TestBlockThatChanged has one SIM of a block be taken, and another come to lie
// between them: together they leave the count as it was.
func TestBlockThatChanged(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 3})
		sims := append(b.sims, storetest.SIM(storetest.Account, 4))
		b.importSIMs(sims[3])
		block, err := s.AcceptAfter(t.Context(), b.params(license.Assign, license.SKUFlexible, sims...), func() {
			b.accept(license.Assign, license.SKUFlexible, sims[1])
			b.importSIMs(storetest.SIM(storetest.Account, 3))
		})
		if !block || !errors.Is(err, license.ErrHeld) {
			t.Errorf("block %v, %v; want one that is held in part", block, err)
		}
		b.wantPool(license.SKUFlexible, 1, 0)
		b.verify()
	})
}
