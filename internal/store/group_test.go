package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

func openGroup(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "group.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// together has the calls run in one group: they queue up while another call
// holds the writer.
func together(t *testing.T, s *Store, calls map[string]func(*tx) error) map[string]error {
	t.Helper()
	holding, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.write(context.Background(), "holder", 1, func(*tx) error {
			close(holding)
			<-release
			return nil
		})
	})
	<-holding
	var mu sync.Mutex
	got := map[string]error{}
	for name, fn := range calls {
		wg.Go(func() {
			err := s.write(context.Background(), license.AccountName(name), 1, fn)
			mu.Lock()
			defer mu.Unlock()
			got[name] = err
		})
	}
	for queued := 0; queued < len(calls); {
		s.group.mu.Lock()
		queued = len(s.group.queue.light.of)
		s.group.mu.Unlock()
	}
	close(release)
	wg.Wait()
	return got
}

func addAccount(name string) func(*tx) error {
	return func(tx *tx) error {
		_, err := tx.exec(insertAccount, name, 1)
		return err
	}
}

// TestGroupKeepsCallsApart has calls fail in every way beside calls that
// succeed: these stand, once, and nothing of the others does.
func TestGroupKeepsCallsApart(t *testing.T) {
	refusal := errors.New("refused")
	after := func(name string, then func(*tx) error) func(*tx) error {
		return func(tx *tx) error {
			if err := addAccount(name)(tx); err != nil {
				return err
			}
			return then(tx)
		}
	}
	for _, test := range []struct {
		name string
		bad  func(*tx) error
		want string // in the error
	}{
		{"refusal", func(*tx) error { return refusal }, "refused"},
		{"constraint", func(tx *tx) error {
			_, err := tx.exec(`INSERT INTO pool (account, sku, purchased, assigned) VALUES ('a', 'b', 1, 2)`)
			return err
		}, "CHECK"},
		{"constraint that is ignored", func(tx *tx) error {
			_, _ = tx.exec(`INSERT INTO pool (account, sku, purchased, assigned) VALUES ('a', 'b', 1, 2)`)
			return refusal
		}, "refused"},
		{"panic", func(*tx) error { panic("a bug") }, "a bug"},
		{"wrong statement", func(tx *tx) error {
			_, err := tx.exec(`SELECT 1 FROM nowhere`)
			return err
		}, "no such table"},
		{"transaction lost", func(tx *tx) error { // as SQLite does on a full disk
			_, err := tx.exec(`ROLLBACK`)
			return err
		}, "call"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openGroup(t)
			got := together(t, s, map[string]func(*tx) error{
				"1": addAccount("one"), "2": after("bad", test.bad), "3": addAccount("three"), "4": after("worse", test.bad),
			})
			for _, bad := range []string{"2", "4"} {
				if err := got[bad]; err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("the bad call: %v, want %q", err, test.want)
				}
			}
			if got["1"] != nil || got["3"] != nil {
				t.Errorf("the good calls: %v, %v", got["1"], got["3"])
			}
			names, err := s.Accounts(t.Context())
			if want := []license.AccountName{"one", "three"}; err != nil || !slices.Equal(names, want) {
				t.Errorf("stored: %v, %v; want %v", names, err, want)
			}
		})
	}
}

// TestGroupWithImpatientCallers has callers give up at every moment: who is
// told that its context ended has changed nothing, who is told of success has.
func TestGroupWithImpatientCallers(t *testing.T) {
	s := openGroup(t)
	const callers = 400
	told := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%80)*100*time.Microsecond)
			defer cancel()
			told[i] = s.write(ctx, license.AccountName(fmt.Sprint(i%7)), 1, addAccount(fmt.Sprintf("account-%03d", i)))
		})
	}
	wg.Wait()
	names, err := s.Accounts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	for i, err := range told {
		_, stored := slices.BinarySearch(names, license.AccountName(fmt.Sprintf("account-%03d", i)))
		switch {
		case err == nil && !stored:
			t.Errorf("caller %d was told of success, and nothing is stored", i)
		case err != nil && stored:
			t.Errorf("caller %d was told %v, and it is stored", i, err)
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("caller %d: %v", i, err)
		case err == nil:
			done++
		}
	}
	if done == 0 || done == callers {
		t.Logf("%d of %d callers were served: the test had no choice to make", done, callers)
	}
}

// TestGroupTakesTurns has one account queue many calls and others one each: the
// others need not wait for all of them.
func TestGroupTakesTurns(t *testing.T) {
	s := openGroup(t)
	g := &group{s: s, queue: newQueue()}
	queue := func(account license.AccountName, weight int) {
		g.queue.add(asking(account, weight))
	}
	for range 5 {
		queue("greedy", 400)
	}
	queue("huge", 10_000)
	queue("modest", 1)
	var sizes [][]int
	for {
		calls, _, _ := g.take()
		if len(calls) == 0 {
			break
		}
		var weights []int
		for _, c := range calls {
			weights = append(weights, c.weight)
		}
		sizes = append(sizes, weights)
	}
	want := "[[1] [400 400] [400 400] [10000] [400]]"
	if got := fmt.Sprint(sizes); got != want {
		t.Errorf("groups %s, want %s", got, want)
	}
}

// TestHeavyCallsWait has a client queue large requests one after the other while
// the workers settle: the workers write their share between two of them, and no more.
func TestHeavyCallsWait(t *testing.T) {
	s := openGroup(t)
	g := &group{s: s, queue: newQueue()}
	heavy, light := 0, 0
	for heavy < 5 {
		if g.queue.heavy.first() == nil {
			g.queue.add(asking("client", 10_000))
		}
		g.queue.add(asking("worker", 500))
		calls, _, _ := g.take()
		if calls[0].weight == 10_000 {
			heavy++
		} else {
			light += len(calls)
		}
		const least, most = 10_000 / heavyShare / 500, (10_000/heavyShare + maxGroup) / 500
		if light > (heavy+1)*most || light < heavy*least {
			t.Fatalf("%d light calls went and %d heavy ones, want %d to %d for each", light, heavy, least, most)
		}
	}
}

// TestGroupForgetsWhoGaveUp has callers of one account give up one after the
// other while the writer is busy: the account keeps one turn, not one for each.
func TestGroupForgetsWhoGaveUp(t *testing.T) {
	s := openGroup(t)
	holding, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.write(context.Background(), "holder", 1, func(*tx) error {
			close(holding)
			<-release
			return nil
		})
	})
	<-holding
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := s.write(ctx, "hasty", 1, addAccount("hasty")); !errors.Is(err, context.Canceled) {
			t.Fatalf("a write that was given up: %v", err)
		}
	}
	s.group.mu.Lock()
	turns, queues := len(s.group.queue.light.turns), len(s.group.queue.light.of)
	s.group.mu.Unlock()
	if turns != 0 || queues != 0 {
		t.Errorf("%d turns and %d queues are left of callers who gave up, want none", turns, queues)
	}
	close(release)
	wg.Wait()
}

func TestClosedStore(t *testing.T) {
	s := openGroup(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.write(t.Context(), "a", 1, addAccount("a")); !errors.Is(err, errClosed) {
		t.Errorf("a write after Close: %v, want errClosed", err)
	}
}
