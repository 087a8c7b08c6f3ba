package simulation

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// client is a customer's program: it calls the API, repeats what got no clear
// answer, and remembers what it was promised.
type client struct {
	w              *world
	token, session string
	renew          time.Time // when to log in anew
	made           int
	promised       []*call
	busy           func() // called once, when the next call is made
}

// call is one thing the client wants.
type call struct {
	method, path, body string
	account            license.AccountName
	key                string
	status             int               // of a clear answer
	id                 license.RequestID // promised
	began              time.Time         // the latest try
	tries, flying      int
	unsure             bool // a try ended without a clear answer
}

func newClient(w *world) *client { return &client{w: w} }

// plan plans the calls of the day: in bursts, so that they meet.
func (c *client) plan() {
	w := c.w
	for _, a := range accounts()[:2] {
		w.after(0, func() { c.listen(a) })
	}
	bursts := 6 + w.upTo(8)
	for range bursts {
		at := w.now.Add(time.Minute + w.within(0, w.end.Sub(w.now)-time.Hour))
		for range 1 + w.upTo(6) {
			w.at(at.Add(w.within(0, 4*time.Second)), c.want)
		}
	}
	for range 2 + w.upTo(4) {
		w.after(w.within(time.Hour, w.end.Sub(w.now)), c.changeListener)
	}
}

const actions = m2m.APIPrefix + "/devices/license/actions/"

// want makes a call that assigns or unassigns.
func (c *client) want() {
	w := c.w
	account := pick(w, accounts())
	sku := pick(w, license.SKUs())
	in := m2m.LicenseRequest{AccountName: string(account), SKUNumber: string(sku)}
	o := &call{method: http.MethodPost, path: actions + "assign", account: account}
	fits := func(s *sim) bool { return s.sku == "" && s.state == license.StateActive }
	if w.chance(400) && !sku.Lifetime() {
		fits = func(s *sim) bool { return s.sku == sku && s.pending == "" }
		if o.path = actions + "unassign"; w.chance(300) {
			o.method, o.path = http.MethodDelete, actions+"assign"
		}
	}
	for _, s := range c.choose(account, fits) {
		d := m2m.NewDevice(string(s.device.IMEI), string(s.device.ICCID))
		if w.chance(200) {
			d = m2m.NewDevice(string(s.device.IMEI), "")
		}
		in.Devices = append(in.Devices, d)
	}
	if w.chance(30) {
		in.Devices = append(in.Devices, m2m.NewDevice("", "8914000000000000001"))
	}
	if len(in.Devices) == 0 {
		return
	}
	body, err := json.Marshal(in)
	if !w.must("encoding a request", err) {
		return
	}
	c.made++
	o.body = string(body)
	if w.chance(900) {
		o.key = fmt.Sprintf("key-%d-%d", w.seed, c.made)
	}
	c.send(o)
	c.repeat(o)
}

// choose chooses SIMs, mostly such that the request can be accepted.
func (c *client) choose(account license.AccountName, fits func(*sim) bool) (chosen []*sim) {
	w := c.w
	most := 1 + w.upTo(5)
	if w.chance(100) {
		most = 20
	}
	odd := w.chance(150)
	for _, i := range w.rng.Perm(len(w.model.list)) {
		if s := w.model.list[i]; s.account == account && (odd || fits(s)) {
			if chosen = append(chosen, s); len(chosen) == most {
				break
			}
		}
	}
	return chosen
}

// repeat plans calls under the same key: at once, later, and with another body.
func (c *client) repeat(o *call) {
	w := c.w
	if o.key == "" {
		return
	}
	if w.chance(200) {
		w.after(w.within(0, 10*time.Millisecond), func() { c.send(o) })
	}
	if w.chance(200) {
		w.after(w.within(time.Minute, 10*time.Hour), func() { c.send(o) })
	}
	if w.chance(100) {
		w.after(w.within(time.Minute, time.Hour), func() {
			if o.id == "" {
				return
			}
			other := *o
			other.body, other.id, other.status = strings.Replace(o.body, `"skuNumber"`, ` "skuNumber"`, 1), "", 0
			other.tries, other.flying, other.unsure = 0, 0, false
			c.send(&other)
		})
	}
}

// listen registers a listener.
func (c *client) listen(account license.AccountName) {
	c.made++
	body := fmt.Sprintf(`{"name":%q,"url":"https://listener%d.example/heard"}`, license.CarrierService, c.made)
	c.send(&call{method: http.MethodPost, path: m2m.APIPrefix + "/callbacks/" + string(account), body: body, account: account})
}

// changeListener registers another, or removes the one there is.
func (c *client) changeListener() {
	w := c.w
	account := pick(w, accounts())
	if w.chance(600) {
		c.listen(account)
		return
	}
	c.send(&call{method: http.MethodDelete, path: m2m.APIPrefix + "/callbacks/" + string(account) + "/name/" + license.CarrierService, account: account})
	if w.chance(700) {
		w.after(w.within(time.Minute, time.Hour), func() { c.listen(account) })
	}
}

