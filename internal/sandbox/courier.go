package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/license"
)

// InboxHost is the host of a listener that needs nobody to listen: what is sent
// to it, by any path, is acknowledged and stands in the journal.
const InboxHost = "inbox.simlatch.test"

// errLost is why a callback has no answer, or none that is known.
var (
	errLost       = errors.New("the sandbox lost the callback on its way")
	errLostAnswer = errors.New("the sandbox lost the answer to the callback")
)

// courier carries callbacks to listeners, through the faults they meet.
type courier struct{ box *Box }

// parcel is one callback on its way.
type parcel struct {
	c     license.Callback
	req   *http.Request
	body  []byte
	next  http.RoundTripper
	fault string
}

// Carry sends req, which tells of c, by next. It is callback.Courier.
func (c courier) Carry(of *license.Callback, req *http.Request, next http.RoundTripper) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the callback: %w", err)
	}
	then, name := c.box.fate.strike(event{
		on: OnCallback, account: of.Account, sku: of.SKU, action: of.Action, iccid: of.Device.ICCID, attempt: of.Attempt + 1,
	})
	p := parcel{c: *of, req: req, body: body, next: next, fault: name}
	switch then.Do {
	case Lose:
		c.note(p, nil, errLost, false)
		return nil, errLost
	case LoseAnswer:
		if resp, err := c.post(p); err == nil {
			_ = resp.Body.Close() // its answer is lost
		}
		return nil, errLostAnswer
	case Swallow:
		c.note(p, nil, errors.New("the sandbox swallowed the callback"), false)
		return accepted(req), nil
	case Duplicate:
		c.also(p, body)
		return c.post(p)
	case SlowDuplicate:
		return c.together(p)
	case Late:
		c.box.late.add(c.box.clock.Now().Add(time.Duration(then.Delay)), func(ctx context.Context) { c.again(ctx, p) })
		return accepted(req), nil
	case Reorder:
		c.box.late.collect(name, then.Of, c.box.clock.Now().Add(time.Minute), func(ctx context.Context) { c.again(ctx, p) })
		return accepted(req), nil
	}
	return c.post(p)
}

// accepted is the answer of a listener that the sandbox stands in for.
func accepted(req *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody, Request: req,
	}
}

// post delivers a parcel and notes it.
func (c courier) post(p parcel) (*http.Response, error) {
	if p.req.URL.Hostname() == InboxHost {
		c.note(p, accepted(p.req), nil, true)
		return accepted(p.req), nil
	}
	req := p.req.Clone(p.req.Context())
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(p.body)), int64(len(p.body))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.body)), nil }
	resp, err := p.next.RoundTrip(req)
	c.note(p, resp, err, err == nil)
	return resp, err
}

// also delivers a parcel once more, whatever comes of it.
func (c courier) also(p parcel, body []byte) {
	p.body = body
	if resp, err := c.post(p); err == nil {
		_ = resp.Body.Close() // nobody waits for it
	}
}

// again delivers a parcel that is acknowledged already, in its own time.
func (c courier) again(ctx context.Context, p parcel) {
	ctx, cancel := context.WithTimeout(ctx, lateTimeout)
	defer cancel()
	p.req = p.req.WithContext(ctx)
	c.also(p, p.body)
}

// lateTimeout is how long a listener has for a message that comes late, in real
// time.
const lateTimeout = 10 * time.Second

// together delivers a parcel and, while it is open, another with the next count,
// which the service does not know of.
func (c courier) together(p parcel) (*http.Response, error) {
	count := func(n int) []byte { return fmt.Appendf(nil, `"callbackCount":%d,`, n) }
	second := bytes.Replace(p.body, count(p.c.Attempt+1), count(p.c.Attempt+2), 1)
	var other sync.WaitGroup
	other.Go(func() { c.also(p, second) })
	resp, err := c.post(p)
	other.Wait()
	return resp, err
}

// note writes an attempt into the journal.
func (c courier) note(p parcel, resp *http.Response, err error, delivered bool) {
	var message struct {
		Status  string `json:"status"`
		Comment string `json:"comment"`
		Count   int    `json:"callbackCount"`
	}
	_ = json.Unmarshal(p.body, &message) // we made it
	e := Entry{
		Time: c.box.clock.Now(), Kind: OnCallback, RequestID: string(p.c.Request), Account: string(p.c.Account),
		SKU: string(p.c.SKU), Action: string(p.c.Action), ICCID: string(p.c.Device.ICCID), Attempt: message.Count,
		Method: p.req.Method, URL: p.req.URL.String(), Sent: mask(p.body), Outcome: message.Status, Comment: message.Comment,
		Delivered: delivered, Fault: p.fault,
	}
	if resp != nil {
		e.Status = resp.StatusCode
	}
	if err != nil {
		e.Comment = err.Error()
	}
	c.box.journal.add(e)
}

// postponed is what the sandbox does later, on its clock.
type postponed struct {
	mu      sync.Mutex // guards what follows
	todo    []later    // by their times, then as they came
	groups  map[string][]later
	changed chan struct{} // holds at most one: there is something new to wait for
	sending sync.Mutex    // held while some of it is done, in its order
}

type later struct {
	at time.Time
	do func(ctx context.Context)
}

func newPostponed() *postponed {
	return &postponed{groups: map[string][]later{}, changed: make(chan struct{}, 1)}
}

func (p *postponed) add(at time.Time, do func(ctx context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.insert(later{at, do})
}

// insert is add; p.mu is held.
func (p *postponed) insert(l later) {
	i, _ := slices.BinarySearchFunc(p.todo, l.at, func(l later, at time.Time) int {
		if l.at.After(at) {
			return 1
		}
		return -1
	})
	p.todo = slices.Insert(p.todo, i, l)
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// collect keeps what is done together with others of its group: the last first,
// once there are so many, and at the latest at a time.
func (p *postponed) collect(group string, of int, latest time.Time, do func(ctx context.Context)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.groups[group] = append(p.groups[group], later{latest, do})
	if len(p.groups[group]) == 1 {
		p.insert(later{latest, func(context.Context) { p.disband(group) }})
	}
	if len(p.groups[group]) >= of {
		p.reverse(group)
	}
}

// disband ends the wait of a group that did not become complete.
func (p *postponed) disband(group string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reverse(group)
}

// reverse makes a group due, the last first; p.mu is held.
func (p *postponed) reverse(group string) {
	members := p.groups[group]
	delete(p.groups, group)
	slices.Reverse(members)
	for _, l := range members {
		p.insert(later{time.UnixMicro(1), l.do}) // long ago
	}
}

// next is when something is to be done; zero when nothing is.
func (p *postponed) next() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.todo) == 0 {
		return time.Time{}
	}
	return p.todo[0].at
}

// send does what is due by now.
func (p *postponed) send(ctx context.Context, now time.Time) {
	p.sending.Lock()
	defer p.sending.Unlock()
	for ctx.Err() == nil {
		p.mu.Lock()
		if len(p.todo) == 0 || p.todo[0].at.After(now) {
			p.mu.Unlock()
			return
		}
		first := p.todo[0]
		p.todo = p.todo[1:]
		p.mu.Unlock()
		first.do(ctx)
	}
}

func (p *postponed) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.todo = nil
	clear(p.groups)
}

// mask blots out the secrets of a body that is JSON, and cuts it short.
func mask(body []byte) string {
	if len(body) > bodyMost {
		return strings.ToValidUTF8(string(body[:bodyMost]), "") + "…"
	}
	return strings.ToValidUTF8(secretMembers.ReplaceAllString(string(body), `$1"********"`), "\uFFFD")
}
