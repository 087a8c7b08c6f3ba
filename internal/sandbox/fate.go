package sandbox

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"sync"

	"github.com/simlatch/simlatch/internal/license"
)

// Fate decides what meets a fault: the rules first, in the order in which they
// were made, then the magic ICCIDs.
type Fate struct {
	seed uint64

	mu     sync.Mutex // guards what follows
	faults []*Fault
	made   int
	held   map[license.ICCID]bool
}

func newFate(seed uint64) *Fate {
	return &Fate{seed: seed, held: map[license.ICCID]bool{}}
}

// event is what may meet a fault.
type event struct {
	on        string
	account   license.AccountName
	sku       license.SKU
	action    license.Action
	iccid     license.ICCID
	attempt   int    // from 1
	operation string // of api
}

// ErrFaultKnown refuses a fault with the id of another.
var ErrFaultKnown = errors.New("there is a fault with that id already")

// Add adds a fault and returns it with its id.
func (f *Fate) Add(x Fault) (Fault, error) {
	if err := x.check(); err != nil {
		return x, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made++
	if x.ID == "" {
		x.ID = "fault-" + strconv.Itoa(f.made)
	}
	if slices.ContainsFunc(f.faults, func(o *Fault) bool { return o.ID == x.ID }) {
		return x, ErrFaultKnown
	}
	x.Seen, x.Struck = 0, 0
	f.faults = append(f.faults, &x)
	return x, nil
}

// List lists the faults in their order.
func (f *Fate) List() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Fault, len(f.faults))
	for i, x := range f.faults {
		list[i] = *x
	}
	return list
}

// Remove removes a fault, and reports whether there was one.
func (f *Fate) Remove(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.faults)
	f.faults = slices.DeleteFunc(f.faults, func(x *Fault) bool { return x.ID == id })
	return len(f.faults) < n
}

// Hold has the carrier answer nothing about a device until Release.
func (f *Fate) Hold(id license.ICCID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[id] = true
}

// Release ends Hold, and reports whether the device was held.
func (f *Fate) Release(id license.ICCID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.held[id]
	delete(f.held, id)
	return was
}

// Held lists the devices that are held.
func (f *Fate) Held() []license.ICCID {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]license.ICCID, 0, len(f.held))
	for id := range f.held {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

func (f *Fate) holds(id license.ICCID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held[id]
}

// strike decides what an event meets: the effect, and the name of the fault; both
// are empty where it meets none.
func (f *Fate) strike(e event) (Effect, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.faults {
		if x.On == e.on && x.Match.fits(e) && f.hits(x, e) {
			x.Struck++
			return x.Then, x.ID
		}
	}
	return magicEffect(e)
}

// hits throws the dice of a fault that matches; f.mu is held.
func (f *Fate) hits(x *Fault, e event) bool {
	x.Seen++
	m := x.Match
	switch {
	case x.Times > 0 && x.Struck >= x.Times:
		return false
	case m.Nth > 0 && x.Seen != m.Nth:
		return false
	case m.Every > 0 && x.Seen%m.Every != 0:
		return false
	case m.Probability > 0 && f.dice(x, e) >= m.Probability:
		return false
	}
	return true
}

// dice is a number from 0 to 1 that follows from the seed, the fault, and what
// it may strike.
func (f *Fate) dice(x *Fault, e event) float64 {
	text := fmt.Sprintf("%d/%s/%s/%s/%s/%d", f.seed, x.ID, e.on, e.action, e.iccid, e.attempt)
	if e.on == OnAPI {
		text += "/" + strconv.Itoa(x.Seen)
	}
	sum := sha256.Sum256([]byte(text))
	const bits = 53 // of a float64
	return float64(binary.BigEndian.Uint64(sum[:8])>>(64-bits)) / (1 << bits)
}

func (m *Match) fits(e event) bool {
	return (m.Account == "" || license.AccountName(m.Account).Folded() == e.account.Folded()) &&
		(m.SKU == "" || m.SKU == string(e.sku)) &&
		(m.Action == "" || m.Action == string(e.action)) &&
		(m.Attempt == 0 || m.Attempt == e.attempt) &&
		(m.ICCID == "" || like(m.ICCID, string(e.iccid))) &&
		(m.Operation == "" || like(m.Operation, e.operation))
}

// like matches a pattern in which * stands for anything, slashes too.
func like(pattern, s string) bool {
	slashless := func(s string) string {
		b := []byte(s)
		for i := range b {
			if b[i] == '/' {
				b[i] = '\x01'
			}
		}
		return string(b)
	}
	ok, err := path.Match(slashless(pattern), slashless(s))
	return err == nil && ok
}
