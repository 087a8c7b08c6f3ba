package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// posters is how many callbacks the references have in flight: what the server
// gives one listener.
const posters = 32

// bareMark is the mark of the fleet that bare's callbacks name.
const bareMark = 99

// startReference starts the process that plays all references. None keeps
// anything.
//
//	POST /bare/prepare  renders callbacks and keeps them in memory
//	POST /bare/go       posts them, and answers when all have been answered
//	POST /memory        decodes a request, answers, and posts a callback a device
//	POST …/assign       reads the request and answers: a bare handler
func (b *bench) startReference(ctx context.Context, env ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self)
	cmd.Env = append(env, roleVariable+"=reference")
	p, err := b.startProcess(cmd)
	if err != nil {
		return nil, fmt.Errorf("starting the references: %w", err)
	}
	return p, nil
}

// play is the life of a process that this program started.
func play(ctx context.Context, role string, out io.Writer) error {
	if role == "serve" {
		return serveProfiled(ctx, os.Args[1:], out)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p := &player{tasks: make(chan task, 1<<20), transport: &http.Transport{
		MaxIdleConnsPerHost: 2 * posters, DisableCompression: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, IdleConnTimeout: 4 * time.Second,
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /bare/prepare", p.prepare)
	mux.HandleFunc("POST /bare/go", p.bare)
	mux.HandleFunc("POST /memory", p.memory)
	mux.HandleFunc("POST "+assignPath, handler)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	for range posters {
		go p.deliver(ctx) // ends with the process
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	fmt.Fprintf(out, "references at http://%s\n", ln.Addr())
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler is the bare handler: it reads the body and answers.
func handler(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // a client that has gone gets no answer
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"requestId":"0193e6a0-0000-7000-8000-000000000000"}`)
}

type player struct {
	transport *http.Transport
	tasks     chan task // of memory

	mu       sync.Mutex // guards what follows
	messages [][]byte   // of bare
	sink     *url.URL
}

// task is a device that memory has to call back for.
type task struct {
	sink    *url.URL
	request string
	device  m2m.Device
	account string
}

// prepare renders the callbacks for SIMs from, from+1, … of the fleet.
func (p *player) prepare(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	sink, err := url.Parse(q.Get("sink"))
	from, err2 := strconv.Atoi(q.Get("from"))
	count, err3 := strconv.Atoi(q.Get("count"))
	if err := errors.Join(err, err2, err3); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sink, p.messages = sink, make([][]byte, count)
	fleet := load.Fleet{Mark: bareMark}
	for i := range p.messages {
		body, err := callback(q.Get("request"), accounts[0], []m2m.DeviceID{
			{ID: fleet.ICCID(from + i), Kind: m2m.KindICCID},
			{ID: fmt.Sprintf("5%09d", from+i), Kind: m2m.KindMDN},
			{ID: fleet.IMEI(from + i), Kind: m2m.KindIMEI},
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		p.messages[i] = body
	}
}

func callback(request, account string, ids []m2m.DeviceID) ([]byte, error) {
	return json.Marshal(m2m.CallbackMessage{
		RequestID: request, DeviceIDs: ids, Status: m2m.CallbackSuccess, CallbackCount: 1, MaxCallbackThreshold: 4,
		DeviceResponse: &m2m.DeviceResponse{DeviceSKUSubscriptionResponse: m2m.SKUSubscriptionResponse{
			AccountName: account, SKUNumber: sku, Action: "Assign",
		}},
	})
}

// bare posts what prepare has rendered.
func (p *player) bare(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, posters)
	for range posters {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(p.messages)); i = next.Add(1) - 1 {
				if err := p.post(r.Context(), p.sink, p.messages[i]); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		http.Error(w, err.Error(), http.StatusBadGateway)
	default:
	}
}

func (p *player) post(ctx context.Context, sink *url.URL, body []byte) error {
	req := (&http.Request{
		Method: http.MethodPost, URL: sink, Host: sink.Host, ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {"application/json"}, "User-Agent": {"bare"}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}).WithContext(ctx)
	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the listener answered %s", resp.Status)
	}
	return nil
}

// memory is the whole pipeline with nothing kept.
func (p *player) memory(w http.ResponseWriter, r *http.Request) {
	sink, err := url.Parse(r.URL.Query().Get("sink"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	var request m2m.LicenseRequest
	if err := json.Unmarshal(body, &request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := r.URL.Query().Get("request")
	for _, d := range request.Devices {
		p.tasks <- task{sink, id, d, request.AccountName}
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"requestId":%q}`, id)
}

// deliver posts memory's callbacks. One that fails is lost, which its sink will
// miss.
func (p *player) deliver(ctx context.Context) {
	for t := range p.tasks {
		ids := []m2m.DeviceID{{ID: t.device.DeviceIDs[1].ID, Kind: m2m.KindICCID}, {ID: t.device.DeviceIDs[0].ID, Kind: m2m.KindIMEI}}
		body, err := callback(t.request, t.account, ids)
		if err == nil {
			err = p.post(ctx, t.sink, body)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "memory:", err)
		}
	}
}
