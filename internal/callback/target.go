package callback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/license"
)

// listenerAge is how long a listener is used as it was read; a change made
// through another node takes effect that late.
const listenerAge = time.Second

// target is a listener, made ready to post to. It is not changed once made.
type target struct {
	changes uint64    // ListenerChanges before it was read
	read    time.Time // when it was read

	listener license.Listener
	none     bool  // no listener is registered
	err      error // the listener cannot be posted to at all

	url      *url.URL
	opening  []byte // of each message
	webhook  *standardwebhooks.Webhook
	secrets  [][]byte // what no kept answer may show
	attempts int
	interval time.Duration
	timeout  time.Duration
}

// target returns whom to send the lane's callbacks to. It reads the listener
// again after any change made through this process, and else once a second.
// While the outbox is away it tries again until ctx ends.
func (s *Sender) target(ctx context.Context, l *lane) (*target, error) {
	if t := l.target.Load(); s.fresh(t) {
		return t, nil
	}
	select {
	case l.loading <- struct{}{}:
		defer func() { <-l.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	wait := 50 * time.Millisecond
	for {
		t := l.target.Load()
		if s.fresh(t) {
			return t, nil
		}
		// Read before the listener: a change in between is then seen next time.
		changes, now := s.cfg.Outbox.ListenerChanges(), s.cfg.Clock.Now()
		listener, err := s.cfg.Outbox.Listener(ctx, l.account, license.CarrierService)
		if err == nil || errors.Is(err, license.ErrNotFound) {
			t = s.ready(t, listener, err != nil)
			t.changes, t.read = changes, now
			l.target.Store(t)
			return t, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		wait = min(2*wait, 5*time.Second)
		s.cfg.Logger.Error("reading a listener", "account", l.account, "error", err, "retry_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

func (s *Sender) fresh(t *target) bool {
	if t == nil || t.changes != s.cfg.Outbox.ListenerChanges() {
		return false
	}
	age := s.cfg.Clock.Now().Sub(t.read)
	return age >= 0 && age < listenerAge
}

// ready makes a target of a listener, from the one before where that is still
// right.
func (s *Sender) ready(before *target, l license.Listener, none bool) *target {
	if before != nil && before.none == none && before.listener == l {
		t := *before
		return &t
	}
	t := &target{
		listener: l, none: none, attempts: s.cfg.Attempts, interval: s.cfg.Interval, timeout: s.cfg.Timeout,
	}
	if none {
		return t
	}
	if l.Attempts > 0 {
		t.attempts = l.Attempts
	}
	if l.Interval > 0 {
		t.interval = l.Interval
	}
	if l.Timeout > 0 {
		t.timeout = l.Timeout
	}
	t.opening = appendOpening(nil, l)
	for _, secret := range []string{l.Password, l.SigningSecret} {
		if secret != "" {
			escaped, _ := json.Marshal(secret) // a string always marshals
			t.secrets = append(t.secrets, []byte(secret), escaped[1:len(escaped)-1])
		}
	}
	if t.url, t.err = url.Parse(l.URL); t.err == nil && t.url.Host == "" {
		t.err = errors.New("the listener's URL names no host")
	}
	if l.SigningSecret != "" && t.err == nil {
		if t.webhook, t.err = standardwebhooks.NewWebhook(l.SigningSecret); t.err != nil {
			t.err = fmt.Errorf("signing the callback: %w", t.err)
		}
	}
	return t
}
