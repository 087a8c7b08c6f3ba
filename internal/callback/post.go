package callback

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/simlatch/simlatch/internal/crash"
	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
)

const (
	// answerRead is how much of an answer is read, so that its connection can be
	// used again; answerKept how much of it is kept for people to read.
	answerRead = 64 << 10
	answerKept = 256
	// answerTime is how long the body of an answer may take. Its status line has
	// decided by then; a body that drips is cut off.
	answerTime = time.Second
)

var errTimeout = errors.New("no answer in time")

// newTransport makes the connections that all listeners share. RoundTrip is
// called on it directly, so nothing follows redirects or keeps cookies.
func newTransport(cfg Config) *http.Transport {
	return &http.Transport{
		Proxy:                  nil, // a proxy would dial what the guard refuses
		DialContext:            cfg.Guard.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1024)},
		TLSHandshakeTimeout:    30 * time.Second,
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second, WriteByteTimeout: 30 * time.Second},
		DisableCompression:     true,
		MaxIdleConnsPerHost:    2 * cfg.PerListener, // accounts may share a host
		IdleConnTimeout:        4 * time.Second,     // less than servers wait: common ones close after 5 s, and to post just then costs an attempt
		ResponseHeaderTimeout:  0,                   // the attempt's timeout covers it
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// attempt makes one attempt to deliver c. counted is false when it was not made,
// or cut off by the shutdown with its outcome unknown; d then holds only c.
func (s *Sender) attempt(ctx, posts context.Context, l *lane, c license.Callback, buf []byte) (d license.Delivery, counted bool) {
	d.Callback = c
	t, err := s.target(ctx, l)
	if err != nil {
		return d, false
	}
	now := s.cfg.Clock.Now()
	d.At = now
	if t.none {
		d.Verdict = license.Unsent
		return d, true
	}
	for pause := localPause; ; pause = min(2*pause, localMost) {
		if !s.covers(&c, t.timeout, s.cfg.Clock.Now()) || ctx.Err() != nil {
			return d, false
		}
		err = s.try(posts, t, &d, buf)
		if err != nil && posts.Err() != nil {
			return d, false
		}
		if !s.excused(err, &c) {
			break
		}
		rest(ctx, pause)
	}
	s.metrics.seconds.Observe(d.Latency.Seconds())
	if err != nil {
		d.Answer = clip([]byte(err.Error()), t.secrets)
	}
	d.At = s.cfg.Clock.Now()
	d.Verdict = verdict(d.Status, c.Attempt+1, t.attempts)
	if d.Verdict == license.Again {
		d.Due = d.At.Add(t.interval)
	}
	return d, true
}

// try posts d's callback once, and takes note of what came of it.
func (s *Sender) try(posts context.Context, t *target, d *license.Delivery, buf []byte) (err error) {
	start := time.Now()
	s.metrics.inFlight.Inc()
	span := s.begin(&d.Callback)
	d.Status, d.Answer, err = s.post(posts, t, &d.Callback, buf)
	endSpan(span, d.Status, err)
	s.metrics.inFlight.Dec()
	d.Latency = time.Since(start)
	return err
}

// verdict judges an attempt, the count-th of at most attempts, by the status of
// its answer; 0 is no answer.
func verdict(status, count, attempts int) license.DeliveryVerdict {
	switch {
	case status >= 200 && status < 300:
		return license.Delivered
	case status == http.StatusGone, count >= attempts:
		return license.Exhausted
	}
	return license.Again
}

// post sends c once and reads the answer: its status, and the beginning of its
// body as far as that came. The error says why there is no status.
func (s *Sender) post(ctx context.Context, t *target, c *license.Callback, buf []byte) (int, []byte, error) {
	if t.err != nil {
		return 0, nil, t.err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// One timer for both: a context's own deadline could not be moved.
	started := time.Now()
	timer := time.AfterFunc(t.timeout, func() { cancel(errTimeout) })
	defer timer.Stop()

	req, err := s.request(t, c, s.cfg.Wall.Now())
	if err != nil {
		return 0, nil, err
	}
	crash.At(crash.CallbackPosting)
	resp, err := s.carry(c, req.WithContext(ctx))
	crash.At(crash.CallbackPosted)
	if err != nil {
		if errors.Is(context.Cause(ctx), errTimeout) {
			err = fmt.Errorf("%w (%s)", errTimeout, t.timeout)
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp.StatusCode, nil, nil // its body is the bare connection, which nothing would end
	}
	timer.Reset(max(0, min(answerTime, t.timeout-time.Since(started))))
	return resp.StatusCode, s.answer(resp, t, buf), nil
}

// request renders c as a request to t. Nothing in it is used twice, since the
// transport may still hold on to it after an answer.
func (s *Sender) request(t *target, c *license.Callback, now time.Time) (*http.Request, error) {
	body := appendMessage(make([]byte, 0, len(t.opening)+640+2*len(c.Comment)), t.opening, c, t.attempts)
	id := c.WebhookID()
	v := [...]string{"application/json", s.cfg.UserAgent, id, strconv.FormatInt(now.Unix(), 10), ""}
	header := make(http.Header, len(v))
	header["Content-Type"] = v[0:1:1]
	header["User-Agent"] = v[1:2:2]
	header["Webhook-Id"] = v[2:3:3]
	header["Webhook-Timestamp"] = v[3:4:4]
	if t.webhook != nil {
		var err error
		if v[4], err = t.webhook.Sign(id, now, body); err != nil {
			return nil, fmt.Errorf("signing the callback: %w", err)
		}
		header["Webhook-Signature"] = v[4:5:5]
	}
	if c.Trace != "" && tracing.Valid(c.Trace) {
		header[tracing.Header] = []string{c.Trace}
	}
	return &http.Request{
		Method: http.MethodPost, URL: t.url, Host: t.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: int64(len(body)),
		Body:          io.NopCloser(bytes.NewReader(body)),
		// Lets the transport use another connection when the one it chose turns
		// out closed before a byte was sent.
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}, nil
}

// answer reads what is worth reading of an answer's body. How that goes changes
// nothing: the status line has decided.
func (s *Sender) answer(resp *http.Response, t *target, buf []byte) []byte {
	var kept []byte
	for total := 0; total < answerRead; {
		n, err := resp.Body.Read(buf)
		if len(kept) < 2*answerKept {
			kept = append(kept, buf[:min(n, 2*answerKept-len(kept))]...)
		}
		total += n
		if err != nil {
			break
		}
	}
	return clip(kept, t.secrets)
}

// clip cuts an answer short and blots out the listener's secrets, which an
// answer that echoes the message would show.
func clip(answer []byte, secrets [][]byte) []byte {
	for _, secret := range secrets {
		answer = bytes.ReplaceAll(answer, secret, []byte("********"))
	}
	return answer[:min(len(answer), answerKept)]
}
