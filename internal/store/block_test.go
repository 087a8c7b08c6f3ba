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

// TestBlockIsUnassigned gives SIMs back that lie next to each other and were assigned
// by two requests.
func TestBlockIsUnassigned(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 8})
		unassign := func(room int) (license.AcceptParams, bool) {
			p := b.params(license.Unassign, license.SKUFlexible, b.sims...)
			p.Room, p.LeaseUntil = room, b.now.Add(time.Minute)
			block, err := s.AcceptAfter(t.Context(), p, func() {})
			if err != nil {
				t.Fatal(err)
			}
			return p, block
		}
		of := []license.RequestID{
			b.accept(license.Assign, license.SKUFlexible, b.sims[:3]...),
			b.accept(license.Assign, license.SKUFlexible, b.sims[3:]...),
		}
		if block, err := s.AcceptAfter(t.Context(), b.params(license.Unassign, license.SKUFlexible, b.sims...), func() {}); block || !errors.Is(err, license.ErrHeld) {
			t.Errorf("while the licenses are awaited: block %v, %v; want none, pending", block, err)
		}
		b.carry(license.Done)
		if block, _ := s.AcceptAfter(t.Context(), b.params(license.Unassign, license.SKUBundle, b.sims...), func() {}); block {
			t.Error("SIMs with another SKU are a block")
		}

		// Four are born leased, which fall due when that has ended.
		p, block := unassign(4)
		if !block {
			t.Error("no block")
		}
		if tasks := b.claim(100); len(tasks) != 4 || tasks[0].Device != b.sims[4].Device || tasks[0].Place != 5 {
			t.Errorf("claimed %+v, want the last four", tasks)
		}
		if again, err := s.AcceptAfter(t.Context(), b.params(license.Unassign, license.SKUFlexible, b.sims...), func() {}); again || !errors.Is(err, license.ErrHeld) {
			t.Errorf("again: block %v, %v; want none, pending", again, err)
		}
		b.wantPool(license.SKUFlexible, 0, 8)

		// Refused, the SIMs are their assigning requests' again.
		b.now = b.now.Add(2 * time.Minute)
		b.carry(license.Refused)
		b.wantStatus(p.Request.ID, license.StatusFailure)
		for i, id := range of {
			if n := b.touchedBy(id); n != []int{3, 5}[i] {
				t.Errorf("%d SIMs were last touched by request %d, want %d", n, i, []int{3, 5}[i])
			}
		}
		b.verify()

		// Done, they are free.
		if _, block = unassign(0); !block {
			t.Error("no block, the second time")
		}
		b.carry(license.Done)
		b.wantPool(license.SKUFlexible, 0, 0)
		b.accept(license.Assign, license.SKUFlexible, b.sims...)
		b.verify()
	})
}

// TestUnassignedBlockThatChanged has one SIM of a block be given back and assigned
// anew between the look and the writing: it is taken as it is then.
func TestUnassignedBlockThatChanged(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		b := newBench(t, s, storetest.Fixture{SIMs: 4})
		b.accept(license.Assign, license.SKUFlexible, b.sims...)
		b.carry(license.Done)
		var other license.RequestID
		p := b.params(license.Unassign, license.SKUFlexible, b.sims...)
		block, err := s.AcceptAfter(t.Context(), p, func() {
			b.accept(license.Unassign, license.SKUFlexible, b.sims[1])
			b.carry(license.Done)
			other = b.accept(license.Assign, license.SKUFlexible, b.sims[1])
			b.carry(license.Done)
		})
		if !block || err != nil {
			t.Errorf("block %v, %v; want one that was taken SIM by SIM", block, err)
		}
		b.carry(license.Refused)
		if n := b.touchedBy(other); n != 1 {
			t.Errorf("%d SIMs were last touched by the request of one, want that", n)
		}
		b.verify()
		for _, action := range []license.Action{license.Unassign, license.Assign} {
			b.accept(action, license.SKUFlexible, b.sims...)
			b.carry(license.Done)
		}
		block, err = s.AcceptAfter(t.Context(), b.params(license.Unassign, license.SKUFlexible, b.sims...), func() {
			b.accept(license.Unassign, license.SKUFlexible, b.sims[3])
		})
		if !block || !errors.Is(err, license.ErrHeld) {
			t.Errorf("block %v, %v; want one that is in transition in part", block, err)
		}
		b.verify()
	})
}

// touchedBy is how many SIMs point at a request.
func (b *bench) touchedBy(id license.RequestID) int {
	b.t.Helper()
	n, err := b.s.TouchedBy(b.t.Context(), storetest.Account, id)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}
