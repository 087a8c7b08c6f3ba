package store

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
)

// Import adds SIMs to the inventory, all in one transaction: the first error of
// the sequence, or a *ConflictsError, ends it with nothing written. A SIM that
// is there already with the same identifiers is left alone, in its state too.
//
// The sequence is read once, so nothing is tried again. While it is read, a
// SQLite database takes no other write. progress, when not nil, is told now and
// then how many SIMs have been dealt with.
func (s *Store) Import(ctx context.Context, sims iter.Seq2[license.SIM, error], now time.Time, progress func(done int)) (ImportResult, error) {
	return s.importAll(ctx, sims, now, progress, func() error { return nil })
}

// errChecked ends an import that was only to be checked.
var errChecked = errors.New("the import was only to be checked")

// CheckImport tells what Import would do, and writes nothing.
func (s *Store) CheckImport(ctx context.Context, sims iter.Seq2[license.SIM, error], now time.Time) (result ImportResult, err error) {
	checked, err := s.importAll(ctx, sims, now, nil, func() error { return errChecked })
	if errors.Is(err, errChecked) {
		err = nil
	}
	return checked, err
}

// importAll imports, and commits unless end has an error.
func (s *Store) importAll(ctx context.Context, sims iter.Seq2[license.SIM, error], now time.Time, progress func(done int), end func() error) (ImportResult, error) {
	var im *importer
	e := s.entry("sim.import", "", "")
	fn := func(tx *tx) error {
		crash.At(crash.ImportBegun)
		im = &importer{tx: tx, now: now, progress: progress, entry: e, batches: map[license.AccountName][]numberedSIM{}}
		for sim, err := range sims {
			if err == nil {
				err = ctx.Err()
			}
			if err == nil {
				err = im.add(sim)
			}
			if err != nil {
				return err
			}
		}
		for _, account := range slices.Sorted(maps.Keys(im.batches)) {
			if err := im.flush(account, im.batches[account]); err != nil {
				return err
			}
		}
		if len(im.conflicts) > 0 {
			return &ConflictsError{im.conflicts}
		}
		crash.At(crash.ImportWritten)
		return end()
	}
	var err error
	if s.group != nil {
		err = s.group.do(ctx, "", maxGroup+1, maxGroup+1, fn)
	} else {
		err = s.writeAlone(ctx, fn)
	}
	if errors.Is(err, errChecked) {
		return im.result, err
	}
	if err != nil {
		return ImportResult{}, s.failed("importing SIMs", err)
	}
	crash.At(crash.ImportCommitted)
	return im.result, nil
}
