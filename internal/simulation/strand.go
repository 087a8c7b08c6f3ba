package simulation

import (
	"container/heap"
	"fmt"
	"runtime"
	"time"
)

// An event is something that happens at a time; those of one time happen in the
// order in which they were planned.
type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, k int) { e[i], e[k] = e[k], e[i] }
func (e events) Less(i, k int) bool {
	if e[i].at.Equal(e[k].at) {
		return e[i].seq < e[k].seq
	}
	return e[i].at.Before(e[k].at)
}
func (e *events) Push(x any) { *e = append(*e, x.(event)) } //nolint:forcetypeassert // container/heap gives back what it was given
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// at plans something.
func (w *world) at(t time.Time, do func()) {
	if t.Before(w.now) {
		t = w.now
	}
	w.planned++
	heap.Push(&w.queue, event{t, w.planned, do})
}

// after plans something for later.
func (w *world) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

// A strand is a piece of work that takes time. It has a goroutine of its own,
// which runs while the world stands still, until it waits or ends: there is never
// more than one that runs.
type strand struct {
	w       *world
	node    *node
	name    string
	resume  chan struct{}
	yielded chan struct{}
	killed  bool
	over    bool
	on      chan<- func()     // the goroutine it runs on
	end     func(killed bool) // called by the world when it is over; may be nil
}

// spawn begins a strand of a node, now.
func (w *world) spawn(n *node, name string, fn func(), end func(killed bool)) {
	s := &strand{w: w, node: n, name: name, resume: make(chan struct{}), yielded: make(chan struct{}), end: end}
	s.on = w.runner()
	s.on <- func() { s.run(fn) }
	n.strands = append(n.strands, s)
	w.at(w.now, func() { w.step(s) })
}

// runner is a goroutine that waits for a strand to run. They are used again, since
// their stacks have grown to what a statement needs.
func (w *world) runner() chan<- func() {
	if n := len(w.idle); n > 0 {
		r := w.idle[n-1]
		w.idle = w.idle[:n-1]
		return r
	}
	r := make(chan func())
	go func() {
		for run := range r {
			run()
		}
	}()
	w.runners = append(w.runners, r)
	return r
}

func (s *strand) run(fn func()) {
	<-s.resume
	defer func() {
		// Goexit, by which a strand is killed, is no panic.
		if p := recover(); p != nil {
			buf := make([]byte, 4<<10)
			s.w.fail("%s panicked: %v\n%s", s.name, p, buf[:runtime.Stack(buf, false)])
		}
		s.over = true
		if !s.killed {
			s.w.idle = append(s.w.idle, s.on)
		}
		s.yielded <- struct{}{}
	}()
	if !s.killed {
		fn()
	}
}

// step lets a strand go on until it waits or ends.
func (w *world) step(s *strand) {
	if s.over {
		return
	}
	if w.running != nil {
		panic(fmt.Sprintf("%s goes on in the midst of %s", s.name, w.running.name))
	}
	w.running = s
	s.resume <- struct{}{}
	<-s.yielded
	w.running = nil
	if s.over {
		s.node.forget(s)
		if s.end != nil {
			s.end(s.killed)
		}
	}
}

// pause has the strand that runs wait; elsewhere it does nothing. The strand of a
// node that dies meanwhile ends there, with its deferred calls.
func (w *world) pause(d time.Duration) {
	s := w.running
	if s == nil || s.killed {
		return
	}
	w.after(d, func() { w.step(s) })
	s.yielded <- struct{}{}
	<-s.resume
	if s.killed {
		runtime.Goexit()
	}
}

// kill ends a strand where it stands.
func (w *world) kill(s *strand) {
	s.killed = true
	w.step(s)
}
