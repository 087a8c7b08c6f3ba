package main

import (
	"crypto/rand"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/internal/store/storetest"
)

// sent is a database with callbacks in every state.
type sent struct {
	t    *testing.T
	s    *store.Store
	url  string
	now  time.Time
	sims []license.SIM
	// The requests: one whose callback was given up, one whose was acknowledged,
	// and one of a waiting, a stuck and a SIM at the carrier.
	missed, heard, mixed license.RequestID
}

func newSent(t *testing.T) *sent {
	t.Helper()
	s := &sent{t: t, url: "sqlite:" + filepath.Join(t.TempDir(), "test.db"), now: storetest.Start()}
	var err error
	if s.s, err = store.Open(t.Context(), s.url, store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.s.Close() })
	if _, err := s.s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.sims = storetest.Seed(t, s.s, storetest.Fixture{SIMs: 6})
	s.listen()
	s.missed = s.assign(license.Done, s.sims[0])
	s.deliver(license.Again, 500)
	s.now = s.now.Add(5 * time.Minute)
	s.deliver(license.Exhausted, 410)
	s.heard = s.assign(license.Refused, s.sims[1])
	s.deliver(license.Delivered, 200)
	s.mixed = s.assign(license.Done, s.sims[2])
	return s
}

func (s *sent) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *sent) listen() {
	s.t.Helper()
	s.must(s.s.PutListener(s.t.Context(), license.Listener{
		Account: storetest.Account, Service: license.CarrierService, URL: "https://example.test/",
	}, s.now))
}

// assign has SIMs assigned an hour later, of which the carrier answers for the
// first.
func (s *sent) assign(v license.Verdict, sims ...license.SIM) license.RequestID {
	s.t.Helper()
	s.now = s.now.Add(time.Hour)
	r, err := license.NewRequest(license.NewRequestID(s.now, rand.Reader), storetest.Account, license.SKUFlexible,
		license.Assign, storetest.Devices(sims), s.now)
	s.must(err)
	a, err := s.s.Accept(s.t.Context(), license.AcceptParams{Request: r, Room: len(sims), LeaseUntil: s.now.Add(time.Minute)})
	s.must(err)
	_, err = s.s.SettleTasks(s.t.Context(), license.SettleParams{Now: s.now, Outcomes: []license.Outcome{
		{Task: a.Tasks[0], Verdict: v, Code: "c", Comment: "no\x1b[2J"},
	}})
	s.must(err)
	return a.ID
}

// deliver ends the one attempt that is due.
func (s *sent) deliver(v license.DeliveryVerdict, status int) {
	s.t.Helper()
	calls, err := s.s.ClaimCallbacks(s.t.Context(), license.ClaimParams{Account: storetest.Account, Now: s.now, Until: s.now.Add(time.Minute), Limit: 9})
	s.must(err)
	if len(calls) != 1 {
		s.t.Fatalf("%d callbacks are due, want one", len(calls))
	}
	s.must(s.s.FinishCallbacks(s.t.Context(), s.now, []license.Delivery{{
		Callback: calls[0], Verdict: v, Status: status, Latency: 12 * time.Millisecond,
		Answer: []byte("gone\x1b[2J\nfor good"), At: s.now, Due: s.now.Add(5 * time.Minute),
	}}))
}

func (s *sent) iccid(i int) string { return string(s.sims[i].Device.ICCID) }

func (s *sent) run(args ...string) (status int, out, messages string) {
	s.t.Helper()
	return simlatch(s.t, "", append([]string{"callback"}, append(args, "--database", s.url)...)...)
}

// want runs a command that must succeed and print exactly that.
func (s *sent) want(out string, args ...string) {
	s.t.Helper()
	if status, got, messages := s.run(args...); status != exitDone || got != out {
		s.t.Errorf("callback %s ended with %d and printed\n%swant\n%s%s", strings.Join(args, " "), status, got, out, messages)
	}
}

// refused runs a command that must fail and say something.
func (s *sent) refused(status int, message string, args ...string) {
	s.t.Helper()
	if got, out, messages := s.run(args...); got != status || out != "" || !regexp.MustCompile("(?m)"+message).MatchString(messages) {
		s.t.Errorf("callback %s ended with %d, printed %q and said %q, want %d and %q", strings.Join(args, " "), got, out, messages, status, message)
	}
}

