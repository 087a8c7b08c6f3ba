package exchange

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// listener receives callbacks for one exchange at a time.
type listener struct {
	url    string
	server *http.Server
	served chan error

	mu   sync.Mutex // guards what follows
	name string     // of the exchange
	box  *inbox
}

// listen begins to receive on an address; reached says how servers reach it.
func listen(address, reached string) (*listener, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	sock, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	if reached == "" {
		reached = "http://" + reachable(sock.Addr())
	}
	l := &listener{url: strings.TrimRight(reached, "/"), served: make(chan error, 1)}
	l.server = &http.Server{Handler: l, ReadHeaderTimeout: 10 * time.Second}
	go func() { l.served <- l.server.Serve(sock) }()
	return l, nil
}

// reachable is an address as this machine can call it: a listener on all
// addresses is on loopback, too.
func reachable(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return a.String()
}

func (l *listener) close() error {
	err := l.server.Close()
	if served := <-l.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// open makes an inbox for an exchange, which from now on gets what comes.
func (l *listener) open(name string) *inbox {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.name, l.box = name, &inbox{came: make(chan struct{}), seen: map[string]int{}}
	return l.box
}

// ServeHTTP takes a callback in. One for an earlier exchange is acknowledged
// and forgotten.
func (l *listener) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	const mostCallback = 1 << 20
	body, err := io.ReadAll(io.LimitReader(req.Body, mostCallback))
	if err != nil {
		return
	}
	l.mu.Lock()
	box, name := l.box, l.name
	l.mu.Unlock()
	first, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if box == nil || first != name {
		return
	}
	status := box.put(received{method: req.Method, path: req.URL.Path, headers: req.Header, body: string(body)})
	if status >= http.StatusMultipleChoices && status < http.StatusBadRequest {
		w.Header().Set("Location", l.url+"/"+name+"/redirected")
	}
	w.WriteHeader(status)
}

// received is one callback as it came.
type received struct {
	method, path string
	headers      http.Header
	body         string
	requestID    string
	matched      bool
}

// String is the message for people.
func (m *received) String() string {
	return clip(m.method+" "+m.path+"\n"+head(m.headers)+"\n"+m.body+"\n", shown)
}

// inbox holds the callbacks of one exchange.
type inbox struct {
	mu       sync.Mutex // guards what follows
	messages []*received
	replies  []int
	seen     map[string]int // messages about a device since the replies were set
	came     chan struct{}  // closed when a message comes
}

func (b *inbox) answerWith(replies []int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.replies, b.seen = replies, map[string]int{}
}

// put takes a message in and says with what to answer it.
func (b *inbox) put(m received) int {
	var head struct {
		RequestID string `json:"requestId"`
		DeviceIDs []struct {
			ID string `json:"id"`
		} `json:"deviceIds"`
	}
	// What is no JSON is kept all the same: it differs from what is expected.
	_ = json.Unmarshal([]byte(m.body), &head)
	m.requestID = head.RequestID
	about := m.requestID
	if len(head.DeviceIDs) > 0 {
		about += " " + head.DeviceIDs[0].ID
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages = append(b.messages, &m)
	close(b.came)
	b.came = make(chan struct{})
	n := b.seen[about]
	b.seen[about]++
	if len(b.replies) == 0 {
		return http.StatusOK
	}
	return b.replies[min(n, len(b.replies)-1)]
}

// pending lists the messages for the requests given that nothing has matched
// yet, and a channel that is closed when another comes.
func (b *inbox) pending(ids []string) ([]*received, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*received
	for _, m := range b.messages {
		if !m.matched && slices.Contains(ids, m.requestID) {
			out = append(out, m)
		}
	}
	return out, b.came
}

// callbacks waits for the callbacks a step must have.
func (r *run) callbacks(ctx context.Context, s Step, vars map[string]string, res *StepResult) error {
	if r.inbox == nil {
		return nil
	}
	wanted, err := expectations(s.Callbacks, vars)
	if err != nil {
		return err
	}
	for _, id := range r.ids {
		for _, w := range wanted {
			r.told[id] = r.told[id] || strings.Contains(w.Body, id)
		}
	}
	r.heard = nil
	defer func() { res.Callbacks = r.heard }()
	patience := time.NewTimer(r.cfg.Patience)
	defer patience.Stop()
	for {
		here, more := r.inbox.pending(r.ids)
		wanted = r.pair(wanted, here)
		if len(wanted) == 0 {
			break
		}
		select {
		case <-more:
			continue
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
		}
		for _, w := range wanted {
			res.Diffs = append(res.Diffs, missing(w, here))
		}
		break
	}
	if s.Silence {
		return r.silence(ctx, res)
	}
	return nil
}

// expectations are the messages to wait for, each once.
func expectations(callbacks []Callback, vars map[string]string) ([]Message, error) {
	var all []Message
	for _, c := range callbacks {
		own := maps.Clone(vars)
		for _, part := range []string{"iccid", "imei", "mdn"} {
			own["device."+part] = vars[c.Device+"."+part]
		}
		m, err := c.Message.expand(own)
		if err != nil {
			return nil, err
		}
		for range c.Times {
			all = append(all, m)
		}
	}
	return all, nil
}

// pair matches messages with expectations and returns the expectations left.
func (r *run) pair(wanted []Message, here []*received) (left []Message) {
	for _, w := range wanted {
		found := false
		for _, g := range here {
			if g.matched {
				continue
			}
			if m := fitsMessage(w, g); len(m.diffs) == 0 {
				g.matched, found = true, true
				r.heard = append(r.heard, g.String())
				maps.Copy(r.captured, m.captured)
				break
			}
		}
		if !found {
			left = append(left, w)
		}
	}
	return left
}

func fitsMessage(want Message, got *received) match {
	m := matchJSON("callback", want.Body, got.body)
	if got.method != http.MethodPost {
		m.differ("callback method", http.MethodPost, got.method)
	}
	if kind, _, _ := strings.Cut(got.headers.Get("Content-Type"), ";"); kind != "application/json" {
		m.differ("callback header Content-Type", "application/json", kind)
	}
	for _, h := range want.Headers {
		m.header(h, got.headers.Values(h.Name))
	}
	return m
}

// missing describes a callback that did not come by what came most like it.
func missing(want Message, here []*received) Diff {
	d := Diff{At: "callback", Want: want.Body, Got: "none"}
	var closest []Diff
	for _, g := range here {
		if m := fitsMessage(want, g); !g.matched && (closest == nil || len(m.diffs) < len(closest)) {
			closest = m.diffs
		}
	}
	if closest != nil {
		d.Got = fmt.Sprintf("others; the closest has %v", closest)
	}
	return d
}

// silence waits a little and reports what came.
func (r *run) silence(ctx context.Context, res *StepResult) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(r.cfg.Quiet):
	}
	here, _ := r.inbox.pending(r.ids)
	for _, g := range here {
		g.matched = true // reported here, and once
		res.Diffs = append(res.Diffs, Diff{At: "callback", Want: "none", Got: g.body})
	}
	return nil
}

// finish reports the callbacks that nothing expected, of the requests for which
// the exchange expects some.
func (r *run) finish(res *Result) {
	if r.inbox == nil || len(res.Steps) == 0 {
		return
	}
	here, _ := r.inbox.pending(r.ids)
	last := &res.Steps[len(res.Steps)-1]
	for _, g := range here {
		if r.told[g.requestID] {
			last.Diffs = append(last.Diffs, Diff{At: "callback", Want: "none but those before", Got: g.body})
		}
	}
}
