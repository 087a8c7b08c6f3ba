package exchange

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// RecorderConfig sets a Recorder up. Dir is required.
type RecorderConfig struct {
	Dir     string           // where the files go; it must exist
	Secrets []string         // what is masked wherever it stands
	Now     func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: logs nothing
}

// Recorder keeps what a client of the API sends and receives as exchange files,
// one for each request with its answer, to which the callbacks about it and its
// status are added as they come. Credentials and tokens are not in them:
// variables and placeholders stand in their place, so that the files can be
// replayed, with the recorded account as ${account}. An exchange without an answer
// is not kept.
//
// What it cannot write it logs; it never stands in the way of the exchange.
type Recorder struct {
	cfg  RecorderConfig
	mask *masker

	mu    sync.Mutex // guards what follows, and is held while files are written
	count int
	byID  map[string]*recording // by the requestId of the answer
	ids   []string              // of byID, the oldest first
	// early are callbacks that came before the answer that names their request, the
	// oldest first.
	early []earlyCallback
}

type earlyCallback struct {
	id      string
	message map[string]any
}

// recording is what a file holds.
type recording struct {
	name      string // of the file
	title     string
	account   string
	listens   bool // a listener must be registered first
	listener  bool // ${listener} is used
	step      string
	callbacks []string
	status    string // a further step
}

// NewRecorder makes a Recorder.
func NewRecorder(cfg RecorderConfig) *Recorder {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Recorder{cfg: cfg, mask: &masker{}, byID: map[string]*recording{}}
	for _, s := range cfg.Secrets {
		r.mask.learn(s)
	}
	return r
}

// mostRecorded is how much of a message is kept.
const mostRecorded = 1 << 20

// Transport records what goes through next.
func (r *Recorder) Transport(next http.RoundTripper) http.RoundTripper {
	return recordingTransport{r, next}
}

type recordingTransport struct {
	recorder *Recorder
	next     http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t recordingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent bytes.Buffer
	if req.Body != nil {
		body := req.Body
		req = req.WithContext(req.Context()) // a copy, which is ours
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(body, &sent), body}
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(io.LimitReader(resp.Body, mostRecorded))
	rest := resp.Body
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(got), failing{err}, rest), rest}
	if err == nil {
		t.recorder.exchange(req, sent.Bytes(), resp.StatusCode, got)
	}
	return resp, nil
}

// failing is a reader that gives nothing but an error, or nothing.
type failing struct{ err error }

// Read implements io.Reader.
func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

// Handler records the callbacks that next acknowledges.
func (r *Recorder) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(io.LimitReader(req.Body, mostRecorded+1))
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), failing{err}, req.Body), req.Body}
		status := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(status, req)
		if err == nil && status.status/100 == 2 {
			r.callback(body)
		}
	})
}

type statusWriter struct {
	http.ResponseWriter

	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// exchange records a request and its answer.
func (r *Recorder) exchange(req *http.Request, sent []byte, status int, got []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in, out := parseRecorded(sent), parseRecorded(got)
	account, _ := member(in, "accountName")
	path := req.URL.Path
	if name, rest, ok := accountInPath(path); ok {
		account, path = name, rest
	}
	if id := requestInPath(path); id != "" && r.byID[id] != nil && status == http.StatusOK {
		x := r.byID[id]
		path = strings.Replace(path, id, "${requestId}", 1)
		if m, ok := out.(map[string]any); ok && m["status"] == "Pending" {
			m["status"] = standIn("<string>") // another time it may have ended
		}
		x.status = step(req.Method, path, in, nil, status, generalize(out, account, id))
		r.write(x)
		return
	}
	r.count++
	x := &recording{
		name:    fmt.Sprintf("%s-%06d-%s.txtar", r.cfg.Now().UTC().Format("20060102T150405.000"), r.count, nameOf(req.Method, path)),
		title:   "Recorded: " + req.Method + " " + path,
		account: account,
	}
	if m, ok := in.(map[string]any); ok {
		x.listener = concealRequest(m, path)
	}
	id, _ := member(out, "requestId")
	x.step = step(req.Method, path, generalize(in, account, ""), sent, status, generalize(out, account, ""))
	if id != "" && status == http.StatusOK {
		r.remember(id, x)
	}
	r.write(x)
}

// mostRemembered is how many requests callbacks are added to, and how many callbacks
// wait for theirs.
const mostRemembered = 1000

func (r *Recorder) remember(id string, x *recording) {
	if r.byID[id] == nil {
		r.ids = append(r.ids, id)
	}
	r.byID[id] = x
	if len(r.ids) > mostRemembered {
		delete(r.byID, r.ids[0])
		r.ids = r.ids[1:]
	}
	r.early = slices.DeleteFunc(r.early, func(c earlyCallback) bool {
		if c.id == id {
			x.hear(id, c.message)
		}
		return c.id == id
	})
}

// callback adds a callback to its request.
func (r *Recorder) callback(body []byte) {
	m, ok := parseRecorded(body).(map[string]any)
	if !ok {
		return
	}
	id, _ := member(m, "requestId")
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.byID[id]
	if x == nil {
		r.early = append(r.early, earlyCallback{id, m})
		r.early = r.early[max(0, len(r.early)-mostRemembered):]
		return
	}
	x.hear(id, m)
	r.write(x)
}

// hear adds a callback about the request.
func (x *recording) hear(id string, m map[string]any) {
	delete(m, "username")
	delete(m, "password")
	for _, name := range []string{"callbackCount", "maxCallbackThreshold"} {
		if m[name] != nil {
			m[name] = standIn("<int>")
		}
	}
	x.listens = true
	x.callbacks = append(x.callbacks, "-- callback --\n"+encodeRecorded(generalize(m, x.account, id))+"\n")
}

// write writes a file anew, whole or not at all; r.mu is held.
func (r *Recorder) write(x *recording) {
	var b strings.Builder
	b.WriteString(x.title + "\n\n")
	if x.account != "" {
		fmt.Fprintf(&b, "Of account %s.\n\n", x.account)
	}
	b.WriteString("source: a recording\n")
	if x.listens || x.listener {
		b.WriteString("needs: callbacks\n")
	}
	if x.listens {
		b.WriteString("listens: account\n")
	}
	b.WriteString("\n" + x.step + strings.Join(x.callbacks, "") + x.status)
	text := b.String()
	for _, v := range r.mask.values {
		text = strings.ReplaceAll(text, v, masked)
	}
	path := filepath.Join(r.cfg.Dir, x.name)
	err := os.WriteFile(path+".tmp", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		r.cfg.Logger.Warn("recording an exchange", "error", err)
	}
}