func TestCallbackList(t *testing.T) {
	s := newSent(t)
	id := strings.NewReplacer("MISSED", string(s.missed), "HEARD", string(s.heard), "MIXED", string(s.mixed),
		"SIM0", s.iccid(0), "SIM1", s.iccid(1), "SIM2", s.iccid(2)).Replace
	const head = "account,request,iccid,outcome,state,attempts,round,status,ended,due\n"
	missedLine := "0000123456-00001,MISSED,SIM0,done,undelivered,2,0,410,2026-01-05T13:05:00Z,\n"
	heardLine := "0000123456-00001,HEARD,SIM1,refused,delivered,1,0,200,2026-01-05T14:05:00Z,\n"
	mixedLine := "0000123456-00001,MIXED,SIM2,done,waiting,0,0,,,2026-01-05T15:05:00Z\n"
	s.want(id(head+missedLine), "list", "-o", "csv")
	s.want(id(head+mixedLine+heardLine+missedLine), "list", "-o", "csv", "--state", "all")
	s.want(id(head+heardLine), "list", "-o", "csv", "--state", "delivered", "--account", "000012345600001")
	s.want(id(head+heardLine), "list", "-o", "csv", "--state", "all", "--request", strings.ToUpper(string(s.heard)))
	s.want(id(head+heardLine), "list", "-o", "csv", "--state", "all", "--since", "2026-01-05T14:00:00Z", "--until", "2026-01-05T15:00:00Z")
	s.want(head, "list", "-o", "csv", "--state", "unsent")
	s.want("[]\n", "list", "-o", "json", "--since", "1h")

	_, out, messages := s.run("list", "--state", "all", "--limit", "2")
	if strings.Count(out, "\n") != 3 || messages != "simlatch: there are more; --limit 0 lists all\n" {
		t.Errorf("list --limit 2 printed\n%sand said %q", out, messages)
	}
	if _, out, messages := s.run("list", "--state", "all", "--limit", "3"); strings.Count(out, "\n") != 4 || messages != "" {
		t.Errorf("list --limit 3 printed\n%sand said %q", out, messages)
	}
}

