package operator

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// keepAlive is how often a stream with nothing to tell says that it lives.
const keepAlive = 15 * time.Second

// streamEvents answers with server-sent events until the reader leaves or the
// server ends.
func (a *API) streamEvents(c *call) (any, error) {
	q := c.query("account")
	var account license.AccountName
	if name := q.get("account"); name != "" && q.err == nil {
		var err error
		account, err = a.findAccount(c.r.Context(), name)
		q.note(err)
	}
	if q.err != nil {
		return nil, q.err
	}
	s := a.events.subscribe(account, c.r.Header.Get("Last-Event-ID"))
	defer a.events.unsubscribe(s)
	select { // from the answer on, all is news
	case <-a.events.readiness():
	case <-s.gone:
		return nil, problemf(errUnavailable, "the server is about to end")
	case <-c.r.Context().Done():
		return nil, c.r.Context().Err()
	}
	c.streamed = true
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy's buffer would hold events back
	c.w.WriteHeader(http.StatusOK)
	if !c.push([]byte("retry: 2000\n\n")) {
		return nil, nil
	}
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		ok := true
		select {
		case event := <-s.events:
			ok = c.push(frame(event))
		case <-s.gone:
			return nil, nil
		case <-tick.C:
			ok = c.push([]byte(":\n\n"))
		case <-c.r.Context().Done():
			return nil, nil
		}
		if !ok {
			return nil, nil
		}
	}
}

// frame is an event as it is sent.
func frame(event client.Event) []byte {
	data, err := json.Marshal(event)
	if err != nil { // it is strings and numbers
		panic("encoding an event: " + err.Error())
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", event.ID, event.Type, data)
	return b.Bytes()
}

// push sends a part of a stream, and reports whether its reader takes it.
func (c *call) push(part []byte) bool {
	rc := http.NewResponseController(c.w)
	_ = rc.SetWriteDeadline(time.Now().Add(c.api.cfg.Timeout)) // network timeouts are real time
	if _, err := c.w.Write(part); err != nil {
		return false
	}
	return rc.Flush() == nil
}
