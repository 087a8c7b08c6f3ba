package bulk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/simlatch/simlatch/m2m"
)

// hidden is what Simlatch shows of a listener's password.
const hidden = "********"

// maxCallback is more than any callback has; a listener is open to strangers.
const maxCallback = 64 << 10

// listen registers our listener and serves it. What it returns ends it and puts
// back the one that was there. Where there is no listener now, one that an
// earlier run left behind is taken away at once.
func (r *Run) listen(ctx context.Context) (restore func() error, err error) {
	r.mu.Lock()
	mine := r.state.listener
	r.mu.Unlock()
	if r.cfg.Listener == nil {
		if mine != nil {
			err = r.restore(ctx, mine)
		}
		return func() error { return nil }, err
	}
	if mine, err = r.takePlace(ctx, mine); err != nil {
		return nil, err
	}
	srv := &http.Server{
		Handler:           &receiver{run: r, path: pathOf(mine.Token), previous: mine.Previous},
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 30 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(r.cfg.Listener) }()
	// Served before it is registered: a server may call at once.
	end := func() error {
		// Also after an interrupt: a listener that is gone should not be called.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err := r.restore(ctx, mine)
		_ = srv.Shutdown(ctx) // who is still being answered then is told again
		<-served              //nolint:errcheck // that it was shut down
		return err
	}
	err = r.patiently(ctx, "registering the listener "+r.cfg.ListenerURL, func() error {
		_, err := r.cfg.Client.RegisterListener(ctx, r.plan.Account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: mine.URL})
		return err
	})
	if err != nil {
		return nil, errors.Join(err, end())
	}
	return end, nil
}

func pathOf(token string) string { return "/" + token }

// takePlace enters in the journal whose place our listener takes, before it does;
// before is what an earlier run entered, if it did not end in order. A listener
// whose password we cannot see could not be put back.
func (r *Run) takePlace(ctx context.Context, before *entry) (*entry, error) {
	now, err := r.registered(ctx)
	if err != nil {
		return nil, err
	}
	e := &entry{Kind: entryListener, Token: uuid.NewString(), Previous: now}
	if before != nil {
		e.Token = before.Token // so that late messages find their way
	}
	switch {
	case before != nil && now != nil && now.URL == before.URL: // ours, left behind
		e.Previous = before.Previous
	case now != nil && now.Password == hidden:
		return nil, fmt.Errorf("the account's listener %s has a password that the server does not show, so it could not be put back afterwards: "+
			"leave --listen out, and the server is asked how requests stand", now.URL)
	}
	e.URL = strings.TrimSuffix(r.cfg.ListenerURL, "/") + pathOf(e.Token)
	return e, r.record(e)
}

// registered is the account's listener; nil when there is none.
func (r *Run) registered(ctx context.Context) (*m2m.Listener, error) {
	var found *m2m.Listener
	err := r.patiently(ctx, "looking for listeners", func() error {
		list, err := r.cfg.Client.Listeners(ctx, r.plan.Account)
		for _, l := range list {
			if l.ServiceName == m2m.CarrierService {
				found = &l
			}
		}
		return err
	})
	return found, err
}

