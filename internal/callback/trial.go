package callback

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// What a test message is about: no SIM has this ICCID.
const (
	testICCID   = license.ICCID("00000000000000000000")
	testCode    = "UnifiedWebService.REQUEST_FAILED.TestMessage"
	testComment = "This is a test message from the operator. It is about no device."
)

// Test sends a listener a test message, once, and tells how that ended. It is
// signed, guarded and judged like any other, and says that a device which does
// not exist has failed, in a request that was never made, so that nobody takes it
// for a license. Nothing of it is written down.
func (s *Sender) Test(ctx context.Context, l license.Listener) license.Delivery {
	now := s.cfg.Clock.Now()
	d := license.Delivery{Callback: license.Callback{
		Request: license.NewRequestID(now, rand.Reader), Account: l.Account, Action: license.Assign,
		Device: license.Device{ICCID: testICCID}, Code: testCode, Comment: testComment,
	}}
	t, start := s.ready(nil, l, false), time.Now()
	var err error
	d.Status, d.Answer, err = s.post(ctx, t, &d.Callback, make([]byte, 4<<10))
	d.Latency, d.At = time.Since(start), s.cfg.Clock.Now()
	if err != nil {
		d.Answer = clip([]byte(err.Error()), t.secrets)
	}
	d.Verdict = verdict(d.Status, 1, 1)
	return d
}

// Message is the body of the message that tells a listener of c.
func (s *Sender) Message(l license.Listener, c license.Callback) []byte {
	return appendMessage(nil, appendOpening(nil, l), &c, s.ready(nil, l, false).attempts)
}
