package store

import (
	"context"
	"database/sql"
	"log/slog"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
)

const (
	// checkpointPages is how many pages of the write-ahead log are worth a
	// checkpoint.
	checkpointPages = 2000
	// checkpointPause is the least time between two looks at the log.
	checkpointPause = 10 * time.Millisecond
)

// A checkpointer copies SQLite's write-ahead log into the database beside the
// writer, which would else do it in a commit while others wait. Should it not
// keep up, the writer does it after all (wal_autocheckpoint).
type checkpointer struct {
	db   *sql.DB // one connection
	log  *slog.Logger
	wake chan struct{} // a commit was made
	end  context.CancelFunc
	done chan struct{} // closed when run has returned
}

func newCheckpointer(db *sql.DB, log *slog.Logger) *checkpointer {
	db.SetMaxOpenConns(1)
	ctx, end := context.WithCancel(context.Background())
	c := &checkpointer{db: db, log: log, wake: make(chan struct{}, 1), end: end, done: make(chan struct{})}
	go c.run(ctx)
	return c
}

// committed tells that the log may have grown.
func (c *checkpointer) committed() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run looks at the log after commits, until ctx ends.
func (c *checkpointer) run(ctx context.Context) {
	defer close(c.done)
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		if err := c.checkpoint(); err != nil {
			c.log.Debug("copying the write-ahead log", "error", err) // the writer meets it too, and says so
		}
		select {
		case <-time.After(checkpointPause):
		case <-ctx.Done():
			return
		}
	}
}

// checkpoint copies what is in the log, if that is much.
func (c *checkpointer) checkpoint() error {
	left, err := c.pragma(`PRAGMA wal_checkpoint(NOOP)`)
	if err == nil && left >= checkpointPages {
		crash.At(crash.CheckpointBegun)
		_, err = c.pragma(`PRAGMA wal_checkpoint(PASSIVE)`)
		crash.At(crash.CheckpointDone)
	}
	return err
}

// pragma runs a checkpoint and returns how many pages of the log are left to copy.
func (c *checkpointer) pragma(text string) (left int, err error) {
	var busy, logged, copied int
	err = c.db.QueryRowContext(context.Background(), text).Scan(&busy, &logged, &copied)
	return logged - copied, err
}

// close ends it after the checkpoint it is in. It may be called twice.
func (c *checkpointer) close() error {
	c.end()
	<-c.done
	return c.db.Close()
}
