package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

// A host is PostgreSQL, where it is what dies.
type host interface {
	killBackend(ctx context.Context) error
	crash(ctx context.Context) error
}

// death is one, and the work that was acknowledged in that life.
type death struct {
	name string
	work int
}

// through lives the plan's lives, and then one without a death in which all that
// was asked for ends.
func (w *world) through(h host) (deaths []death, err error) {
	for _, l := range w.plan.first {
		d, err := w.live(l)
		if err != nil {
			return deaths, err
		}
		deaths = append(deaths, d)
	}
	p, err := w.serve(life{})
	if err != nil {
		return deaths, fmt.Errorf("after %v: %w", w.plan.first, err)
	}
	defer func() { p.kill() }()
	w.urls.Store(&[]string{p.url})
	if err := w.login(); err != nil {
		return deaths, err
	}
	for i := range w.plan.clients {
		w.working.Go(func() { w.client(i) })
	}
	w.working.Go(w.buy)
	w.working.Go(w.bring)
	if h != nil {
		deaths, err = w.outlive(h, p)
		if err != nil {
			return deaths, err
		}
		return deaths, w.finish(p)
	}
	more, err := w.dieOften(p)
	deaths = append(deaths, more...)
	if err != nil {
		return deaths, err
	}
	if p, err = w.serve(life{}); err != nil {
		return deaths, fmt.Errorf("the last server: %w", err)
	}
	return deaths, w.finish(p)
}

// dieOften ends the first server and lives the plan's lives.
func (w *world) dieOften(first *process) (deaths []death, err error) {
	if w.plan.bystander {
		b, err := w.serve(life{})
		if err != nil {
			return nil, fmt.Errorf("the bystander: %w", err)
		}
		defer func() {
			if err := b.terminate(20 * time.Second); err != nil {
				w.mu.Lock()
				w.wrong("the bystander ended with %v", err)
				w.mu.Unlock()
			}
		}()
		w.urls.Store(&[]string{first.url, b.url})
		defer w.urls.Store(&[]string{})
		<-time.After(100 * time.Millisecond)
		first.kill()
		return w.lives(b.url)
	}
	<-time.After(100 * time.Millisecond)
	first.kill()
	return w.lives()
}

// lives lives the plan's lives, beside servers that live on.
func (w *world) lives(beside ...string) (deaths []death, err error) {
	deaths = append(deaths, death{name: endKill})
	for i, l := range w.plan.lives {
		d, err := w.live(l, beside...)
		if err != nil {
			return deaths, err
		}
		deaths = append(deaths, d)
		if w.between != nil {
			w.between(i)
		}
	}
	return deaths, nil
}

// live starts a server and sees it die.
func (w *world) live(l life, beside ...string) (death, error) {
	before := w.work()
	p, err := w.serve(l)
	if errors.Is(err, errDied) {
		return w.buried(l, p, before)
	}
	if err != nil {
		return death{}, err
	}
	w.slow.Store(l.end == endShutdown) // or nothing would wait to be given back
	defer w.slow.Store(false)
	urls := append([]string{p.url}, beside...)
	w.urls.Store(&urls)
	defer w.urls.Store(&beside)
	switch l.end {
	case endKill:
		w.wait(p, l.after)
		p.kill()
		return death{endKill, w.work() - before}, nil
	case endShutdown:
		w.wait(p, l.after)
		err := p.terminate(20 * time.Second)
		if err == nil { // it had nothing to give back
			return death{"", 0}, nil
		}
	default:
		w.wait(p, l.patience)
		select {
		case <-p.ended:
		default: // the point was not passed often enough
			p.kill()
			return death{endKill, w.work() - before}, nil
		}
	}
	return w.buried(l, p, before)
}

// buried looks at how a server died.
func (w *world) buried(l life, p *process, before int) (death, error) {
	if !p.killed() {
		return death{}, fmt.Errorf("the server ended by itself in %s: %w\n%s", l.name(), p.err, w.logEnd())
	}
	return death{l.name(), w.work() - before}, nil
}

