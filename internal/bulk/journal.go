package bulk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/simlatch/simlatch/m2m"
)

// The kinds of entries of a journal.
const (
	entryBegin    = "begin"    // which plan, and how many devices in a request
	entrySend     = "send"     // a request is about to be sent
	entryAccepted = "accepted" // its answer has come, or other proof that it was accepted
	entryRefused  = "refused"  // it has changed nothing, and its rows are to be sent again
	entryLost     = "lost"     // its answer is lost, and nobody can tell what became of it
	entryRepeat   = "repeat"   // a person said that a lost request may be sent again
	entryOutcome  = "outcome"  // how one row ended
	entrySettled  = "settled"  // all rows of a request succeeded
	entryListener = "listener" // our listener takes the place of another
	entryRestored = "restored" // the other one is back
)

// entry is one line of a journal. Which members it has depends on its kind.
type entry struct {
	Kind string    `json:"kind"`
	At   time.Time `json:"at"`

	Plan  string `json:"plan,omitempty"`  // the digest
	Batch int    `json:"batch,omitempty"` // begin: devices in a request; refused: from now on

	Request int               `json:"request,omitempty"` // its number, from 1
	Rows    []span            `json:"rows,omitempty"`    // what it names
	Key     string            `json:"key,omitempty"`     // its Idempotency-Key
	Pool    *m2m.Subscription `json:"pool,omitempty"`    // before it was sent, where that is all there is to tell by
	ID      string            `json:"id,omitempty"`      // the requestId
	Narrow  int               `json:"narrow,omitempty"`  // at most so many of its rows together when they are sent again

	Row     *int   `json:"row,omitempty"` // from 0
	Status  Status `json:"status,omitempty"`
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`

	URL      string        `json:"url,omitempty"`
	Token    string        `json:"token,omitempty"` // in the path of our listener's URL
	Previous *m2m.Listener `json:"previous,omitempty"`
}

// span is rows from its first to its last.
type span [2]int

// spans are the spans of rows, which are in order.
func spans(rows []int) []span {
	var s []span
	for _, r := range rows {
		if n := len(s); n > 0 && s[n-1][1] == r-1 {
			s[n-1][1] = r
		} else {
			s = append(s, span{r, r})
		}
	}
	return s
}

// journal is a file of entries, one a line, that is only ever appended to. What
// wait has returned for is on the disk. The plan is locked meanwhile: one process
// at a time applies it.
type journal struct {
	path string
	f    *os.File
	lock *flock.Flock

	mu      sync.Mutex // guards what follows
	written *sync.Cond // when synced has moved
	buf     []byte     // queued, not written
	queued  int        // entries so far
	synced  int        // those of them on the disk
	writing bool
	err     error // the first failure; nothing is written after it
}

// errLocked says that the plan is being applied by another process.
var errLocked = errors.New("another process is applying this plan")

// openJournal opens or makes a plan's journal and gives its entries to replay. The last
// line may be torn, where its writer was killed: it was not on the disk, so
// nothing was done that depends on it, and it is cut off.
func openJournal(plan string, replay func(*entry) error) (_ *journal, err error) {
	path := JournalPath(plan)
	j := &journal{path: path, lock: flock.New(plan)}
	j.written = sync.NewCond(&j.mu)
	locked, err := j.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", plan, err)
	}
	if !locked {
		return nil, fmt.Errorf("%s: %w", plan, errLocked)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.close())
		}
	}()
	if j.f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(j.f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(text) == 0 {
		syncDir(path)
	}
	whole := bytes.LastIndexByte(text, '\n') + 1
	n := 0
	for line := range bytes.Lines(text[:whole]) {
		n++
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s:%d: the journal is damaged: %w", path, n, err)
		}
		if err := replay(&e); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	if whole < len(text) {
		if err := j.f.Truncate(int64(whole)); err != nil {
			return nil, fmt.Errorf("cutting the torn end of %s off: %w", path, err)
		}
	}
	_, err = j.f.Seek(int64(whole), io.SeekStart)
	return j, err
}

// syncDir has the name of a new file survive a power cut as well, where the
// system can.
func syncDir(path string) {
	if d, err := os.Open(filepath.Dir(path)); err == nil {
		_ = d.Sync() // some systems cannot sync a directory
		d.Close()
	}
}

// close leaves no empty journal behind.
func (j *journal) close() error {
	var err error
	if j.f != nil {
		info, statErr := j.f.Stat()
		err = errors.Join(statErr, j.f.Close())
		if err == nil && info.Size() == 0 {
			err = os.Remove(j.path)
		}
	}
	return errors.Join(err, j.lock.Close())
}

// queue puts an entry in line to be written and returns its number for wait.
// Entries are written in the order of the calls.
func (j *journal) queue(e *entry) (int, error) {
	line, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.buf = append(append(j.buf, line...), '\n')
	j.queued++
	return j.queued, j.err
}

// wait returns when entry n is on the disk. Whoever comes first writes for all
// that are in line, so that callbacks share a sync.
func (j *journal) wait(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.err == nil && j.synced < n {
		if j.writing {
			j.written.Wait()
			continue
		}
		buf, upTo := j.buf, j.queued
		j.buf, j.writing = nil, true
		j.mu.Unlock()
		_, err := j.f.Write(buf)
		if err == nil {
			err = j.f.Sync()
		}
		j.mu.Lock()
		j.writing, j.synced = false, upTo
		if err != nil {
			j.err = fmt.Errorf("writing the journal: %w", err)
		}
		j.written.Broadcast()
	}
	return j.err
}
