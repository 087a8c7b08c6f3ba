package simulation

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// audience are the listeners of all accounts, and what each has heard.
type audience struct {
	w        *world
	attempts int           // of the service
	interval time.Duration // of the service
	rooms    map[license.AccountName]*room
	heard    map[place]map[int]*round // by the round, from 0
}

// room is one account's listener.
type room struct {
	url     string    // empty: none is registered
	none    bool      // there was a time without one
	since   time.Time // when there was none the last time, or until now
	changes int
	mood    string
}

// The moods of a listener: what it does with most callbacks.
const (
	moodGood    = "good"
	moodFailing = "failing"
	moodHanging = "hanging"
	moodGone    = "gone"
)

// round is what a listener heard of one callback, until it was given up or
// acknowledged; each later round was begun by an operator.
type round struct {
	attempts []*attempt
	acked    bool // a 2xx arrived
	gone     bool // a 410 did
}

// attempt is one of the service's, which may have made it more than once: when
// its node died, or could not write it down.
type attempt struct {
	began, ended []time.Time
	room         int // changes of the room before
}

func newAudience(w *world) *audience {
	a := &audience{w: w, attempts: 4, interval: 5 * time.Minute, rooms: map[license.AccountName]*room{}, heard: map[place]map[int]*round{}}
	if w.chance(300) {
		a.attempts = 1 + w.upTo(4)
	}
	if w.chance(300) {
		a.interval = w.within(10*time.Second, 20*time.Minute)
	}
	for _, name := range accounts() {
		a.rooms[name] = &room{none: true, mood: moodGood}
	}
	return a
}

// registered notes that an account has a listener, or another.
func (a *audience) registered(l license.Listener) {
	r := a.rooms[l.Account]
	if r.url != "" && r.url != l.URL && a.waits(l.Account) {
		a.w.reach(listenerChanged)
	}
	if r.url == "" {
		r.since = a.w.now
	}
	r.url = l.URL
	r.changes++
	a.w.log("%s has the listener %s", l.Account, l.URL)
}

// removed notes that an account has none.
func (a *audience) removed(account license.AccountName) {
	r := a.rooms[account]
	if a.waits(account) {
		a.w.reach(listenerRemoved)
	}
	r.url, r.none = "", true
	r.changes++
	a.w.log("%s has no listener", account)
}

// waits reports whether a callback of the account is on its way.
func (a *audience) waits(account license.AccountName) bool {
	for _, t := range a.w.model.tasks {
		if t.of.account == account && t.settled && !t.of.purged {
			if r := a.heard[t.place()][0]; r == nil || !r.acked && !r.gone && len(r.attempts) < a.attempts {
				return true
			}
		}
	}
	return false
}

// acknowledged reports whether a callback was, in any round.
func (a *audience) acknowledged(key place) bool {
	for _, r := range a.heard[key] {
		if r.acked {
			return true
		}
	}
	return false
}

// without reports whether an account had no listener at some time after another.
func (a *audience) without(account license.AccountName, after time.Time) bool {
	r := a.rooms[account]
	return r.url == "" || r.none && !r.since.Before(after)
}

// courier is a node's connection to the listeners.
type courier struct{ n *node }

var errReset = errors.New("connection reset by peer")

// Carry has a listener hear a callback, and answer or not.
func (c courier) Carry(cb *license.Callback, req *http.Request, _ http.RoundTripper) (*http.Response, error) {
	w, a := c.n.w, c.n.w.audience
	if w.o.Mutation == LoseCallbacks && w.chance(20) {
		return answerOf(http.StatusOK), nil
	}
	r := a.begin(cb)
	if r == nil || !a.understands(cb, req) {
		return nil, errReset
	}
	at := r.attempts[cb.Attempt]
	w.log("%s posts %s, attempt %d of round %d", c.n.name, cb.WebhookID(), cb.Attempt, cb.Round)
	status, err := a.react(a.rooms[cb.Account])
	if status >= 200 && status < 300 {
		a.take(cb, r)
	}
	if err != nil {
		status = 0
	}
	if status == http.StatusGone {
		r.gone = true
		w.reach(listenerGone)
	}
	at.ended = append(at.ended, w.now)
	w.log("%s is answered %d, %v", cb.WebhookID(), status, err)
	if err != nil {
		return nil, err
	}
	return answerOf(status), nil
}

func answerOf(status int) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}
}