// didAll reports whether some work of each kind was acknowledged, without which
// nothing of it can be found lost.
func (w *world) didAll() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	bought := slices.Contains(slices.Collect(maps.Values(w.bought)), acknowledged)
	return bought && len(w.requests) > 0 && len(w.imported) > 0
}

func (w *world) wait(p *process, d time.Duration) {
	select {
	case <-p.ended:
	case <-w.ctx.Done():
	case <-time.After(d):
	}
}

func (w *world) work() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.row.Work
}

// outlive has PostgreSQL die under a server, which must live on.
func (w *world) outlive(h host, p *process) (deaths []death, err error) {
	for _, l := range w.plan.lives {
		before := w.work()
		w.wait(p, l.after)
		do := h.killBackend
		if l.end == endServer {
			do = h.crash
		}
		if err := do(w.ctx); err != nil {
			return deaths, fmt.Errorf("%s: %w", l.end, err)
		}
		// Work must go on by itself.
		for late := time.After(w.patience); w.work() == before; {
			select {
			case <-p.ended:
				return deaths, fmt.Errorf("the server died with PostgreSQL: %w\n%s", p.err, w.logEnd())
			case <-late:
				return deaths, fmt.Errorf("nothing was acknowledged within %s of %s", w.patience, l.end)
			case <-w.ctx.Done():
				return deaths, w.ctx.Err()
			case <-time.After(10 * time.Millisecond):
			}
		}
		deaths = append(deaths, death{l.end, w.work() - before})
	}
	return deaths, nil
}

// finish lets all that was asked for end, and the server.
func (w *world) finish(p *process) error {
	w.urls.Store(&[]string{p.url})
	for late := time.After(w.patience); !w.didAll(); {
		select {
		case <-p.ended:
			return fmt.Errorf("the last server died: %w\n%s", p.err, w.logEnd())
		case <-late:
			return fmt.Errorf("within %s of the last death no request, no purchase or no import was acknowledged\n%s", w.patience, w.logEnd())
		case <-w.ctx.Done():
			return w.ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	close(w.stop)
	w.working.Wait()
	if err := w.rest(); err != nil {
		return err
	}
	w.urls.Store(&[]string{})
	if err := p.terminate(20 * time.Second); err != nil {
		return fmt.Errorf("the last server ended with %w\n%s", err, w.logEnd())
	}
	return w.ctx.Err()
}

// rest waits until nothing is left to do: what was told to a listener just before a
// death is told again when the lease on it has ended.
func (w *world) rest() error {
	s, err := store.Open(w.ctx, w.database, store.Options{})
	if err != nil {
		return err
	}
	for late := time.Now().Add(w.patience); err == nil; {
		var open int
		err = w.eachRequest(w.ctx, s, func(r store.KeptRequest) {
			if r.Ended < r.Total {
				open++
			}
		})
		var unsealed []license.AuditEntry // verify says nothing of those
		if err == nil {
			unsealed, err = s.Unsealed(w.ctx, 1)
		}
		if err == nil && open+len(unsealed) == 0 && !w.owes() || time.Now().After(late) {
			break // check tells what is still open
		}
		if !sleep(w.ctx, 100*time.Millisecond) {
			err = w.ctx.Err()
		}
	}
	return errors.Join(err, s.Close())
}

// owes reports whether the carrier has outcomes to bring.
func (w *world) owes() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.carrier.owed) > 0
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// passed names the points that some server of the world passed, and how often one
// died at each.
func (w *world) passed() (passed []string, died map[string]int, err error) {
	f, err := os.Open(w.crashLog())
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	died = map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		what, name, _ := strings.Cut(lines.Text(), " ")
		if what == "died" {
			died[name]++
		} else {
			passed = append(passed, name)
		}
	}
	slices.Sort(passed)
	return slices.Compact(passed), died, nil
}

func (w *world) logEnd() string {
	log, _ := os.ReadFile(w.log.Name()) // as much as there is
	return string(log[max(0, len(log)-3000):])
}
