package store

import (
	"slices"

	"github.com/simlatch/simlatch/internal/license"
)

// maxGroup bounds the rows that one transaction of a group writes. A call that
// writes more goes alone.
const maxGroup = 1000

// heavyShare is how many times more a heavy call writes than may pass it while it
// waits: enough for callbacks to flow, and little beside its own time.
const heavyShare = 8

// A queue is calls that wait for their turn, in turns between accounts. While a
// heavy one waits, light ones may write a share of what it will before it: a
// client that sends one large request after the other does not keep what was
// accepted from being done.
type queue struct {
	light  lines
	heavy  lines // calls that go alone
	passed int   // what light calls wrote while a heavy one waited
	before int   // what little calls wrote while others waited
}

func newQueue() queue { return queue{light: newLines(), heavy: newLines()} }

// linesFor is where a call waits.
func (q *queue) linesFor(c *call) *lines {
	if c.weight > maxGroup {
		return &q.heavy
	}
	return &q.light
}

func (q *queue) add(c *call)         { q.linesFor(c).add(c) }
func (q *queue) remove(c *call) bool { return q.linesFor(c).remove(c) }

// heavyTurn is the heavy call whose turn it is; nil where a light one has it.
func (q *queue) heavyTurn() *call {
	heavy := q.heavy.first()
	if heavy != nil && q.light.first() != nil && q.passed < heavy.weight/heavyShare {
		return nil
	}
	return heavy
}

// takeHeavy takes the heavy call whose turn it is.
func (q *queue) takeHeavy() *call {
	q.passed, q.before = 0, 0
	return q.heavy.next()
}

// takeLight takes the light call whose turn it is; nil where there is none.
func (q *queue) takeLight() *call {
	if q.light.first() == nil {
		return nil
	}
	c := q.light.next()
	if q.heavy.first() != nil {
		q.passed += c.weight
	}
	if c.most > littleMost {
		q.before = 0
	}
	return c
}

// takeLittles takes the first call of each account that asks for little while
// others ask for more; nil where none does. They may write as much as waits behind
// them before that has its turn.
func (q *queue) takeLittles() (calls []*call) {
	if n := len(q.light.turns); n == 0 || n == 1 && (len(q.heavy.turns) == 0 || slices.Equal(q.heavy.turns, q.light.turns)) {
		return nil
	}
	var little []license.AccountName
	more := 0 // what waits behind them
	for _, account := range q.light.turns {
		if c := q.light.of[account][0]; c.most <= littleMost {
			little = append(little, account)
		} else {
			more += c.weight
		}
	}
	for _, account := range q.heavy.turns {
		more += q.heavy.of[account][0].weight
	}
	for _, account := range little {
		if q.before < more {
			c := q.light.take(account)
			q.before += c.weight
			calls = append(calls, c)
		}
	}
	return calls
}

// takeTurn takes the call whose turn it is; nil where there is none.
func (q *queue) takeTurn() *call {
	if q.heavyTurn() != nil {
		return q.takeHeavy()
	}
	return q.takeLight()
}

// lines are calls that wait, a line for each account.
type lines struct {
	of    map[license.AccountName][]*call
	turns []license.AccountName // those with calls, in the order of their turns
}

func newLines() lines { return lines{of: map[license.AccountName][]*call{}} }

func (l *lines) add(c *call) {
	if len(l.of[c.account]) == 0 {
		l.turns = append(l.turns, c.account)
	}
	l.of[c.account] = append(l.of[c.account], c)
}

// first is the call whose turn it is, or nil.
func (l *lines) first() *call {
	if len(l.turns) == 0 {
		return nil
	}
	return l.of[l.turns[0]][0]
}

// next takes the first call.
func (l *lines) next() *call { return l.take(l.turns[0]) }

// take takes the first call of an account, whose next turn is after the others'.
func (l *lines) take(account license.AccountName) *call {
	line := l.of[account]
	i := slices.Index(l.turns, account)
	l.turns = slices.Delete(l.turns, i, i+1)
	if len(line) == 1 {
		delete(l.of, account)
	} else {
		l.of[account] = line[1:]
		l.turns = append(l.turns, account)
	}
	return line[0]
}

// remove takes a call out, if it is there.
func (l *lines) remove(c *call) bool {
	line := l.of[c.account]
	i := slices.Index(line, c)
	if i < 0 {
		return false
	}
	if l.of[c.account] = slices.Concat(line[:i], line[i+1:]); len(line) == 1 {
		// Its turn too, or whoever queues up next would get another.
		delete(l.of, c.account)
		l.turns = slices.DeleteFunc(l.turns, func(a license.AccountName) bool { return a == c.account })
	}
	return true
}
