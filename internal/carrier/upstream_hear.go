package carrier

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// Handler receives the upstream's callbacks, those about an account at a path that
// ends in its name here. A callback is acknowledged when it is written down.
func (u *Upstream) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		account, err := license.ParseAccountName(name)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		if !oneMeaning(w, r) {
			return
		}
		// Who does not know the password of an account does not learn whether there
		// is one.
		m2m.CallbackHandler(func(ctx context.Context, m *m2m.CallbackMessage) error {
			return u.hear(ctx, account, m)
		}, m2m.WithCredentials(callbackUser, u.password(account))).ServeHTTP(w, r)
	})
}

// maxCallback is the largest callback that is looked at.
const maxCallback = 1 << 20

// oneMeaning refuses a callback whose JSON says two things, which package m2m,
// made of the standard library alone, would not see.
func oneMeaning(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		return true
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallback))
	var large *http.MaxBytesError
	var m m2m.CallbackMessage
	switch {
	case errors.As(err, &large):
		refuse(w, &problem{Status: http.StatusRequestEntityTooLarge, Detail: "the message is too large"})
	case err != nil:
		refuse(w, &problem{Status: http.StatusBadRequest, Detail: "the body ends before its end"})
	case unmarshalOnce(body, &m) != nil:
		refuse(w, &problem{Status: http.StatusBadRequest, Detail: "the message is not a callback in JSON, or says two things"})
	default:
		r.Body = io.NopCloser(bytes.NewReader(body))
		return true
	}
	return false
}

// heardWord is a word that waits to be written down.
type heardWord struct {
	license.UpstreamWord

	meant chan heardMeaning // has room
}

type heardMeaning struct {
	license.UpstreamHearing

	err error
}

// errEarly has a callback sent again: it came before the answer to its request.
var errEarly = errors.New("the request is not known yet")

// hear takes a callback in.
func (u *Upstream) hear(ctx context.Context, account license.AccountName, m *m2m.CallbackMessage) error {
	word, ok := u.read(account, m)
	if !ok {
		u.metrics.callbacks.WithLabelValues("unusable").Inc()
		u.cfg.Logger.WarnContext(ctx, "a callback of the upstream says nothing that can be used", "account", account,
			"upstream_request", m.RequestID, "iccid", m.ICCID(), "status", m.Status)
		return nil // it would say the same again
	}
	const tries, pause = 14, 250 * time.Millisecond // less than the four seconds after which the reference sends again
	for try := 1; ; try++ {
		meant, err := u.write(ctx, word)
		if err != nil {
			return err
		}
		if meant != license.HearingEarly || try == tries {
			return u.note(ctx, word, meant)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// note counts what a word meant, and says what must be looked into.
func (u *Upstream) note(ctx context.Context, w license.UpstreamWord, meant license.UpstreamHearing) error {
	u.metrics.callbacks.WithLabelValues(meant.String()).Inc()
	switch meant {
	case license.HearingTaken, license.HearingRepeated:
	case license.HearingEarly:
		return errEarly
	case license.HearingUnknown:
		u.cfg.Logger.WarnContext(ctx, "a callback of the upstream about what we did not ask for", "account", w.Account,
			"upstream_request", w.Remote, "iccid", w.ICCID, "ok", w.OK)
	case license.HearingContradicts:
		u.cfg.Logger.ErrorContext(ctx, "a callback of the upstream contradicts what it said before, or what it was asked for", "account", w.Account,
			"upstream_request", w.Remote, "iccid", w.ICCID, "ok", w.OK)
	}
	return nil
}

// read is a callback as a word. Only one that says clearly how which device ended
// is one.
func (u *Upstream) read(account license.AccountName, m *m2m.CallbackMessage) (license.UpstreamWord, bool) {
	w := license.UpstreamWord{Account: account, Remote: m.RequestID, OK: m.Status == m2m.CallbackSuccess}
	var err error
	if w.ICCID, err = license.ParseICCID(m.ICCID()); err != nil || w.Remote == "" || len(w.Remote) > maxRemote {
		return w, false
	}
	if w.OK {
		if m.DeviceResponse == nil || m.FaultResponse != nil {
			return w, false
		}
		d := m.DeviceResponse.DeviceSKUSubscriptionResponse
		w.SKU, w.Action = license.SKU(d.SKUNumber), license.Action(strings.ToLower(d.Action))
		return w, license.AccountName(d.AccountName).Folded() == license.AccountName(u.theirs(account)).Folded()
	}
	if m.Status != m2m.CallbackFailed && m.FaultResponse == nil || m.DeviceResponse != nil {
		return w, false
	}
	if f := m.FaultResponse; f != nil {
		w.Code, w.Comment = f.FaultCode, f.FaultString
		if errors.Is(m.Err(), m2m.ErrAlreadyLicensed) {
			w.Code = license.CodeAlreadyLicensed
		}
	}
	if w.Comment == "" {
		w.Comment = m.Comment
	}
	if w.Comment == "" {
		w.Comment = "The upstream says that it failed, and did not say why."
	}
	return w, true
}

// write has a word written down, with others that came meanwhile.
func (u *Upstream) write(ctx context.Context, w license.UpstreamWord) (license.UpstreamHearing, error) {
	h := &heardWord{UpstreamWord: w, meant: make(chan heardMeaning, 1)}
	select {
	case u.heard <- h:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case m := <-h.meant:
		return m.UpstreamHearing, m.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Run registers our listener for accounts and writes down what callbacks say,
// until ctx ends.
func (u *Upstream) Run(ctx context.Context, accounts []license.AccountName) error {
	var group sync.WaitGroup
	group.Go(func() { u.enter(ctx, accounts) })
	group.Go(func() {
		for {
			select {
			case first := <-u.heard:
				u.writeAll(ctx, u.gather(first))
			case <-ctx.Done():
				return
			}
		}
	})
	group.Wait()
	return nil
}

// gather takes what else has come.
func (u *Upstream) gather(first *heardWord) map[license.AccountName][]*heardWord {
	const most = 500
	by := map[license.AccountName][]*heardWord{first.Account: {first}}
	for n := 1; n < most; n++ {
		select {
		case h := <-u.heard:
			by[h.Account] = append(by[h.Account], h)
		default:
			return by
		}
	}
	return by
}

func (u *Upstream) writeAll(ctx context.Context, by map[license.AccountName][]*heardWord) {
	for account, of := range by {
		words := make([]license.UpstreamWord, len(of))
		for i, h := range of {
			words[i] = h.UpstreamWord
		}
		meant, more, err := u.cfg.Records.HearUpstream(ctx, u.cfg.Clock.Now(), account, words)
		if err != nil {
			u.cfg.Logger.ErrorContext(ctx, "writing down what the upstream's callbacks said; they will come again", "error", err, "callbacks", len(of))
		}
		if more {
			u.cfg.Wake()
		}
		for i, h := range of {
			m := heardMeaning{err: err}
			if err == nil {
				m.UpstreamHearing = meant[i]
			}
			h.meant <- m
		}
	}
}
