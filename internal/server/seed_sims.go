package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/inventory"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// place is where a SIM stands: an index of seedLoad.files, and a line.
type place struct{ file, line int32 }

// stateDifference groups SIMs by what the seed says of them.
type stateDifference struct {
	account license.AccountName
	state   license.State
}

// sims reads all SIMs of the seed and notes where each stands.
func (l *seedLoad) sims() iter.Seq2[license.SIM, error] {
	return func(yield func(license.SIM, error) bool) {
		l.files = []string{l.seed.path}
		for _, d := range l.seed.devices {
			sim, err := d.sim, error(nil)
			if sim.Account, err = l.find(sim.Account); err != nil {
				err = fmt.Errorf("%s:%d: %w", l.seed.path, d.line, err)
			}
			l.at = place{0, int32(d.line)} //nolint:gosec // no seed has 2 billion lines
			if !yield(sim, err) || err != nil {
				return
			}
		}
		for _, f := range l.seed.files {
			if !l.readFile(f, yield) {
				return
			}
		}
	}
}

func (l *seedLoad) readFile(f seedFile, yield func(license.SIM, error) bool) (more bool) {
	in, err := os.Open(f.path)
	if err != nil {
		yield(license.SIM{}, fmt.Errorf("%s:%d: %w", l.seed.path, f.line, err))
		return false
	}
	defer in.Close() // only read
	l.files = append(l.files, f.path)
	file := int32(len(l.files) - 1) //nolint:gosec // no seed names 2 billion files
	reader := inventory.Reader{Name: f.path, FindAccount: l.find, Warn: l.doubt}
	for sim, err := range reader.Read(in) {
		if err == nil {
			l.at = place{file, int32(reader.Line())} //nolint:gosec // no inventory has 2 billion lines
		}
		if !yield(sim, err) || err != nil {
			return false
		}
	}
	return true
}

// importSIMs adds the SIMs that are not there yet.
func (l *seedLoad) importSIMs(ctx context.Context) error {
	l.existing = map[license.AccountName]bool{}
	for _, a := range l.accounts {
		sims, err := l.store.Devices(ctx, license.DeviceFilter{Accounts: []license.AccountName{a}, Limit: 1})
		if err != nil {
			return err
		}
		l.existing[a] = len(sims) > 0
	}
	started := time.Now()
	var given []place // of each SIM given to the import
	result, err := l.store.Import(ctx, l.newSIMs(ctx, &given), l.now, func(done int) {
		if since := time.Since(started); since > 5*time.Second {
			l.log.InfoContext(ctx, "importing SIMs", "done", done)
			started = started.Add(since)
		}
	})
	var conflict *store.ConflictError
	if errors.As(err, &conflict) && conflict.Index >= 1 && conflict.Index <= len(given) {
		at := given[conflict.Index-1]
		return fmt.Errorf("%s:%d: no SIM was imported: %w", l.files[at.file], at.line, conflict)
	}
	if err != nil {
		return err
	}
	if result.Added > 0 {
		l.log.InfoContext(ctx, "imported the seed's SIMs", "added", result.Added)
	}
	return nil
}

// newSIMs reads the SIMs that are not in the database, and compares the others.
func (l *seedLoad) newSIMs(ctx context.Context, given *[]place) iter.Seq2[license.SIM, error] {
	const chunk = 250
	return func(yield func(license.SIM, error) bool) {
		var known []placedSIM
		pass := func(p placedSIM) bool {
			*given = append(*given, p.place)
			return yield(p.SIM, nil)
		}
		flush := func() bool {
			unknown, err := l.compare(ctx, known)
			if err != nil {
				return yield(license.SIM{}, err)
			}
			known = known[:0]
			for _, p := range unknown {
				if !pass(p) {
					return false
				}
			}
			return true
		}
		for sim, err := range l.sims() {
			if err != nil {
				yield(sim, err)
				return
			}
			p := placedSIM{sim, l.at}
			if !l.existing[sim.Account] {
				if !pass(p) {
					return
				}
				continue
			}
			if known = append(known, p); len(known) == chunk && !flush() {
				return
			}
		}
		flush()
	}
}

type placedSIM struct {
	license.SIM

	place place
}

// compare returns those of some SIMs that are not in the database, and notes
// where the others differ.
func (l *seedLoad) compare(ctx context.Context, sims []placedSIM) (unknown []placedSIM, err error) {
	byAccount := map[license.AccountName][]license.Device{}
	for _, p := range sims {
		byAccount[p.Account] = append(byAccount[p.Account], license.Device{ICCID: p.Device.ICCID})
	}
	stored := map[license.ICCID]license.SIM{}
	for account, devices := range byAccount {
		found, err := l.store.Devices(ctx, license.DeviceFilter{
			Accounts: []license.AccountName{account}, Devices: devices, Limit: len(devices),
		})
		if err != nil {
			return nil, err
		}
		for _, sim := range found {
			stored[sim.Device.ICCID] = sim
		}
	}
	for _, p := range sims {
		if have, ok := stored[p.Device.ICCID]; ok {
			l.note(p, have)
		} else {
			unknown = append(unknown, p)
		}
	}
	return unknown, nil
}

// note notes where a stored SIM differs from the seed's.
func (l *seedLoad) note(p placedSIM, have license.SIM) {
	if have.Device != p.Device || have.IMSI != p.IMSI || have.Generation != p.Generation {
		l.left(fmt.Sprintf("%s:%d: the SIM %s is in the database with IMEI %q, MDN %q, IMSI %q and generation %s, "+
			"which no command changes; it was left alone", l.files[p.place.file], p.place.line,
			p.Device.ICCID, have.Device.IMEI, have.Device.MDN, have.IMSI, have.Generation))
	}
	if have.State != p.State {
		key := stateDifference{p.Account, p.State}
		l.differ[key] = append(l.differ[key], p.Device.ICCID)
	}
}

// reportStates logs where SIMs are in another state than the seed says.
func (l *seedLoad) reportStates(ctx context.Context) {
	const most = 20 // ICCIDs in one command
	for key, iccids := range l.differ {
		for part := range slices.Chunk(iccids, most) {
			words := []string{"device set-state --account", string(key.account), "--state", string(key.state)}
			for _, id := range part {
				words = append(words, string(id))
			}
			l.differs(ctx, fmt.Sprintf("%d SIMs are not %s", len(part), key.state), strings.Join(words, " "))
		}
	}
}