// restore puts back the listener that was there before ours, unless somebody has
// registered another one meanwhile.
func (r *Run) restore(ctx context.Context, mine *entry) error {
	now, err := r.registered(ctx)
	account, was := r.plan.Account, mine.Previous
	switch {
	case err != nil:
	case now == nil || now.URL != mine.URL: // nobody's any more, or somebody else's
	case was == nil:
		err = r.patiently(ctx, "deregistering the listener", func() error {
			_, err := r.cfg.Client.DeregisterListener(ctx, account, m2m.CarrierService)
			if errors.Is(err, m2m.ErrCallbackNotFound) {
				return nil
			}
			return err
		})
	default:
		err = r.patiently(ctx, "putting back the listener "+was.URL, func() error {
			_, err := r.cfg.Client.RegisterListener(ctx, account, m2m.ListenerRequest{
				Name: was.ServiceName, URL: was.URL, Username: was.Username, Password: was.Password,
			})
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("the account's listener is still %s; applying the plan again puts the former one back: %w", mine.URL, err)
	}
	return r.record(&entry{Kind: entryRestored})
}

// receiver takes in callbacks. Those about requests that are not the run's go to
// the listener whose place it has.
type receiver struct {
	run      *Run
	path     string // nobody else knows it
	previous *m2m.Listener
}

// ServeHTTP implements http.Handler.
func (v *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.URL.Path != v.path {
		http.NotFound(w, q)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, maxCallback))
	if err != nil {
		http.Error(w, "the message is too large, or cut off", http.StatusBadRequest)
		return
	}
	var m m2m.CallbackMessage
	if err := json.Unmarshal(body, &m); err != nil {
		http.Error(w, "the message is not a callback in JSON", http.StatusBadRequest)
		return
	}
	entries, ours, overtaken := v.run.entriesOf(q.Context(), &m)
	switch {
	case overtaken: // still: it will come again
		w.WriteHeader(http.StatusServiceUnavailable)
	case !ours:
		w.WriteHeader(v.forward(q, body))
	case len(entries) > 0 && v.run.record(entries...) != nil:
		// Not acknowledged: it is not on the disk.
		w.WriteHeader(http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusOK)
	}
}

// answerPatience is how long a callback may wait for the answer to its request,
// which it has overtaken. Servers wait some ten seconds.
const answerPatience = 5 * time.Second

// entriesOf is match, with patience for the answer that a callback has overtaken.
// What it says then counts where the server will not be asked again.
func (r *Run) entriesOf(ctx context.Context, m *m2m.CallbackMessage) (entries []*entry, ours, overtaken bool) {
	late := r.cfg.Clock.Now().Add(answerPatience)
	for {
		r.mu.Lock()
		if entries, ours, overtaken = r.match(m); ours {
			r.told = r.cfg.Clock.Now()
		}
		r.mu.Unlock()
		if !overtaken || r.cfg.Clock.Now().After(late) || r.pause(ctx, 20*time.Millisecond) != nil {
			return entries, ours, overtaken && !ours
		}
	}
}

// match finds what a callback says of our rows, whether it is about them at all,
// and whether it has overtaken the answer to its request. One that is known
// already says nothing new. r.mu is held.
func (r *Run) match(m *m2m.CallbackMessage) (entries []*entry, ours, overtaken bool) {
	i := r.state.rowOf(m)
	if i < 0 {
		return nil, false, false
	}
	row := &r.state.rows[i]
	outcome := &entry{Kind: entryOutcome, Row: &i, Status: StatusSuccess, Message: m.Comment}
	if m.Status != m2m.CallbackSuccess {
		outcome.Status, outcome.Code = StatusFailed, m2m.CodeCarrierRequestUnsuccessful
		if f := m.FaultResponse; f != nil {
			outcome.Code, outcome.Message = f.FaultCode, f.FaultString
		}
	}
	q := row.request
	switch {
	case r.state.byID[m.RequestID] != nil:
		if q != r.state.byID[m.RequestID] || row.ended != "" && row.ended != StatusUnknown {
			return nil, true, false
		}
		return []*entry{outcome}, true, false
	case q == nil || q.id != "" || q.refused || !r.fits(m):
		return nil, false, false
	case q.open() && r.simlatch:
		// The request is sent until it is answered, and then it is known.
		return nil, false, true
	}
	// The answer of a server that is not asked again is under way or lost: this is
	// what it said.
	return []*entry{{Kind: entryAccepted, Request: q.number, ID: m.RequestID}, outcome}, true, q.open() && !q.doubtful
}

// fits reports whether a callback may be about what the plan does.
func (r *Run) fits(m *m2m.CallbackMessage) bool {
	if m.DeviceResponse == nil {
		return true // a failure does not say of what
	}
	s := m.DeviceResponse.DeviceSKUSubscriptionResponse
	return strings.EqualFold(s.Action, r.plan.Action) && s.SKUNumber == r.plan.SKU
}

// forward gives a message that is not ours to the listener whose place we have,
// and returns its answer. Where there was none, the message is not acknowledged,
// so that it is not lost to whoever comes after us.
func (v *receiver) forward(q *http.Request, body []byte) int {
	if v.previous == nil {
		return http.StatusServiceUnavailable
	}
	if v.previous.Username != "" || v.previous.Password != "" {
		var members map[string]any
		if json.Unmarshal(body, &members) == nil && members != nil {
			members["username"], members["password"] = v.previous.Username, v.previous.Password
			body, _ = json.Marshal(members) // what came as JSON goes as JSON
		}
	}
	out, err := http.NewRequestWithContext(q.Context(), http.MethodPost, v.previous.URL, bytes.NewReader(body))
	if err != nil {
		return http.StatusBadGateway
	}
	for name, values := range q.Header {
		if name == "Content-Type" || strings.HasPrefix(name, "Webhook-") {
			out.Header[name] = values
		}
	}
	answer, err := http.DefaultClient.Do(out)
	if err != nil {
		return http.StatusBadGateway
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxCallback)) // its status is its answer
	return answer.StatusCode
}