func TestCallbackShow(t *testing.T) {
	s := newSent(t)
	want := `account       0000123456-00001
request       ` + string(s.missed) + `
action        assign
sku           SIMSec-IoT
iccid         ` + s.iccid(0) + `
imei          ` + string(s.sims[0].Device.IMEI) + `
mdn           ` + string(s.sims[0].Device.MDN) + `
webhook-id    msg_` + string(s.missed) + "_" + s.iccid(0) + `
accepted      2026-01-05T13:00:00Z
settled       2026-01-05T13:00:00Z
outcome       done
code          "c"
comment       "no\x1b[2J"
state         undelivered
round         0
attempts      2
last status   410
last latency  12ms
ended         2026-01-05T13:05:00Z

ROUND  ATTEMPT  ENDED                 STATUS  LATENCY  ANSWER
0      1        2026-01-05T13:00:00Z  500     12ms     "gone\x1b[2J\nfor good"
0      2        2026-01-05T13:05:00Z  410     12ms     "gone\x1b[2J\nfor good"
`
	s.want(want, "show", string(s.missed), s.iccid(0))
	_, out, _ := s.run("show", string(s.missed), s.iccid(0), "--output", "json", "--account", string(storetest.Account))
	var got struct {
		State    string
		Attempts int
		Failures []struct{ Attempt, Status int }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.State != "undelivered" || got.Attempts != 2 || len(got.Failures) != 2 || got.Failures[1].Status != 410 {
		t.Errorf("show --output json printed %s (%v)", out, err)
	}
	if status, out, _ := s.run("show", string(s.mixed), s.iccid(2)); status != exitDone || !strings.Contains(out, "waiting") || strings.Contains(out, "ROUND") {
		t.Errorf("show of one that waits ended with %d and printed\n%s", status, out)
	}
}

func TestCallbackSend(t *testing.T) {
	s := newSent(t)
	many := s.assign(license.Stuck, s.sims[3:6]...)
	request := func(id license.RequestID, more ...string) []string {
		return append([]string{"send", "--request", string(id)}, more...)
	}
	s.refused(exitFailed, `SIM \d+ in request .* was acknowledged at 2026-01-05T14:05:00Z; --delivered`, request(s.heard, "--iccid", s.iccid(1))...)
	s.refused(exitFailed, `is not ended yet: it is sent by itself, and due at 2026-01-05T15:05:00Z`, request(s.mixed, "--iccid", s.iccid(2))...)
	s.refused(exitFailed, `is not there yet: the carrier stayed silent \(see 'simlatch stuck list`, request(many, "--iccid", s.iccid(3))...)
	s.refused(exitFailed, `is not there yet: the device is still at the carrier`, request(many, "--iccid", s.iccid(4))...)
	s.refused(exitFailed, `has no device with ICCID`, request(many, "--iccid", s.iccid(0))...)
	s.refused(exitFailed, `nothing to send again: 1 acknowledged`, request(s.heard)...)
	s.refused(exitFailed, `nothing to send again: 1 still waiting, and sent by themselves$`, request(s.mixed)...)
	s.refused(exitFailed, `nothing to send again: 2 still at the carrier, 1 stuck at the carrier`, request(many, "--delivered")...)
	s.refused(exitFailed, `nothing to send again$`, "send", "--account", string(storetest.Account), "--since", "1h")

	all := []string{"send", "--account", string(storetest.Account), "--since", "2026-01-05T00:00:00Z"}
	s.must(s.s.DeleteListener(t.Context(), storetest.Account, license.CarrierService))
	for _, args := range [][]string{all, append(all, "--dry-run"), request(s.missed), request(s.missed, "--iccid", s.iccid(0))} {
		s.refused(exitFailed, `account 0000123456-00001 has no listener for CarrierService, so nothing would be sent: .*POST /api/m2m/v1/callbacks/0000123456-00001`, args...)
	}
	s.listen()
	s.want("1 would be queued\n", append(all, "--dry-run")...)
	s.want("2 would be queued\n", append(all, "--dry-run", "--delivered")...)
	s.want("1 would be queued\n", request(s.heard, "--iccid", s.iccid(1), "--delivered", "--dry-run")...)
	s.want("1 queued\n", all...)
	s.refused(exitFailed, `nothing to send again$`, all...)
	s.want("1 queued\n", request(s.heard, "--delivered")...)

	// What was queued is due, and only that.
	s.now = time.Now()
	calls, err := s.s.ClaimCallbacks(t.Context(), license.ClaimParams{Account: storetest.Account, Now: s.now, Until: s.now, Limit: 9})
	s.must(err)
	got := map[license.RequestID]int{}
	for _, c := range calls {
		got[c.Request] = 10*c.Round + c.Attempt
	}
	if diff := cmp.Diff(map[license.RequestID]int{s.missed: 10, s.heard: 10, s.mixed: 0}, got); diff != "" {
		t.Errorf("the rounds and attempts of what is due (-want +got):\n%s", diff)
	}
	if status, out, messages := simlatch(t, "", "verify", "--database", s.url); status != exitDone {
		t.Errorf("verify: %d, %s%s", status, out, messages)
	}
}

// TestCallbackSendLeavesAlone sends a part of a request, and says what it left.
func TestCallbackSendLeavesAlone(t *testing.T) {
	s := newSent(t)
	s.must(s.s.DeleteListener(t.Context(), storetest.Account, license.CarrierService))
	part := s.assign(license.Refused, s.sims[3:6]...)
	s.listen()
	status, out, messages := s.run("send", "--request", string(part))
	if status != exitDone || out != "1 queued\n" || messages != "simlatch: left alone: 2 still at the carrier\n" {
		t.Errorf("ended with %d, printed %q and said %q", status, out, messages)
	}
}

// TestCallbackOfSeveralAccounts has a request in two accounts, and one that was
// purged.
func TestCallbackOfSeveralAccounts(t *testing.T) {
	s := newSent(t)
	const other license.AccountName = "0000999999-00001"
	sims := storetest.Seed(t, s.s, storetest.Fixture{Account: other, SIMs: 1})
	r, err := license.NewRequest(s.missed, other, license.SKUFlexible, license.Assign, storetest.Devices(sims), s.now)
	s.must(err)
	_, err = s.s.Accept(t.Context(), license.AcceptParams{Request: r})
	s.must(err)
	s.refused(exitUsage, `2 accounts have a request .*: name one with --account`, "show", string(s.missed), s.iccid(0))
	s.refused(exitUsage, `name one with --account`, "send", "--request", string(s.missed))
	s.want("1 queued\n", "send", "--request", string(s.missed), "--account", string(storetest.Account))
	s.refused(exitFailed, `there is no request .* of account 0000999999-00001`, "send", "--request", string(s.heard), "--account", string(other))

	_, err = s.s.Purge(t.Context(), s.now.Add(48*time.Hour), time.Hour)
	s.must(err)
	for _, args := range [][]string{{"list", "--request", string(s.heard)}, {"show", string(s.heard), s.iccid(1)}, {"send", "--request", string(s.heard)}} {
		s.refused(exitFailed, `are no longer kept: they were purged at 2026-01-07`, args...)
	}
}
