package callback

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
	"github.com/simlatch/simlatch/m2m"
)

// TestStore delivers out of the real outbox: half of the callbacks born leased,
// half claimed, some refused by the carrier, each acknowledged when it comes for
// the second time.
func TestStore(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		tasks := accepted(t, s, 30)
		seen := &secondTime{t: t, got: map[string]end{}}
		srv := httptest.NewServer(seen)
		defer srv.Close()
		listener := license.Listener{Account: storetest.Account, Service: license.CarrierService, URL: srv.URL}
		if err := s.PutListener(ctx, listener, time.Now()); err != nil {
			t.Fatal(err)
		}
		sender, err := New(Config{Outbox: s, Guard: loopback(), Interval: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- sender.Run(run) }()

		want := map[string]end{}
		var outcomes []license.Outcome
		for i, task := range tasks {
			o, e := license.Outcome{Task: task, Verdict: license.Done}, end{m2m.CallbackSuccess, []int{1, 2}}
			if i%5 == 0 {
				o.Verdict, o.Comment, e.Status = license.Refused, "barred", m2m.CallbackFailed
			}
			outcomes, want[string(task.Device.ICCID)] = append(outcomes, o), e
		}
		var room int
		until(t, "the sender runs", func() bool { room = sender.Reserve(storetest.Account, 15); return room == 15 })
		settled, err := s.SettleTasks(ctx, license.SettleParams{
			Now: time.Now(), Outcomes: outcomes,
			Room: map[license.AccountName]int{storetest.Account: room}, LeaseUntil: time.Now().Add(20 * time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
		sender.Give(storetest.Account, room, settled.Callbacks)
		sender.Wake()
		until(t, "every callback has been acknowledged", func() bool { return seen.acknowledged() == len(want) })
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		due, err := s.DueAccounts(ctx, license.PhaseListener, time.Now().Add(time.Hour))
		if err != nil || len(due) > 0 {
			t.Errorf("still due or leased: %+v, %v", due, err)
		}
		if diff := cmp.Diff(want, seen.got); diff != "" {
			t.Errorf("callbacks (-want +got):\n%s", diff)
		}
	})
}

// end is what a listener was told of one SIM.
type end struct {
	Status string
	Counts []int
}

// secondTime is a listener that acknowledges each SIM's callback when it comes
// for the second time.
type secondTime struct {
	t   *testing.T
	mu  sync.Mutex
	got map[string]end // by ICCID
}

func (l *secondTime) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var m m2m.CallbackMessage
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		l.t.Errorf("decoding a callback: %v", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.got[m.DeviceIDs[0].ID]
	l.got[m.DeviceIDs[0].ID] = end{m.Status, append(e.Counts, m.CallbackCount)}
	if len(e.Counts) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// acknowledged counts the SIMs whose callback came twice.
func (l *secondTime) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.got {
		if len(e.Counts) > 1 {
			n++
		}
	}
	return n
}

// accepted has n devices' assignment accepted and claims their tasks.
func accepted(t *testing.T, s *store.Store, n int) []license.Task {
	t.Helper()
	now := time.Now()
	sims := storetest.Seed(t, s, storetest.Fixture{SIMs: n})
	r, err := license.NewRequest(license.NewRequestID(now, rand.Reader), storetest.Account, license.SKUFlexible, license.Assign,
		storetest.Devices(sims), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Accept(t.Context(), license.AcceptParams{Request: r}); err != nil {
		t.Fatal(err)
	}
	tasks, err := s.ClaimTasks(t.Context(), license.ClaimParams{Account: storetest.Account, Now: now, Until: now.Add(time.Minute), Limit: n})
	if err != nil || len(tasks) != n {
		t.Fatalf("claimed %d tasks, %v, want %d", len(tasks), err, n)
	}
	return tasks
}
