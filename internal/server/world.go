package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/sandbox"
	"github.com/simlatch/simlatch/internal/store"
)

// world is one service of a sandbox: what its box surrounds. The service is
// replaced, behind the same address, when its state is.
type world struct {
	sandbox  *Sandbox
	box      *sandbox.Box
	database string // the file; empty: memory
	url      string
	listener net.Listener
	http     *http.Server
	ended    chan struct{} // closed when run has returned

	mu      sync.RWMutex // held by calls while they use what follows, and to replace it
	core    *core
	handler http.Handler
	stop    func() error // ends the work and waits for it
	end     func()       // ends run, of a namespace
}

// begin opens the service, with the seed where the database is new, and has it
// work.
func (w *world) begin(ctx context.Context) error {
	if w.database != "" {
		return w.open(ctx, w.database, "", w.box.Spec().Seed)
	}
	from, err := w.sandbox.template(ctx, w.box.Spec().Seed)
	if err != nil {
		return fmt.Errorf("loading the seed: %w", err)
	}
	return w.open(ctx, store.InMemory, from, "")
}

// open opens a service and has it work.
func (w *world) open(ctx context.Context, database, from, seed string) error {
	cfg := w.sandbox.config(database, w.box)
	cfg.from = from
	c := newCore(cfg.complete())
	err := c.openStore(ctx)
	if err == nil && seed != "" {
		err = c.plant(ctx, seed)
	}
	if err == nil {
		err = w.resume(ctx, c)
	}
	if err == nil {
		err = c.wire()
	}
	if err != nil {
		return errors.Join(err, c.close())
	}
	running, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.run(running) }()
	w.core, w.handler = c, c.handler()
	w.stop = func() error {
		cancel()
		return errors.Join(<-done, c.close())
	}
	return nil
}

// resume turns the clock, and the rest, to where they were when the database was
// last in use.
func (w *world) resume(ctx context.Context, c *core) error {
	state, err := c.store.KeptSandbox(ctx)
	if errors.Is(err, license.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.box.Resume(state)
}

// serve answers calls by the service there is.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	w.handler.ServeHTTP(rw, r)
}

// run serves until ctx ends.
func (w *world) run(ctx context.Context) error {
	defer close(w.ended)
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		var l net.Listener = plainListener{w.listener}
		if w.http.TLSConfig != nil {
			l = newSecureListener(w.listener, w.http.TLSConfig, w.sandbox.log)
		}
		if err := w.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving: %w", err)
		}
		return nil
	})
	group.Go(func() error { return w.box.Run(running) })
	group.Go(func() error {
		<-running.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := w.http.Shutdown(grace); err != nil {
			return w.http.Close() // those who wait for a fault to pass
		}
		return nil
	})
	err := group.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(err, w.stop())
}

// replace puts another service in the place of what there is.
func (w *world) replace(ctx context.Context, with func(ctx context.Context) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.stop(); err != nil {
		w.sandbox.log.WarnContext(ctx, "ending the service to replace its state", "error", err)
	}
	w.stop = func() error { return nil }
	if err := with(context.WithoutCancel(ctx)); err != nil {
		w.handler = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			answer(rw, http.StatusServiceUnavailable, map[string]any{"status": "the sandbox's state could not be replaced; reset it", "reason": err.Error()})
		})
		return err
	}
	return nil
}

// Reset puts the beginning in the place of what there is.
func (w *world) Reset(ctx context.Context) error {
	return w.replace(ctx, func(ctx context.Context) error {
		if err := w.removeFiles(); err != nil {
			return err
		}
		return w.begin(ctx)
	})
}

// Restore puts a database in the place of what there is.
func (w *world) Restore(ctx context.Context, database []byte) error {
	return withFile("snapshot.db", func(path string) error {
		if err := os.WriteFile(path, database, 0o600); err != nil {
			return err
		}
		if err := readable(ctx, path); err != nil {
			return err
		}
		return w.replace(ctx, func(ctx context.Context) error {
			if w.database == "" {
				return w.open(ctx, store.InMemory, path, "")
			}
			if err := w.removeFiles(); err != nil {
				return err
			}
			file, _ := SQLitePath(w.database)
			if err := os.WriteFile(file, database, 0o600); err != nil {
				return err
			}
			return w.open(ctx, w.database, "", "")
		})
	})
}