// take notes an acknowledgement.
func (a *audience) take(cb *license.Callback, r *round) {
	w := a.w
	if r.acked {
		w.reach(callbackTwice)
	}
	r.acked = true
	if cb.Attempt+1 == a.attempts && a.attempts > 1 {
		w.reach(callbackLast)
	}
	if cb.Round > 0 {
		w.reach(againDelivered)
	}
}

// react is what a listener does: a status, or the error that the service sees. A
// 2xx beside an error was lost on its way.
func (a *audience) react(r *room) (status int, err error) {
	w := a.w
	mood := r.mood
	if w.calm {
		mood = moodGood
	} else if w.chance(w.faults.listener) {
		mood = pick(w, []string{moodGood, moodFailing, moodFailing, moodHanging, "reset", "lost"})
		if w.chance(30) {
			mood = moodGone
		}
	}
	if mood == moodHanging && w.drawn.quiet {
		mood = moodFailing
	}
	switch mood {
	case moodFailing:
		w.pause(w.within(time.Millisecond, 2*time.Second))
		return pick(w, []int{500, 502, 503, 404, 301, 401, 418}), nil
	case moodHanging:
		w.reach(listenerHung)
		w.pause(timeout)
		return 0, errors.New("no answer in time")
	case moodGone:
		w.pause(w.within(time.Millisecond, time.Second))
		return http.StatusGone, nil
	case "reset":
		w.reach(listenerReset)
		return 0, errReset
	case "lost":
		w.reach(listenerLate)
		w.pause(w.within(time.Millisecond, timeout))
		return http.StatusOK, errReset
	}
	w.pause(w.within(time.Millisecond, 200*time.Millisecond))
	return pick(w, []int{200, 200, 200, 202, 204}), nil
}

// begin notes that an attempt begins, and holds it against what may be.
func (a *audience) begin(cb *license.Callback) *round {
	w, key := a.w, place{cb.Request, cb.Device.ICCID}
	t := w.model.tasks[key]
	switch {
	case t == nil:
		w.fail("%s is sent, and nobody accepted it", cb.WebhookID())
		return nil
	case !t.settled || t.ok != cb.OK:
		w.fail("%s says %t, and what is settled is %t, %t", cb.WebhookID(), cb.OK, t.settled, t.ok)
		return nil
	case cb.Attempt >= a.attempts:
		w.fail("%s is sent for the %dth time, of at most %d", cb.WebhookID(), cb.Attempt+1, a.attempts)
		return nil
	}
	rounds := a.heard[key]
	if rounds == nil {
		rounds = map[int]*round{}
		a.heard[key] = rounds
	}
	r := rounds[cb.Round]
	if r == nil {
		r = &round{}
		rounds[cb.Round] = r
	}
	switch {
	case cb.Attempt > len(r.attempts):
		w.fail("%s skipped its attempt %d", cb.WebhookID(), len(r.attempts))
		return nil
	case cb.Attempt == len(r.attempts):
		r.attempts = append(r.attempts, &attempt{room: a.rooms[cb.Account].changes})
	}
	a.punctual(cb, r)
	at := r.attempts[cb.Attempt]
	at.began = append(at.began, w.now)
	return r
}

// punctual holds the beginning of an attempt against the schedule, where the
// nodes' clocks agree.
func (a *audience) punctual(cb *license.Callback, r *round) {
	w := a.w
	if cb.Attempt == 0 || w.faults.skew > 0 || w.faults.jumps > 0 || w.calm {
		return
	}
	before := r.attempts[cb.Attempt-1].ended
	if len(before) == 0 {
		w.fail("%s is sent again before an attempt has ended", cb.WebhookID())
		return
	}
	if soonest := before[0].Add(a.interval); w.now.Before(soonest) {
		w.fail("%s is sent again %s too soon", cb.WebhookID(), soonest.Sub(w.now))
	}
	// Others may be before it in the line of a slow listener.
	const patience = 2 * time.Minute
	if latest := before[len(before)-1].Add(a.interval + patience); w.faults.quiet && w.now.After(latest) {
		w.fail("%s is sent again %s too late", cb.WebhookID(), w.now.Sub(latest))
	}
}

// understands reads the message as a listener does.
func (a *audience) understands(cb *license.Callback, req *http.Request) bool {
	var m m2m.CallbackMessage
	body, err := io.ReadAll(req.Body)
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	ok := m.Status == m2m.CallbackSuccess
	if err != nil || m.RequestID != string(cb.Request) || m.ICCID() != string(cb.Device.ICCID) || ok != cb.OK || m.CallbackCount != cb.Attempt+1 {
		a.w.fail("%s says %s (%v)", cb.WebhookID(), body, err)
		return false
	}
	return true
}
