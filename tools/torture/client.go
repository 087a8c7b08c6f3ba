package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// drainPatience is how long the callbacks of what was asked for may take to come
// when no server dies any more. Leases, and the carrier's backoff, are within.
const drainPatience = 90 * time.Second

// chunk is some SIMs that a client assigns and unassigns together.
type chunk struct {
	account, sku string
	sims         []int
	request      string // under way; empty when none
	action       string
	asked        []int
	done         bool // of a lifetime SKU, whose licenses stay
}

// chunksOf are the chunks of a client.
func (w *world) chunksOf(client int) (chunks []*chunk) {
	first := client * (w.plan.chunks*8 + w.plan.large)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.plan.chunks + 1 {
		n, from := 1+w.rand.IntN(8), first+i*8
		if i == w.plan.chunks {
			n = w.plan.large
		}
		c := &chunk{account: w.accountOf(first), sku: []string{"SIMSec-IoT", "SIMSec-IoT", "TS-BUNDLE-KTO-SIMSEC-MRC", "SIMSec-IoT-Lt"}[w.rand.IntN(4)]}
		for k := range n {
			c.sims = append(c.sims, from+k)
		}
		w.pools[[2]string{c.account, c.sku}] = struct{}{}
		chunks = append(chunks, c)
	}
	return chunks
}

// client assigns and unassigns its SIMs until the world stops, and then waits for
// what is under way.
func (w *world) client(number int) {
	chunks := w.chunksOf(number)
	var deadline <-chan time.Time
	stop := w.stop
	for {
		busy := 0
		for _, c := range chunks {
			switch {
			case c.request != "" && !w.settle(c):
				busy++
			case stop != nil && !c.done:
				w.ask(c)
			}
		}
		if stop == nil && busy == 0 {
			return
		}
		select {
		case <-w.ctx.Done():
			return
		case <-stop:
			stop, deadline = nil, time.After(w.patience)
		case <-deadline:
			w.missing(chunks)
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// missing notes the callbacks that did not come.
func (w *world) missing(chunks []*chunk) {
	for _, c := range chunks {
		if c.request == "" {
			continue
		}
		ended, _ := w.sink.ended(c.request, len(c.asked))
		w.mu.Lock()
		for _, i := range c.asked {
			if ended[fleet.ICCID(i)] == "" {
				w.lost("the callback of request %s for SIM %s did not come within %s", c.request, fleet.ICCID(i), w.patience)
			}
		}
		w.mu.Unlock()
	}
}

// settle notes the outcomes of a chunk's request, if all have come.
func (w *world) settle(c *chunk) bool {
	ended, all := w.sink.ended(c.request, len(c.asked))
	if !all {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range c.asked {
		switch ended[fleet.ICCID(i)] {
		case m2m.CallbackSuccess:
			w.held[fleet.ICCID(i)] = c.action == "assign"
		case "":
			w.wrong("request %s: told of %v, asked for %v", c.request, ended, c.asked)
		}
	}
	c.request = ""
	return true
}

// ask unassigns what SIMs of a chunk are held, or assigns all when none is. It
// repeats itself under one key until it is answered.
func (w *world) ask(c *chunk) {
	c.action, c.asked = "assign", nil
	w.mu.Lock()
	for _, i := range c.sims {
		if w.held[fleet.ICCID(i)] {
			c.action = "unassign"
			c.asked = append(c.asked, i)
		}
	}
	key := fmt.Sprintf("%x-%x", w.rand.Uint64(), w.rand.Uint64())
	twice := w.chance(15)
	w.mu.Unlock()
	if c.action == "unassign" && c.sku == "SIMSec-IoT-Lt" {
		c.done = true
		return
	}
	if c.action == "assign" {
		c.asked = c.sims
	}
	id := w.request(c, key)
	if id == "" {
		c.done = true
		return
	}
	w.mu.Lock()
	w.requests[id] = asked{c.account, len(c.asked)}
	w.row.Work += len(c.asked)
	w.mu.Unlock()
	if twice {
		if again := w.request(c, key); again != "" && again != id {
			w.mu.Lock()
			w.double("the key of request %s gave %s when repeated", id, again)
			w.mu.Unlock()
		}
	}
	c.request = id
}

// request asks for a chunk's request until it is answered, and returns its ID; ""
// where it never is, which is noted.
func (w *world) request(c *chunk, key string) string {
	in := m2m.LicenseRequest{AccountName: c.account, SKUNumber: c.sku}
	for _, i := range c.asked {
		in.Devices = append(in.Devices, m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: fleet.ICCID(i), Kind: "iccid"}}})
	}
	body, err := json.Marshal(in)
	for err == nil {
		status, answer, fails := w.repeat("/api/m2m/v1/devices/license/actions/"+c.action, body, w.header(), key)
		if fails != nil {
			return "" // the world ends
		}
		var accepted m2m.RequestAccepted
		if status == http.StatusOK && json.Unmarshal(answer, &accepted) == nil && accepted.RequestID != "" {
			return accepted.RequestID
		}
		err = fmt.Errorf("%s of %v = %d %s", c.action, c.asked, status, answer)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong("%v", err)
	return ""
}

// repeat makes a POST until it has an answer other than "not now".
func (w *world) repeat(path string, body []byte, header map[string]string, key string) (int, []byte, error) {
	if key != "" {
		header["Idempotency-Key"] = key
	}
	for {
		ctx, cancel := context.WithTimeout(w.ctx, 15*time.Second)
		status, answer, err := w.call(ctx, http.MethodPost, path, bytes.NewReader(body), header)
		cancel()
		if err == nil && status != http.StatusServiceUnavailable {
			return status, answer, nil
		}
		select {
		case <-w.ctx.Done():
			return 0, nil, w.ctx.Err()
		case <-time.After(5 * time.Millisecond): // killed: whether it was done is unknown
		}
	}
}
