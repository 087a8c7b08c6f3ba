package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// sentUpstream is a batch of accepted tasks, written down.
func sentUpstream(t *testing.T, s *store.Store, sims []license.SIM, key string) (license.UpstreamBatch, []license.Task) {
	t.Helper()
	now := storetest.Start()
	r, err := license.NewRequest(license.RequestID("request-"+key), storetest.Account, license.SKUFlexible, license.Assign, storetest.Devices(sims), now)
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Accept(t.Context(), license.AcceptParams{Request: r, Room: len(sims), LeaseUntil: now.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	b := license.UpstreamBatch{
		Account: storetest.Account, Request: a.ID, Key: key, SKU: license.SKUFlexible, Action: license.Assign,
		Devices: storetest.Devices(sims), Sent: now,
	}
	if ok, err := s.BeginUpstream(t.Context(), b); !ok || err != nil {
		t.Fatalf("BeginUpstream = %v, %v", ok, err)
	}
	return b, a.Tasks
}

func word(b license.UpstreamBatch, i int, ok bool) license.UpstreamWord {
	w := license.UpstreamWord{Account: b.Account, Remote: b.Remote, ICCID: b.Devices[i].ICCID, OK: ok, SKU: b.SKU, Action: b.Action}
	if !ok {
		w.SKU, w.Action, w.Code, w.Comment = "", "", "X", "No."
	}
	return w
}

func TestUpstreamBatches(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		ctx, now := t.Context(), storetest.Start()
		sims := storetest.Seed(t, s, storetest.Fixture{SIMs: 4})
		b, _ := sentUpstream(t, s, sims, "a")
		begin := func(key string, devices []license.Device, want bool) {
			t.Helper()
			other := b
			other.Key, other.Devices = key, devices
			if ok, err := s.BeginUpstream(ctx, other); ok != want || err != nil {
				t.Errorf("BeginUpstream(%s) = %v, %v; want %v", key, ok, err, want)
			}
		}
		begin("a", b.Devices, true) // a repeat, after a commit whose answer was lost
		begin("b", b.Devices[:2], false)
		for _, want := range []bool{true, false} { // one caller in a while
			if ok, err := s.RetryUpstream(ctx, b, now.Add(time.Minute), now); ok != want || err != nil {
				t.Errorf("RetryUpstream = %v, %v; want %v", ok, err, want)
			}
		}
		if err := s.ReleaseUpstream(ctx, b, 2); err != nil {
			t.Fatal(err)
		}
		begin("b", b.Devices[:2], true)
		begin("c", b.Devices[1:], false) // one of them is in b
		begin("c", b.Devices[2:], true)
		b.Key, b.Devices, b.Remote = "b", b.Devices[:2], "remote"
		if err := s.NameUpstream(ctx, b); err != nil {
			t.Fatal(err)
		}
		if err := s.DecideUpstream(ctx, b, license.Refused, "code", "words"); err != nil {
			t.Fatal(err)
		}
		got, err := s.UpstreamBatch(ctx, b.Account, b.Request, "b")
		b.Refused, b.Devices[0].MDN, b.Devices[1].MDN = 2, "", ""
		got.Sent = b.Sent
		if diff := cmp.Diff(b, got); diff != "" || err != nil {
			t.Errorf("UpstreamBatch: %v (-want +got):\n%s", err, diff)
		}
		tasks, err := s.UpstreamTasks(ctx, b.Account, b.Request, []license.ICCID{sims[0].Device.ICCID, sims[2].Device.ICCID})
		if err != nil || len(tasks) != 2 || tasks[0].Verdict != license.Refused || tasks[0].Remote != "remote" || tasks[1].Key != "c" || tasks[1].Most != 2 {
			t.Errorf("UpstreamTasks = %+v, %v", tasks, err)
		}
	})
}

// What an upstream says settles tasks whoever holds them, once.
func TestHearUpstream(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := storetest.Start()
		sims := storetest.Seed(t, s, storetest.Fixture{SIMs: 6})
		b, tasks := sentUpstream(t, s, sims[:4], "a")
		lost, _ := sentUpstream(t, s, sims[4:], "lost") // whose answer never comes
		b.Remote, lost.Remote = "remote", "elsewhere"
		if err := s.NameUpstream(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		// One of them is stuck by then.
		if _, err := s.SettleTasks(t.Context(), license.SettleParams{Now: now, Outcomes: []license.Outcome{{Task: tasks[2], Verdict: license.Stuck}}}); err != nil {
			t.Fatal(err)
		}
		other := word(b, 3, true)
		other.SKU = license.SKULifetime
		for _, tt := range []struct {
			word license.UpstreamWord
			want license.UpstreamHearing
		}{
			{word(b, 0, true), license.HearingTaken},
			{word(b, 0, true), license.HearingRepeated},
			{word(b, 0, false), license.HearingContradicts},
			{word(b, 1, false), license.HearingTaken},
			{word(b, 2, true), license.HearingTaken},
			{other, license.HearingContradicts},
			{word(lost, 0, false), license.HearingEarly},
			{word(lost, 0, true), license.HearingTaken},
			{license.UpstreamWord{Account: b.Account, Remote: "remote", ICCID: sims[4].Device.ICCID, OK: true}, license.HearingUnknown},
			{license.UpstreamWord{Account: b.Account, Remote: "nobody's", ICCID: "89148000000000009999", OK: true}, license.HearingUnknown},
		} {
			meant, _, err := s.HearUpstream(t.Context(), now, b.Account, []license.UpstreamWord{tt.word})
			if err != nil || len(meant) != 1 || meant[0] != tt.want {
				t.Errorf("HearUpstream(%+v) = %v, %v; want %v", tt.word, meant, err, tt.want)
			}
		}
		checkFlexible(t.Context(), t, s, 3, 2)
	})
}

// An operator's word has a task sent again.
func TestStuckUpstreamSentAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, s *store.Store) {
		now := storetest.Start()
		b, tasks := sentUpstream(t, s, storetest.Seed(t, s, storetest.Fixture{SIMs: 2}), "a")
		var stuck []license.Outcome
		for _, task := range tasks {
			stuck = append(stuck, license.Outcome{Task: task, Verdict: license.Stuck})
		}
		if _, err := s.SettleTasks(t.Context(), license.SettleParams{Now: now, Outcomes: stuck}); err != nil {
			t.Fatal(err)
		}
		list, err := s.StuckTasks(t.Context(), b.Account)
		if err != nil || len(list) != 2 {
			t.Fatalf("StuckTasks = %v, %v", list, err)
		}
		if err := s.ResolveStuck(t.Context(), list[0], license.Retry, "not in the portal", now); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"", "a"} {
			got, err := s.UpstreamTasks(t.Context(), b.Account, b.Request, []license.ICCID{list[i].Device.ICCID})
			if err != nil || len(got) != 1 || got[0].Key != want {
				t.Errorf("UpstreamTasks = %+v, %v; want one in batch %q", got, err, want)
			}
		}
	})
}

// checkFlexible checks the pool that these tests use.
func checkFlexible(ctx context.Context, t *testing.T, s *store.Store, assigned, reserved int64) {
	t.Helper()
	pools, err := s.Pools(ctx, storetest.Account)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pools {
		if p.SKU == license.SKUFlexible && (p.Assigned != assigned || p.Reserved != reserved) {
			t.Errorf("pool %+v, want %d assigned and %d reserved", p, assigned, reserved)
		}
	}
}
