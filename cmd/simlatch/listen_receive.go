package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/m2m"
)

// maxCallback is more than any callback has; a listener is open to strangers.
const maxCallback = 64 << 10

// callbackReceiver receives callbacks for 'simlatch listen'.
type callbackReceiver struct {
	o             listenOptions
	answers       callbackAnswers
	signingSecret auth.Secret // empty: signatures are not looked at
	password      auth.Secret // with o.username

	// What start has set.
	messages io.Writer
	stop     context.CancelCauseFunc
	now      func() time.Time

	running sync.Mutex // held while a command runs

	mu      sync.Mutex // guards what follows: lines must not mix
	printer callbackPrinter
	told    map[string]*toldMessage // by request and ICCID
	devices deviceCounts
	taken   int // messages acknowledged
	refused int // messages that were not the server's
}

// toldMessage is what is known of a message that has come.
type toldMessage struct {
	attempts int  // that have come
	counted  bool // among its device's messages
	taken    bool // acknowledged
	ran      bool // the command has done its work; guarded by running
}

// receivedCallback is one attempt of a message.
type receivedCallback struct {
	m      *m2m.CallbackMessage
	body   []byte // as it came
	at     time.Time
	answer int // HTTP status
}

func newCallbackReceiver(o listenOptions) (*callbackReceiver, error) {
	answers, err := parseAnswers(o.answers)
	if err != nil {
		return nil, err
	}
	return &callbackReceiver{o: o, answers: answers, now: time.Now, told: map[string]*toldMessage{}}, nil
}

// start begins the output. When enough has come, stop is called.
func (r *callbackReceiver) start(s streams, stop context.CancelCauseFunc) (err error) {
	r.messages, r.stop = s.err, stop
	r.printer, err = newCallbackPrinter(s.out, r.o)
	return err
}

// serve takes a message. The command it may run ends with ctx, and not when the
// server hangs up: the work would be done in part.
func (r *callbackReceiver) serve(ctx context.Context, w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "this is a callback listener: POST a message", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxCallback))
	if err != nil {
		http.Error(w, "the message could not be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	var m m2m.CallbackMessage
	if err := json.Unmarshal(body, &m); err != nil {
		say(r.messages, "simlatch: a message that is no callback came from %s: %v", req.RemoteAddr, err)
		http.Error(w, "not a callback message", http.StatusBadRequest)
		return
	}
	if err := r.check(req.Header, body, &m); err != nil {
		say(r.messages, "simlatch: a message from %s was refused: %v", req.RemoteAddr, err)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	status := r.take(ctx, &receivedCallback{m: &m, body: body, at: r.now()})
	if r.o.delay > 0 {
		select {
		case <-time.After(r.o.delay):
		case <-req.Context().Done(): // the server has hung up
		}
	}
	w.WriteHeader(status)
}

// check refuses what the server has not sent.
func (r *callbackReceiver) check(h http.Header, body []byte, m *m2m.CallbackMessage) error {
	var err error
	if r.signingSecret != "" {
		err = m2m.CheckSignature(string(r.signingSecret), h, body)
	}
	if err == nil && r.o.username != "" {
		same := subtle.ConstantTimeCompare([]byte(m.Username), []byte(r.o.username)) &
			subtle.ConstantTimeCompare([]byte(m.Password), []byte(r.password))
		if same != 1 {
			err = errors.New("wrong user name or password")
		}
	}
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.refused++
	}
	return err
}

// take does what is to be done with an attempt and returns its answer.
func (r *callbackReceiver) take(ctx context.Context, c *receivedCallback) int {
	told := r.note(c)
	if c.answer < 300 && r.o.command != "" {
		if err := r.run(ctx, c, told); err != nil {
			say(r.messages, "simlatch: %s: %v", printable(c.m.ICCID()), err)
			c.answer = http.StatusInternalServerError
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.printer.put(c); err != nil {
		// Not acknowledged: it was received, but nobody has seen it.
		r.stop(fmt.Errorf("printing: %w", err))
		return http.StatusInternalServerError
	}
	r.devices.count(c, told)
	if c.answer < 300 && !told.taken {
		told.taken = true
		if r.taken++; r.taken == r.o.count {
			r.stop(errEnough)
		}
	}
	return c.answer
}

// note counts an attempt and decides upon its answer.
func (r *callbackReceiver) note(c *receivedCallback) *toldMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := c.m.RequestID + "/" + c.m.ICCID()
	told := r.told[key]
	if told == nil {
		told = &toldMessage{}
		r.told[key] = told
	}
	c.answer = r.answers.of(c.m.ICCID(), told.attempts)
	told.attempts++
	return told
}

// end prints what is printed at the end.
func (r *callbackReceiver) end(s streams) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.told) > 0 || r.refused > 0 {
		say(s.err, "simlatch: %s", r.devices.summary(len(r.told), r.taken, r.refused))
	}
	if r.o.counts {
		return r.devices.print(s.out, r.o.form)
	}
	return nil
}
