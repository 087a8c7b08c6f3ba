package auth

import (
	"maps"
	"sync"
	"time"
)

// rememberFor is how long a token or a session is taken to be as it was read.
// What another process does to it (a revoke, a logout, a disabled application,
// an account granted) takes effect here that late. What this one does takes
// effect at once.
const rememberFor = time.Second

// memory remembers what was read a moment ago, by hash. A busy client presents
// the same token and session thousands of times a second.
type memory[T any] struct {
	mu    sync.Mutex // guards what follows
	known map[string]remembered[T]
	swept time.Time
	// changes counts what this process changed: what was read before a change
	// and is told after it is not remembered.
	changes uint64
}

type remembered[T any] struct {
	value T
	read  time.Time
}

// get is the value as it was read within rememberFor before now, or the count of
// changes to give to set.
func (m *memory[T]) get(hash string, now time.Time) (value T, changes uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.known[hash]
	age := now.Sub(r.read)
	return r.value, m.changes, ok && age >= 0 && age < rememberFor
}

func (m *memory[T]) set(hash string, value T, now time.Time, changes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if changes != m.changes {
		return
	}
	if m.known == nil {
		m.known = map[string]remembered[T]{}
	}
	m.known[hash] = remembered[T]{value, now}
	if age := now.Sub(m.swept); age > time.Minute || age < 0 {
		m.swept = now
		maps.DeleteFunc(m.known, func(_ string, r remembered[T]) bool { return now.Sub(r.read) >= rememberFor })
	}
}

// forget is called after a change.
func (m *memory[T]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes++
	clear(m.known)
}