// send makes a call, logging in before it where that is due.
func (c *client) send(o *call) {
	w := c.w
	if w.failure != nil {
		return
	}
	if c.token == "" || w.now.After(c.renew) {
		c.login(func() { c.send(o) })
		return
	}
	n := w.live()
	if n == nil {
		c.later(o)
		return
	}
	r := httptest.NewRequestWithContext(w.ctx, o.method, o.path, strings.NewReader(o.body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+c.token)
	r.Header.Set(m2m.SessionHeader, c.session)
	if o.key != "" {
		r.Header.Set("Idempotency-Key", o.key)
	}
	if o.flying > 0 {
		w.reach(keyInFlight)
	}
	o.began = w.now
	o.tries++
	o.flying++
	if busy := c.busy; busy != nil {
		c.busy = nil
		busy()
	}
	w.log("%s %s at %s, key %q, try %d", o.method, o.path, n.name, o.key, o.tries)
	n.serve(r, func(a *httptest.ResponseRecorder, lost bool) {
		o.flying--
		c.answered(o, a, lost)
	})
}

// later repeats a call that got no clear answer, where that can do no harm.
func (c *client) later(o *call) {
	if o.key == "" && strings.HasPrefix(o.path, actions) && o.tries > 0 {
		return // what came of it is not known, and was not promised
	}
	c.w.after(c.w.within(500*time.Millisecond, 30*time.Second), func() { c.send(o) })
}

// answered takes an answer.
func (c *client) answered(o *call, a *httptest.ResponseRecorder, lost bool) {
	w := c.w
	if w.failure != nil {
		return
	}
	switch {
	case lost:
		w.reach(callLost)
		o.unsure = true
		c.later(o)
		return
	case a.Code == http.StatusUnauthorized || strings.Contains(a.Body.String(), "Session"):
		// Its session may have ended by another node's clock.
		if c.renew = w.now; o.tries < 1000 {
			c.later(o)
		}
		return
	case a.Code >= 500:
		o.unsure = true
		c.later(o)
		return
	}
	w.log("%s %s is answered %d", o.method, o.path, a.Code)
	if strings.HasPrefix(o.path, actions) {
		c.judge(o, a)
	}
}

// judge takes a clear answer to a call that assigns or unassigns.
func (c *client) judge(o *call, a *httptest.ResponseRecorder) {
	w := c.w
	if a.Code != http.StatusOK {
		if strings.Contains(o.body, ` "skuNumber"`) {
			w.reach(keyReused)
		}
		o.status = a.Code
		return
	}
	var got m2m.RequestAccepted
	if !w.must("reading an answer", json.Unmarshal(a.Body.Bytes(), &got)) {
		return
	}
	id := license.RequestID(got.RequestID)
	r := w.model.requests[id]
	if w.o.Mutation == LoseAccepted && r == nil {
		r = &request{took: o.began}
	}
	switch {
	case r == nil:
		w.fail("the client is promised %s, which nobody accepted", id)
		return
	case o.id == id:
		w.reach(keyReplayed)
	case o.id != "" && w.drawn.jumps == 0:
		w.fail("the key %s stands for %s and for %s", o.key, o.id, id)
	}
	if o.unsure {
		o.unsure = false
		if r.took.Before(o.began) {
			w.reach(keyAfterUnknown)
		} else {
			w.reach(keyAcceptedAnew)
		}
	}
	if o.id == "" {
		c.promised = append(c.promised, o)
	}
	o.id, o.status = id, a.Code
	w.log("%s is promised, under %q", id, o.key)
}

// login gets a token and a session, from any node, however often it takes.
func (c *client) login(then func()) {
	w := c.w
	n := w.live()
	again := func() { w.after(w.within(time.Second, 10*time.Second), func() { c.login(then) }) }
	if n == nil {
		again()
		return
	}
	form := url.Values{"grant_type": {"client_credentials"}}.Encode()
	r := httptest.NewRequestWithContext(w.ctx, http.MethodPost, m2m.TokenPrefix+"/oauth2/token", strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(clientKey, clientSecret)
	n.serve(r, func(a *httptest.ResponseRecorder, lost bool) {
		var t m2m.TokenAnswer
		if lost || a.Code != http.StatusOK || json.Unmarshal(a.Body.Bytes(), &t) != nil {
			again()
			return
		}
		c.openSession(t.AccessToken, then, again)
	})
}

func (c *client) openSession(token string, then, again func()) {
	w := c.w
	n := w.live()
	if n == nil {
		again()
		return
	}
	body := fmt.Sprintf(`{"username":%q,"password":%q}`, clientUser, clientWord)
	r := httptest.NewRequestWithContext(w.ctx, http.MethodPost, m2m.APIPrefix+"/session/login", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token)
	n.serve(r, func(a *httptest.ResponseRecorder, lost bool) {
		var s m2m.SessionAnswer
		if lost || a.Code != http.StatusOK || json.Unmarshal(a.Body.Bytes(), &s) != nil {
			again()
			return
		}
		c.token, c.session, c.renew = token, s.SessionToken, w.now.Add(15*time.Minute)
		w.log("logged in at %s", n.name)
		then()
	})
}
