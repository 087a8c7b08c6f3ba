package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// state is what a sandbox is about beside its database, in which it is kept: so a
// snapshot is a SQLite database, and one file.
type state struct {
	Now    time.Time       `json:"now"`
	Rate   float64         `json:"rate"`
	Faults []Fault         `json:"faults"`
	Held   []license.ICCID `json:"held"`
}

// keep keeps the state with the database.
func (b *Box) keep(ctx context.Context) error {
	text, err := json.Marshal(state{Now: b.clock.Now(), Rate: b.clock.Rate(), Faults: b.fate.List(), Held: b.fate.Held()})
	if err != nil {
		return fmt.Errorf("writing the sandbox's state: %w", err)
	}
	return b.host.Keep(ctx, string(text))
}

// Resume goes on with a state that was kept with a database.
func (b *Box) Resume(text string) error {
	var s state
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("reading the sandbox's state: %w", err)
	}
	b.clock.Reset(s.Now, s.Rate)
	b.fate.replace(s.Faults, s.Held)
	return nil
}

// Snapshot writes the whole state: the database, the clock, the faults. The
// journal is no part of it.
func (b *Box) Snapshot(ctx context.Context) ([]byte, error) {
	b.moving.Lock()
	defer b.moving.Unlock()
	if err := b.Settle(ctx); err != nil {
		return nil, err
	}
	if err := b.keep(ctx); err != nil {
		return nil, err
	}
	return b.host.Snapshot(ctx)
}

// ErrSnapshot refuses what is no snapshot.
var ErrSnapshot = errors.New("this is no snapshot of a sandbox")

// Restore puts the state of a snapshot in the place of what there is. The journal
// goes on.
func (b *Box) Restore(ctx context.Context, snapshot []byte) error {
	b.moving.Lock()
	defer b.moving.Unlock()
	if err := b.host.Restore(ctx, snapshot); err != nil {
		return err
	}
	b.renew()
	return nil
}

// Reset puts everything back to the beginning: the seed, the clock, no faults, an
// empty journal.
func (b *Box) Reset(ctx context.Context) error {
	b.moving.Lock()
	defer b.moving.Unlock()
	b.clock.Reset(b.spec.Start, b.spec.rate())
	if err := b.host.Reset(ctx); err != nil {
		return err
	}
	b.renew()
	b.fate.replace(nil, nil)
	b.journal.clear()
	return nil
}

// replace puts faults and holds in the place of those there are.
func (f *Fate) replace(faults []Fault, heldNow []license.ICCID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.made = nil, 0
	for _, x := range faults {
		f.faults = append(f.faults, &x)
		f.made++
	}
	clear(f.held)
	for _, id := range heldNow {
		f.held[id] = true
	}
}

// clearFaults removes all faults.
func (f *Fate) clearFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

func (b *Box) getSnapshot(w http.ResponseWriter, r *http.Request) {
	snapshot, err := b.Snapshot(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="simlatch-sandbox.snapshot"`)
	_, _ = w.Write(snapshot) // fails only when the caller is gone
}

func (b *Box) postRestore(r *http.Request) (any, error) {
	snapshot, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, badRequest(err)
	}
	if err := b.Restore(r.Context(), snapshot); err != nil {
		if errors.Is(err, ErrSnapshot) {
			return nil, badRequest(err)
		}
		return nil, err
	}
	return b.clockNow(r, 0)
}

func (b *Box) postReset(r *http.Request) (any, error) {
	if err := b.Reset(r.Context()); err != nil {
		return nil, err
	}
	return b.host.Info(r.Context())
}

// postSeed adds what a seed file, in YAML or JSON, has to what there is.
func (b *Box) postSeed(r *http.Request) (any, error) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, badRequest(err)
	}
	if err := b.host.Plant(r.Context(), string(text)); err != nil {
		return nil, badRequest(err)
	}
	return b.host.Info(r.Context())
}

var errNoNamespaces = problem{"No namespaces here", http.StatusNotFound, "this is a namespace itself; namespaces are made by the sandbox it belongs to"}

func (b *Box) getNamespaces(r *http.Request) (any, error) {
	if b.namespaces == nil {
		return nil, errNoNamespaces
	}
	list, err := b.namespaces.List(r.Context())
	if list == nil {
		list = []Info{}
	}
	return list, err
}

func (b *Box) postNamespace(r *http.Request) (any, error) {
	if b.namespaces == nil {
		return nil, errNoNamespaces
	}
	var s Spec
	if err := body(r, &s); err != nil {
		return nil, err
	}
	if err := s.Check(); err != nil {
		return nil, badRequest(err)
	}
	return b.namespaces.Create(r.Context(), s)
}

func (b *Box) deleteNamespace(r *http.Request) (any, error) {
	if b.namespaces == nil {
		return nil, errNoNamespaces
	}
	return none{}, b.namespaces.Drop(r.Context(), r.PathValue("name"))
}
