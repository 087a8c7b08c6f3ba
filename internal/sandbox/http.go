package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/recipe"
)

// prefix is where the sandbox's own API is.
const prefix = "/sandbox/v1"

// maxBody bounds the body of a call to the sandbox's API; snapshots are the
// largest.
const maxBody = 1 << 30

// problem is an error of the sandbox's API (RFC 9457).
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func (p problem) Error() string { return p.Detail }

func badRequest(err error) error {
	return problem{"The request cannot be used", http.StatusBadRequest, err.Error()}
}

func notFound(detail string) error {
	return problem{"There is no such thing", http.StatusNotFound, detail}
}

// control is the sandbox's API.
func (b *Box) control() http.Handler {
	mux := http.NewServeMux()
	for pattern, work := range map[string]func(*http.Request) (any, error){
		"GET ":                      b.getInfo,
		"GET /clock":                b.getClock,
		"POST /clock":               b.postClock,
		"POST /settle":              b.postSettle,
		"GET /errors":               func(*http.Request) (any, error) { return recipe.Chapters(), nil },
		"GET /magic":                func(*http.Request) (any, error) { return magicAnswers(), nil },
		"GET /faults":               func(*http.Request) (any, error) { return b.fate.List(), nil },
		"POST /faults":              b.postFault,
		"DELETE /faults":            b.deleteFaults,
		"DELETE /faults/{id}":       b.deleteFault,
		"GET /holds":                func(*http.Request) (any, error) { return holds{b.fate.Held()}, nil },
		"POST /holds":               b.postHolds,
		"DELETE /holds":             b.deleteHolds,
		"POST /expire":              b.postExpire,
		"POST /policy":              b.postPolicy,
		"GET /journal":              b.getJournal,
		"DELETE /journal":           func(*http.Request) (any, error) { b.journal.clear(); return none{}, nil },
		"POST /expect":              b.postExpect,
		"GET /verify":               b.getVerify,
		"POST /seed":                b.postSeed,
		"POST /restore":             b.postRestore,
		"POST /reset":               b.postReset,
		"GET /namespaces":           b.getNamespaces,
		"POST /namespaces":          b.postNamespace,
		"DELETE /namespaces/{name}": b.deleteNamespace,
	} {
		mux.Handle(withPrefix(pattern), b.serve(work))
	}
	mux.HandleFunc(withPrefix("GET /history"), b.getHistory)
	mux.HandleFunc(withPrefix("GET /snapshot"), b.getSnapshot)
	mux.Handle("/", b.serve(func(r *http.Request) (any, error) {
		return nil, notFound(fmt.Sprintf("%s %s is no call of the sandbox's API; docs/sandbox.md lists them", r.Method, r.URL.Path))
	}))
	return mux
}

func withPrefix(pattern string) string {
	for i := range pattern {
		if pattern[i] == ' ' {
			return pattern[:i+1] + prefix + pattern[i+1:]
		}
	}
	return pattern
}

// none is the answer where there is nothing to say.
type none struct{}

// serve answers with what work returns, as JSON.
func (b *Box) serve(work func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		b.finish(r.Context())
		out, err := work(r)
		if err == nil && r.Method != http.MethodGet {
			err = b.keep(r.Context()) // so that it is there after a restart
		}
		if err != nil {
			fail(w, err)
			return
		}
		status := http.StatusOK
		if m, ok := out.(Met); ok && !m.Met {
			status = http.StatusExpectationFailed
		}
		reply(w, status, "application/json", out)
	})
}

func reply(w http.ResponseWriter, status int, contentType string, v any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // fails only when the caller is gone
}

// fail answers with an error.
func fail(w http.ResponseWriter, err error) {
	var p problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, ErrBusy), errors.Is(err, ErrFaultKnown):
		p = problem{"Not now", http.StatusConflict, err.Error()}
	case errors.Is(err, ErrNoNamespace), errors.Is(err, license.ErrNotFound):
		p = problem{"There is no such thing", http.StatusNotFound, err.Error()}
	default:
		p = problem{"It did not work", http.StatusInternalServerError, err.Error()}
	}
	reply(w, p.Status, "application/problem+json", p)
}