// readable refuses a database that cannot be opened, before another is given up
// for it.
func readable(ctx context.Context, path string) error {
	s, err := store.Open(ctx, store.InMemory, store.Options{From: path})
	if err != nil {
		return fmt.Errorf("%w: %w", sandbox.ErrSnapshot, err)
	}
	_, err = s.KeptSandbox(ctx)
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("%w: %w", sandbox.ErrSnapshot, err)
	}
	return nil
}

// removeFiles removes the database, where it is a file.
func (w *world) removeFiles() error {
	if w.database == "" {
		return nil
	}
	path, _ := SQLitePath(w.database)
	var errs []error
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Snapshot copies the database.
func (w *world) Snapshot(ctx context.Context) (database []byte, err error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	err = withFile("snapshot.db", func(path string) error {
		if err := w.core.store.Snapshot(ctx, path); err != nil {
			return err
		}
		database, err = os.ReadFile(path)
		return err
	})
	return database, err
}

// Keep keeps a text with the database.
func (w *world) Keep(ctx context.Context, state string) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.core.store.KeepSandbox(ctx, state)
}

// Plant adds a seed to what there is.
func (w *world) Plant(ctx context.Context, seed string) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.core.plant(ctx, seed)
}

// Idle reports whether nothing is being done and nothing is due.
func (w *world) Idle(ctx context.Context) (bool, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	now := w.box.Clock().Now()
	if w.core.worker.Held() > 0 || w.core.sender.Held() > 0 {
		return false, nil
	}
	for _, phase := range []license.Phase{license.PhaseCarrier, license.PhaseListener} {
		due, err := w.core.store.DueAccounts(ctx, phase, now)
		if err != nil || len(due) > 0 {
			return false, err
		}
	}
	return w.core.worker.Held() == 0 && w.core.sender.Held() == 0, nil
}

// NextDue is when the next work falls due.
func (w *world) NextDue(ctx context.Context) (time.Time, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.core.store.NextDue(ctx)
}

// Wake makes the workers look for due work at once.
func (w *world) Wake() {
	w.mu.RLock()
	defer w.mu.RUnlock()
	w.core.worker.Wake()
	w.core.sender.Wake()
}

// Hasten makes due what is put off at the carrier for a SIM.
func (w *world) Hasten(ctx context.Context, iccid license.ICCID) (bool, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.core.store.Hasten(ctx, iccid, w.box.Clock().Now())
}

// SetPolicy sets what an account may do.
func (w *world) SetPolicy(ctx context.Context, p license.Policy) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.core.store.SetPolicy(ctx, p, w.box.Clock().Now())
}

// Verify compares pools, entitlements and postings.
func (w *world) Verify(ctx context.Context) (drift []license.Drift, err error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	_, err = w.core.store.Verify(ctx, func(d license.Drift) { drift = append(drift, d) })
	return drift, err
}

// Fail answers a call as the API does in a plight.
func (w *world) Fail(rw http.ResponseWriter, r *http.Request, status int, after time.Duration) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	w.core.api.Fail(rw, r, status, after)
}

// shownDevices is how many SIMs of an account Info names.
const shownDevices = 100

// Info tells how to use the service.
func (w *world) Info(ctx context.Context) (sandbox.Info, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	spec := w.box.Spec()
	info := sandbox.Info{
		Name: spec.Name, URL: w.url, Sandbox: w.url + "/sandbox/v1", Inbox: "http://" + sandbox.InboxHost + "/",
		Application: spec.Application, User: spec.User, TestToken: spec.TestToken,
	}
	accounts, err := w.core.store.Accounts(ctx)
	if err != nil {
		return info, err
	}
	for _, name := range accounts {
		a := sandbox.Account{Name: string(name), Pools: map[string]int64{}, Devices: []sandbox.Device{}}
		pools, err := w.core.store.Pools(ctx, name)
		if err != nil {
			return info, err
		}
		for _, p := range pools {
			a.Pools[string(p.SKU)] = p.Available()
		}
		sims, err := w.core.store.Devices(ctx, license.DeviceFilter{Accounts: []license.AccountName{name}, Limit: shownDevices})
		if err != nil {
			return info, err
		}
		for _, s := range sims {
			a.Devices = append(a.Devices, sandbox.Device{
				ICCID: string(s.Device.ICCID), IMEI: string(s.Device.IMEI), MDN: string(s.Device.MDN),
				State: string(s.State), Generation: cmp.Or(string(s.Generation), "4G"),
			})
		}
		info.Accounts = append(info.Accounts, a)
	}
	return info, nil
}
