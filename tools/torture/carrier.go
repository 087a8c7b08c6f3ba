package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// carrierSecret signs what the carrier brings.
const carrierSecret = "whsec_dG9ydHVyZS10b3J0dXJlLXRvcnR1cmUtdG9ydHVyZQ=="

// carrier is the provisioning system, which survives all crashes: it does the work
// of a key once, and remembers what became of it and which SIM has a license. So a
// license that is made twice, or taken from a SIM that has none, is seen here.
type carrier struct {
	w       *world
	truth   map[string]string // the outcome of each key; guarded by w.mu, as is
	holds   map[string]string // the key that licensed each SIM
	owed    map[string]bool   // keys whose outcome it will bring by itself, and has not
	account map[string]string // of those
}

type carrierTask struct {
	Key, Action, Account string
	Device               struct{ ICCID string }
}

type carrierOutcome struct {
	Account string `json:"account,omitempty"`
	Key     string `json:"key"`
	Outcome string `json:"outcome"`
	Text    string `json:"text,omitempty"`
}

func (c *carrier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var call struct{ Tasks []carrierTask }
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		return // the server was killed while it sent
	}
	var answer struct {
		Outcomes []carrierOutcome `json:"outcomes"`
	}
	c.w.mu.Lock()
	for _, task := range call.Tasks {
		answer.Outcomes = append(answer.Outcomes, c.do(task))
	}
	c.w.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // nobody may be left to tell
}

// share is a number from 0 to 99 that a key always has.
func share(key, of string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(of + key[strings.IndexByte(key, '/')+1:] + key))
	return int(h.Sum32() % 100)
}

// do does the work of a task, if it is the first time; w.mu is held.
func (c *carrier) do(t carrierTask) carrierOutcome {
	outcome, known := c.truth[t.Key]
	if !known {
		outcome = c.decide(t)
		c.truth[t.Key] = outcome
		if share(t.Key, "late") < c.w.plan.late {
			c.owed[t.Key], c.account[t.Key] = true, t.Account
			time.AfterFunc(50*time.Millisecond, func() { c.bring(t.Key) })
		}
	}
	if c.owed[t.Key] {
		return carrierOutcome{Key: t.Key, Outcome: "later"}
	}
	return carrierOutcome{Key: t.Key, Outcome: outcome}
}

func (c *carrier) decide(t carrierTask) string {
	if share(t.Key, "refuse") < c.w.plan.refuse {
		return "refused"
	}
	sim := t.Device.ICCID
	switch holder := c.holds[sim]; {
	case t.Action == "assign" && holder != "":
		c.w.double("SIM %s was licensed by %s and again by %s", sim, holder, t.Key)
	case t.Action == "assign":
		c.holds[sim] = t.Key
	case holder == "":
		c.w.double("SIM %s has no license, which %s takes from it", sim, t.Key)
	default:
		delete(c.holds, sim)
	}
	return "done"
}

// bring brings the outcome of a key until it is taken, whatever dies meanwhile.
func (c *carrier) bring(key string) {
	c.w.mu.Lock()
	o := carrierOutcome{Account: c.account[key], Key: key, Outcome: c.truth[key]}
	c.w.mu.Unlock()
	for c.w.ctx.Err() == nil {
		result, err := c.post(o)
		switch {
		case err != nil:
			time.Sleep(20 * time.Millisecond)
			continue
		case result != "settled" && result != "repeated":
			c.w.mu.Lock()
			c.w.wrong("the late outcome of %s is %s", key, result)
			c.w.mu.Unlock()
		}
		c.w.mu.Lock()
		delete(c.owed, key)
		c.w.mu.Unlock()
		return
	}
}

func (c *carrier) post(o carrierOutcome) (result string, err error) {
	body, err := json.Marshal(map[string]any{"outcomes": []carrierOutcome{o}})
	if err != nil {
		return "", err
	}
	hook, err := standardwebhooks.NewWebhook(carrierSecret)
	if err != nil {
		return "", err
	}
	now, id := time.Now(), "late-"+o.Key
	signature, err := hook.Sign(id, now, body)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(c.w.ctx, 10*time.Second)
	defer cancel()
	status, answer, err := c.w.call(ctx, http.MethodPost, "/operator/v1/carrier/outcomes", bytes.NewReader(body), map[string]string{
		"Content-Type": "application/json", "webhook-id": id, "webhook-timestamp": fmt.Sprint(now.Unix()), "webhook-signature": signature,
	})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("bringing an outcome: %d %s", status, answer)
	}
	var said struct{ Results []struct{ Result string } }
	if err == nil {
		err = json.Unmarshal(answer, &said)
	}
	if err == nil && len(said.Results) != 1 {
		err = fmt.Errorf("bringing an outcome: %s", answer)
	}
	if err != nil {
		return "", err
	}
	return said.Results[0].Result, nil
}