// body reads a JSON body, which may be empty.
func body(r *http.Request, into any) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest(err)
	}
	if len(data) == 0 {
		return nil
	}
	if err := decode(data, into); err != nil {
		return badRequest(err)
	}
	return nil
}

func (b *Box) getInfo(r *http.Request) (any, error) { return b.host.Info(r.Context()) }

// clockAnswer is how the clock stands.
type clockAnswer struct {
	Now   time.Time `json:"now"`
	Rate  float64   `json:"rate"` // 0: it stands still
	Stops int       `json:"stops"`
	// Next is when something falls due next; absent: nothing will by itself.
	Next *time.Time `json:"next,omitempty"`
}

func (b *Box) clockNow(r *http.Request, stops int) (any, error) {
	a := clockAnswer{Now: b.clock.Now(), Rate: b.clock.Rate(), Stops: stops}
	next, err := b.steering().next(r.Context())
	if err != nil {
		return nil, err
	}
	if !next.IsZero() {
		a.Next = &next
	}
	return a, nil
}

func (b *Box) getClock(r *http.Request) (any, error) { return b.clockNow(r, 0) }

// postClock turns the clock: to a rate, by a time, to a time, or to what falls due
// next, in this order where several are given.
func (b *Box) postClock(r *http.Request) (any, error) {
	var in struct {
		Rate    *float64   `json:"rate"`
		Advance *Duration  `json:"advance"`
		To      *time.Time `json:"to"`
		Next    bool       `json:"next"`
	}
	if err := body(r, &in); err != nil {
		return nil, err
	}
	if in.Rate == nil && in.Advance == nil && in.To == nil && !in.Next {
		return nil, badRequest(errors.New(`give "rate" (0 stops the clock), "advance" ("5m"), "to" (a time of RFC 3339) or "next": true`))
	}
	if in.Rate != nil {
		if err := checkRate(*in.Rate); err != nil {
			return nil, badRequest(err)
		}
		b.clock.SetRate(*in.Rate)
	}
	var by time.Duration
	switch {
	case in.Advance != nil:
		by = time.Duration(*in.Advance)
	case in.To != nil:
		by = in.To.Sub(b.clock.Now())
	}
	if by < 0 {
		return nil, badRequest(errors.New("the clock does not go back: restore a snapshot, or reset, for that"))
	}
	stops := 0
	if in.Advance != nil || in.To != nil {
		var err error
		if stops, err = b.Advance(r.Context(), by); err != nil {
			return nil, err
		}
	}
	if in.Next {
		moved, err := b.Next(r.Context())
		if err != nil {
			return nil, err
		}
		if moved {
			stops++
		}
	}
	return b.clockNow(r, stops)
}

func (b *Box) postSettle(r *http.Request) (any, error) {
	if err := b.Settle(r.Context()); err != nil {
		return nil, err
	}
	return b.clockNow(r, 0)
}

type magicAnswer struct {
	Magic

	ICCID license.ICCID `json:"iccid"` // one of them
}

func magicAnswers() (list []magicAnswer) {
	for _, m := range Magics() {
		list = append(list, magicAnswer{m, m.ICCID(1)})
	}
	return list
}

func (b *Box) postFault(r *http.Request) (any, error) {
	var f Fault
	if err := body(r, &f); err != nil {
		return nil, err
	}
	added, err := b.fate.Add(f)
	if err != nil && !errors.Is(err, ErrFaultKnown) {
		err = badRequest(err)
	}
	return added, err
}

func (b *Box) deleteFault(r *http.Request) (any, error) {
	if !b.fate.Remove(r.PathValue("id")) {
		return nil, notFound("there is no fault " + r.PathValue("id"))
	}
	return none{}, nil
}

