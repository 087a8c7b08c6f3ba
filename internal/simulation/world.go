package simulation

import (
	"container/heap"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// world is one seed: all there is, and the order in which it happens.
type world struct {
	ctx   context.Context
	seed  uint64
	o     Options
	rng   *rand.Rand
	bytes *rand.ChaCha8 // what the service takes for random
	store *store.Store

	now     time.Time
	end     time.Time // of the faults and of the clients' day
	calm    bool      // no more faults: the last work is to be done
	queue   events
	planned int
	running *strand
	runners []chan<- func() // all of them, and those that are idle
	idle    []chan<- func()
	looking bool      // a look is planned
	away    time.Time // until when the database is out of reach
	dirty   bool      // something was written since nextDue was read
	readAt  time.Time // when it was
	nextDue time.Time

	callers, perListener int // calls of the carrier, and posts to a listener, at once, of a node

	faults   faults
	drawn    faults // as they were before they ended
	nodes    []*node
	carrier  *carrier
	audience *audience
	model    *model
	client   *client

	history  hash.Hash
	tail     []string // the last lines, in a ring
	happened int
	reached  map[string]int
	failure  error
}

// faults say how often what goes wrong, in a thousand.
type faults struct {
	before, after, slow int // writes that fail, fail after they were done, and take long
	carrier, listener   int // calls and posts that fail
	crash               int // an hour and node
	outages             int // of the database, in the day
	skew                time.Duration
	jumps               int
	quiet               bool // nothing but listeners fails, and none hangs
}

func newWorld(seed uint64, o Options) *world {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	w := &world{
		seed: seed, o: o, now: begin(), reached: map[string]int{}, history: sha256.New(),
		rng:   rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // it must be foreseeable
		bytes: rand.NewChaCha8(key), dirty: true,
	}
	w.end = w.now.Add(time.Duration(o.Hours) * time.Hour)
	w.faults = w.drawFaults()
	w.drawn = w.faults
	w.callers, w.perListener = 1+w.upTo(2), 1+w.upTo(2)
	w.model = newModel(w)
	w.carrier = newCarrier(w)
	w.audience = newAudience(w)
	w.client = newClient(w)
	return w
}

// drawFaults decides what kind of a day it is. One in eight is quiet: there what is
// sent again may not be late either.
func (w *world) drawFaults() faults {
	if w.chance(125) {
		return faults{listener: 200 + w.upTo(300), quiet: true}
	}
	f := faults{
		before: w.upTo(60), after: w.upTo(60), slow: w.upTo(40),
		carrier: 50 + w.upTo(250), listener: 100 + w.upTo(500),
		crash: w.upTo(400), outages: w.upTo(3),
	}
	if w.chance(300) {
		f.skew = w.within(0, 3*time.Second)
	}
	if w.chance(200) {
		f.jumps = 1 + w.upTo(2)
	}
	return f
}

// chance is true so many times in a thousand.
func (w *world) chance(perMille int) bool { return w.rng.IntN(1000) < perMille }

// upTo is a number from 0 to n.
func (w *world) upTo(n int) int { return w.rng.IntN(n + 1) }

// within is a time from one to another, in whole microseconds, as stored ones are.
func (w *world) within(least, most time.Duration) time.Duration {
	return (least + time.Duration(w.rng.Int64N(int64(most-least)+1))).Truncate(time.Microsecond)
}

func pick[T any](w *world, list []T) T { return list[w.rng.IntN(len(list))] }

// log writes a line of the history, which ends with the first failure.
func (w *world) log(format string, args ...any) {
	if w.failure != nil {
		return
	}
	w.happened++
	line := fmt.Sprintf("%s %s", w.now.Format("02 15:04:05.000000"), fmt.Sprintf(format, args...))
	w.history.Write([]byte(line))
	w.history.Write([]byte{'\n'})
	if len(w.tail) < w.o.Tail {
		w.tail = append(w.tail, line)
		return
	}
	w.tail[w.happened%w.o.Tail] = line
}

// reach counts a rare branch.
func (w *world) reach(branch string) { w.reached[branch]++ }

// fail says that something is wrong. The first word counts; the world stops.
func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		failure := fmt.Errorf(format, args...)
		w.log("FAILED: %v", failure)
		w.failure = failure
	}
}

// must is for what no fault can make fail.
func (w *world) must(what string, err error) bool {
	if err != nil {
		w.fail("%s: %v", what, err)
	}
	return err == nil
}

func (w *world) result() Result {
	r := Result{
		Seed: w.seed, History: hex.EncodeToString(w.history.Sum(nil)), Events: w.happened, Devices: w.model.devices,
		Simulated: w.now.Sub(begin()), Reached: w.reached, Failure: w.failure,
		hours: w.o.Hours, mutation: w.o.Mutation,
	}
	if r.Failure != nil || w.o.Tail > 1000 {
		first := 0
		if len(w.tail) == w.o.Tail {
			first = (w.happened + 1) % w.o.Tail
		}
		r.Tail = append(append(r.Tail, w.tail[first:]...), w.tail[:first]...)
	}
	return r
}

// longest is how long the last work may take once the faults have ended.
const longest = 20 * 24 * time.Hour

// play plays the day, then lets what is left of the work end without faults.
func (w *world) play() {
	w.prepare()
	w.until(w.end)
	w.soothe()
	w.until(w.end.Add(longest))
	w.checkEnd()
	for _, n := range w.nodes {
		n.die()
	}
	for _, r := range w.runners {
		close(r)
	}
}

// until lets things happen up to a time, or until nothing is left to happen.
func (w *world) until(end time.Time) {
	for w.failure == nil && w.ctx.Err() == nil {
		w.dispatch()
		if len(w.queue) == 0 {
			if w.calm {
				return
			}
			w.now = end
			return
		}
		if next := w.queue[0].at; next.After(end) {
			w.now = end
			return
		}
		e := heap.Pop(&w.queue).(event) //nolint:forcetypeassert // it holds nothing else
		w.now = e.at
		e.do()
	}
}

// look is the least time between two looks for what is due: no more often than
// the service would.
const look = 200 * time.Millisecond

// dispatch has each node begin what it can.
func (w *world) dispatch() {
	if w.dirty && w.now.Sub(w.readAt) >= look {
		due, err := w.store.NextDue(w.ctx)
		if !w.must("looking for what is due next", err) {
			return
		}
		w.nextDue, w.dirty, w.readAt = due, false, w.now
		w.looking = false
	}
	if w.dirty && !w.looking {
		w.looking = true
		w.at(w.readAt.Add(look), func() {})
	}
	for _, n := range w.nodes {
		n.dispatch()
	}
}

// clock is the world's time as a node has it.
type clock struct {
	w *world
	n *node // nil: the true time
}

// Now is the time.
func (c clock) Now() time.Time {
	if c.n == nil {
		return c.w.now
	}
	return c.w.now.Add(c.n.skew)
}

// After never comes: those who wait by a clock are not run here.
func (c clock) After(time.Duration) <-chan time.Time { return nil }

var _ license.Clock = clock{}
