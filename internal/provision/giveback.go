package provision

import (
	"context"

	"github.com/simlatch/simlatch/internal/license"
)

// giveBack makes due what waits in the closed lines, at once, and what is still
// given for room that was reserved before they were closed. It returns when
// nothing more can come, or when ctx ends.
func (w *Worker) giveBack(ctx context.Context) {
	for {
		promised := w.room.isPromised()
		w.giveRest(ctx)
		if !promised {
			return
		}
		select {
		case <-w.room.kept:
		case <-ctx.Done():
			return
		}
	}
}

// giveRest makes due what waits in the closed lines.
func (w *Worker) giveRest(ctx context.Context) {
	tasks := w.lines.rest()
	if len(tasks) == 0 {
		return
	}
	given, err := w.cfg.Queue.GiveTasksBack(ctx, w.cfg.Clock.Now(), tasks)
	if err != nil {
		w.cfg.Logger.Error("giving tasks back that the carrier was not asked for; they fall due when their leases end",
			"error", err, "tasks", len(tasks)-given)
		return
	}
	w.cfg.Logger.Info("gave tasks back that the carrier was not asked for", "tasks", given)
}

// given takes note of the Give for reserved room of an account, of which so much
// was used.
func (r *room) given(account license.AccountName, reserved, used int) {
	if reserved <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.promised -= reserved; r.closed && r.promised <= 0 {
		signal(r.kept)
	}
	if unused := reserved - used; unused > 0 {
		r.free(account, unused)
		signal(r.freed)
	}
}

// isPromised reports whether a Give for reserved room has yet to come.
func (r *room) isPromised() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.promised > 0
}

// rest takes what is left in closed lines.
func (l *lines) rest() []license.Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.left
	l.left = nil
	return left
}
