package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/simlatch/simlatch/internal/callback"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/store"
)

const (
	alertEvery   = 2 * time.Second  // how often alerts are looked for
	lowEvery     = 15 * time.Second // how often low pools are counted
	alertTimeout = 10 * time.Second // for the answer to a message
	alertLease   = time.Minute      // how long a message is this node's to send
)

// An alerter tells operators of pools that have run low: by a metric, and by a
// message to their URL, signed as callbacks are.
type alerter struct {
	store   *store.Store
	clock   license.Clock
	log     *slog.Logger
	url     string
	webhook *standardwebhooks.Webhook // nil: no messages are sent
	client  *http.Client

	low  prometheus.Gauge
	sent *prometheus.CounterVec
}

// newAlerter makes the alerter of a core whose store is open.
func newAlerter(c *core) (*alerter, error) {
	a := &alerter{
		store: c.store, clock: c.cfg.Clock, log: c.log, url: c.cfg.AlertURL,
		client: &http.Client{
			Timeout:       alertTimeout,
			Transport:     alertTransport(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		low: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "simlatch_pools_low",
			Help: "Pools of all accounts with fewer licenses available than their threshold.",
		}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "simlatch_alert_messages_total",
			Help: "Attempts to send the message about a low pool to --alert-url, by how they ended.",
		}, []string{"outcome"}),
	}
	for _, outcome := range []string{"delivered", "failed"} {
		a.sent.WithLabelValues(outcome)
	}
	for _, collector := range []prometheus.Collector{a.low, a.sent} {
		if err := c.metrics.Register(collector); err != nil {
			return nil, fmt.Errorf("registering the metrics of alerts: %w", err)
		}
	}
	if a.url == "" {
		return a, nil
	}
	var err error
	if a.webhook, err = standardwebhooks.NewWebhook(c.cfg.AlertSecret); err != nil {
		return nil, fmt.Errorf("--alert-secret: %w", err)
	}
	return a, nil
}

// alertTransport makes the connections for messages. Their URL is the operator's
// own, so it may be anywhere, through a proxy too, but for where nothing is ever
// sent: a name that somebody else controls may come to point there.
func alertTransport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is documented to be one
	t.DialContext = callback.NewOwnGuard().DialContext
	return t
}

// run counts low pools and sends messages until ctx ends. What it could not send
// is tried again, by any node, for a day.
func (a *alerter) run(ctx context.Context) error {
	look, count := time.NewTicker(alertEvery), time.NewTicker(lowEvery)
	defer look.Stop()
	defer count.Stop()
	a.count(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-count.C:
			a.count(ctx)
		case <-look.C:
			if a.webhook != nil {
				a.send(ctx)
			}
		}
	}
}

func (a *alerter) count(ctx context.Context) {
	n, err := a.store.LowPools(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "low pools were not counted", "error", err)
		}
		return
	}
	a.low.Set(float64(n))
}

// send tries the messages that are due.
func (a *alerter) send(ctx context.Context) {
	now := a.clock.Now()
	claimed, err := a.store.ClaimAlerts(ctx, now, now.Add(alertLease))
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "alerts were not looked for", "error", err)
	}
	for _, alert := range claimed {
		var again time.Time
		outcome := "delivered"
		if err := a.post(ctx, alert); err != nil {
			if ctx.Err() != nil {
				return // its lease runs out
			}
			outcome, again = "failed", a.clock.Now().Add(license.Backoff(alert.Attempt))
			a.log.WarnContext(ctx, "the message about a low pool was not delivered", "account", alert.Account, "sku", alert.SKU,
				"attempt", alert.Attempt, "again", again, "error", err)
		}
		a.sent.WithLabelValues(outcome).Inc()
		if err := a.store.FinishAlert(ctx, alert, again); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "an alert was not finished; its message may come twice", "error", err)
		}
	}
}

// alertMessage is the body of a message.
type alertMessage struct {
	Type      string    `json:"type"` // "pool.low"
	Timestamp time.Time `json:"timestamp"`
	Data      alertData `json:"data"`
}

type alertData struct {
	AccountName string `json:"accountName"`
	SKUNumber   string `json:"skuNumber"`
	Available   int64  `json:"available"`
	Threshold   int64  `json:"threshold"`
}

// post sends the message about an alert; anything but a 2xx is an error. The
// webhook-id is the same in every attempt.
func (a *alerter) post(ctx context.Context, alert license.Alert) error {
	body, err := json.Marshal(alertMessage{"pool.low", alert.At, alertData{
		string(alert.Account), string(alert.SKU), alert.Available, alert.Threshold,
	}})
	if err != nil {
		return err
	}
	now, id := time.Now(), "alert_"+strconv.FormatInt(alert.Number, 10)
	signature, err := a.webhook.Sign(id, now, body)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return withoutURL(err)
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Webhook-Id", id)
	q.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	q.Header.Set("Webhook-Signature", signature)
	answer, err := a.client.Do(q)
	if err != nil {
		return withoutURL(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusSwitchingProtocols { // whose body is the bare connection, which no time limit is for
		_, _ = io.CopyN(io.Discard, answer.Body, 64<<10) // so that the connection can be used again
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("the answer was %s", answer.Status)
	}
	return nil
}

// withoutURL is an error of net/http without the URL, which may hold a secret.
func withoutURL(err error) error {
	var told *url.Error
	if errors.As(err, &told) {
		return told.Err
	}
	return err
}

// checkAlerts looks at --alert-url and --alert-secret.
func (c Config) checkAlerts() error {
	if (c.AlertURL == "") != (c.AlertSecret == "") {
		return errors.New("--alert-url and --alert-secret go together: messages are signed")
	}
	if c.AlertURL == "" {
		return nil
	}
	u, err := url.Parse(c.AlertURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return errors.New("--alert-url: it must be a URL with http or https and a host")
	}
	if _, err := standardwebhooks.NewWebhook(c.AlertSecret); err != nil {
		return errors.New("--alert-secret: it must be whsec_ and base64, such as printf 'whsec_%s' \"$(head -c 32 /dev/urandom | base64)\" makes")
	}
	return nil
}
