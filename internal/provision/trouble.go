package provision

import (
	"log/slog"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// trouble says once that the carrier cannot be asked, and once that it can be
// again, however many calls fail in between.
type trouble struct {
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	failed int        // calls in a row
	since  time.Time  // the first of them ended
}

// failures is how many calls in a row failed.
func (t *trouble) failures() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// call takes note of how a call with some tasks ended.
func (t *trouble) call(now time.Time, err error, tasks []license.Task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		tell := t.log.Debug
		if t.failed == 0 {
			tell, t.since = t.log.Warn, now
		}
		t.failed++
		tell("calling the carrier; its tasks are kept and asked for again",
			"error", err, "request_id", tasks[0].Request, "tasks", len(tasks), "failures", t.failed)
	case t.failed > 0:
		t.log.Info("the carrier answers again", "failures", t.failed, "after", now.Sub(t.since).Round(time.Millisecond))
		t.failed = 0
	}
}