func (b *Box) deleteFaults(*http.Request) (any, error) {
	b.fate.clearFaults()
	return none{}, nil
}

type holds struct {
	ICCIDs []license.ICCID `json:"iccids"`
}

func (b *Box) postHolds(r *http.Request) (any, error) {
	var in struct {
		ICCIDs []string `json:"iccids"`
	}
	if err := body(r, &in); err != nil {
		return nil, err
	}
	var ids []license.ICCID
	for _, s := range in.ICCIDs {
		id, err := license.ParseICCID(s)
		if err != nil {
			return nil, badRequest(err)
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		b.fate.Hold(id)
	}
	return holds{b.fate.Held()}, nil
}

// deleteHolds releases one device, or all.
func (b *Box) deleteHolds(r *http.Request) (any, error) {
	ids := b.fate.Held()
	if one := r.URL.Query().Get("iccid"); one != "" {
		ids = []license.ICCID{license.ICCID(one)}
	}
	for _, id := range ids {
		if !b.fate.Release(id) {
			return nil, notFound(fmt.Sprintf("the device %s is not held", id))
		}
		if _, err := b.host.Hasten(r.Context(), id); err != nil && !errors.Is(err, license.ErrNotFound) {
			return nil, err
		}
	}
	b.host.Wake()
	return holds{b.fate.Held()}, nil
}

func (b *Box) postExpire(r *http.Request) (any, error) {
	in := struct {
		What string `json:"what"`
	}{"all"}
	if err := body(r, &in); err != nil {
		return nil, err
	}
	switch in.What {
	case "all", "tokens", "sessions":
	default:
		return nil, badRequest(fmt.Errorf("what: %q is none of tokens, sessions and all", in.What))
	}
	b.access.expire(r.Context(), in.What != "sessions", in.What != "tokens")
	return none{}, nil
}

// postPolicy sets the policy of an account, as an operator would.
func (b *Box) postPolicy(r *http.Request) (any, error) {
	var in struct {
		Account        string `json:"account"`
		RefuseLifetime bool   `json:"refuseLifetime"`
		DailyDevices   int64  `json:"dailyDevices"`
	}
	if err := body(r, &in); err != nil {
		return nil, err
	}
	account, err := license.ParseAccountName(in.Account)
	if err != nil {
		return nil, badRequest(err)
	}
	if in.DailyDevices < 0 {
		return nil, badRequest(errors.New("dailyDevices cannot be negative; 0 is no limit"))
	}
	p := license.Policy{Account: account, RefuseLifetime: in.RefuseLifetime, DailyDevices: in.DailyDevices}
	return none{}, b.host.SetPolicy(r.Context(), p)
}

func (b *Box) getJournal(r *http.Request) (any, error) {
	q, err := queryOf(r.URL.Query())
	if err != nil {
		return nil, badRequest(err)
	}
	entries, all := b.journal.find(q)
	if entries == nil {
		entries = []Entry{}
	}
	return map[string]any{"found": all, "entries": entries}, nil
}

// getHistory answers with the whole journal, an entry a line, in an order that
// repeats itself.
func (b *Box) getHistory(w http.ResponseWriter, r *http.Request) {
	b.finish(r.Context())
	w.Header().Set("Content-Type", "application/jsonl")
	_ = b.journal.history(w) // fails only when the caller is gone
}

func (b *Box) postExpect(r *http.Request) (any, error) {
	var x Expectation
	if err := body(r, &x); err != nil {
		return nil, err
	}
	return b.Expect(r.Context(), x)
}

func (b *Box) getVerify(r *http.Request) (any, error) {
	drift, err := b.host.Verify(r.Context())
	if err != nil {
		return nil, err
	}
	texts := []string{}
	for _, d := range drift {
		texts = append(texts, d.String())
	}
	return map[string]any{"ok": len(texts) == 0, "drift": texts}, nil
}
