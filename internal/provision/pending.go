package provision

import (
	"slices"
	"sync"

	"github.com/simlatch/simlatch/internal/license"
)

// pending are the outcomes that wait to be settled, a heap for each account.
//
// Accounts with a batch and more of them are settled one by one, in turn, and by
// others than all the small ones, which share batches: a settlement takes the rows
// of the pools that it concerns, and would wait for the longest transaction at any
// of them.
type pending struct {
	mu      sync.Mutex // guards what follows
	filled  sync.Cond
	drained sync.Cond
	of      map[license.AccountName]*heap
	turn    []*heap // those with outcomes, next first
	n       int     // outcomes in them
	most    int     // of an account, above which add waits; 0: never
	closed  bool
}

// heap is the outcomes of one account.
type heap struct {
	account license.AccountName
	batches [][]license.Outcome
	n       int // outcomes in them
}

// Which heaps a settler takes from.
type which int

const (
	anyOf   which = iota
	fewOf         // less than a batch
	wholeOf       // a batch and more
)

func newPending(most int) *pending {
	p := &pending{most: most, of: map[license.AccountName]*heap{}}
	p.filled.L, p.drained.L = &p.mu, &p.mu
	return p
}

// add puts outcomes of one account behind its others, waiting while there are too
// many: then the store is the slower part, and calling the carrier faster helps
// nobody.
func (p *pending) add(batch []license.Outcome) {
	account := batch[0].Task.Account
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.most > 0 && p.holds(account) >= p.most {
		p.drained.Wait()
	}
	h := p.of[account]
	if h == nil {
		h = &heap{account: account}
		p.of[account] = h
		p.turn = append(p.turn, h)
	}
	h.batches = append(h.batches, batch)
	h.n += len(batch)
	p.n += len(batch)
	p.filled.Broadcast() // they wait for different ones
}

// holds is how many outcomes of an account wait; p.mu is held.
func (p *pending) holds(account license.AccountName) int {
	if h := p.of[account]; h != nil {
		return h.n
	}
	return 0
}

// full reports whether the outcomes of one more call for an account might have to
// wait for room, beside those of so many callers. One caller may wait.
func (p *pending) full(account license.AccountName, callers int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return callers > 0 && p.most > 0 && p.holds(account)+callers*batchSize >= p.most
}

// take waits for outcomes in such heaps and takes a batch of them: of one account
// where that is a whole one, otherwise of as many as share it. It reports false
// when there are none and the outcomes are closed.
func (p *pending) take(of which) (batch []license.Outcome, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fits := func(h *heap) bool { return of == anyOf || (h.n >= batchSize) == (of == wholeOf) }
	for !slices.ContainsFunc(p.turn, fits) && !p.closed {
		p.filled.Wait()
	}
	for len(batch) < batchSize {
		i := slices.IndexFunc(p.turn, fits)
		if i < 0 {
			break
		}
		h := p.turn[i]
		p.turn = slices.Delete(p.turn, i, i+1)
		before := len(batch)
		batch = h.take(batch)
		if p.n -= len(batch) - before; h.n > 0 {
			p.turn = append(p.turn, h)
		} else {
			delete(p.of, h.account)
		}
	}
	if len(p.turn) > 0 {
		p.filled.Broadcast() // what is left may now be another settler's
	}
	p.drained.Broadcast()
	return batch, len(batch) > 0
}

// take fills a batch up to batchSize.
func (h *heap) take(batch []license.Outcome) []license.Outcome {
	for len(h.batches) > 0 && len(batch) < batchSize {
		first := h.batches[0]
		if len(batch) == 0 {
			batch = first // handed over as it is
		} else {
			first = first[:min(len(first), batchSize-len(batch))]
			batch = append(batch, first...)
		}
		h.n -= len(first)
		if h.batches[0] = h.batches[0][len(first):]; len(h.batches[0]) == 0 {
			h.batches[0] = nil
			h.batches = h.batches[1:]
		}
	}
	return batch
}

// unbound lets add never wait again.
func (p *pending) unbound() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = 0
	p.drained.Broadcast()
}

// close says that nothing will be added any more.
func (p *pending) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.filled.Broadcast()
}

// size is how many outcomes wait.
func (p *pending) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}
