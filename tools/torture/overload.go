package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// What overload is made of.
const (
	crowdTenants = 4
	crowdClients = 400 // of all tenants together
	crowdSize    = 20  // devices in a request
	crowdCalls   = 16  // --max-calls
	crowdFor     = 20 * time.Second
	// impatience is how long a client waits that was turned away: far less than it
	// was told to.
	impatience = 50 * time.Millisecond
	// memoryMost bounds what the server may take more than before, in MiB.
	memoryMost = 512
)

// crowd counts what became of the calls.
type crowd struct {
	mu       sync.Mutex // guards what follows
	accepted []time.Duration
	turned   map[int]int // away, by status
	rude     int         // turned away without Retry-After
	failed   error       // whatever else went wrong, the first
}

// overload sends a server far more than it takes, and looks whether it turns
// away what it does not, ends what it does, and how much memory that costs.
func overload(ctx context.Context, o *options) ([]row, error) {
	return onEngines(ctx, o, func(ctx context.Context, engine string, so siteOptions) ([]row, error) {
		so.apart = true
		for range crowdTenants {
			so.sims = append(so.sims, crowdClients/crowdTenants*crowdSize)
		}
		so.args = []string{"--max-calls", strconv.Itoa(crowdCalls)}
		s, err := newSite(ctx, o.binary, so)
		if err != nil {
			return nil, err
		}
		r, err := overrun(ctx, o, s, engine)
		return []row{r}, errors.Join(err, s.close())
	})
}

func overrun(ctx context.Context, o *options, s *site, engine string) (r row, err error) {
	r = row{Test: fmt.Sprintf("%d clients where %d calls are taken", crowdClients, crowdCalls), On: engine}
	transport := &http.Transport{MaxIdleConnsPerHost: crowdClients}
	defer transport.CloseIdleConnections()
	var lots [][]*lot
	for i, t := range s.tenants {
		if err := s.connect(i, &http.Client{Transport: transport, Timeout: time.Minute}); err != nil {
			return r, err
		}
		end, err := s.listen(ctx, t, &t.sink)
		if err != nil {
			return r, err
		}
		defer end()
		lots = append(lots, t.lots(crowdClients/crowdTenants, crowdSize))
	}
	c := &crowd{turned: map[int]int{}}
	before, err := s.process.resident()
	if err != nil {
		return r, err
	}
	watching, stop := context.WithTimeout(ctx, crowdFor)
	defer stop()
	var group sync.WaitGroup
	for i, t := range s.tenants {
		for _, l := range lots[i] {
			group.Go(func() { c.press(ctx, watching, t, l) })
		}
	}
	peak := before
	for sleep(watching, 50*time.Millisecond) {
		now, err := s.process.resident()
		if err != nil {
			return r, err
		}
		peak = max(peak, now)
	}
	group.Wait()
	took := load.PercentilesOf(c.accepted)
	turned := c.turned[http.StatusServiceUnavailable] + c.turned[http.StatusTooManyRequests]
	r.Tried, r.Work, r.Wrong = turned, len(c.accepted)*crowdSize, c.rude
	r.Note = fmt.Sprintf("%d accepted, p99 %.0f ms; %d turned away (503) and %d (429); %.0f MiB before, %.0f at most",
		len(c.accepted), took.P99, c.turned[http.StatusServiceUnavailable], c.turned[http.StatusTooManyRequests], before, peak)
	fmt.Fprintf(o.out, "%s: %s\n", engine, r.Note)
	if peak-before > memoryMost {
		r.Wrong++
		err = fmt.Errorf("memory grew by %.0f MiB, want at most %d", peak-before, memoryMost)
	}
	for _, t := range s.tenants {
		err = errors.Join(err, t.sink.Check())
	}
	return r, errors.Join(err, c.failed, s.verify())
}

// press sends one request after the other until pressing ends, each when the one
// before has ended or was turned away, and waits for the last.
func (c *crowd) press(ctx, pressing context.Context, t *tenant, l *lot) {
	for pressing.Err() == nil {
		took, err := t.send(ctx, l)
		var e *m2m.Error
		switch {
		case err == nil:
			c.note(func() { c.accepted = append(c.accepted, took) })
			if err := l.wait(ctx); err != nil {
				c.note(func() { c.failed = err })
				return
			}
		case errors.As(err, &e) && (e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests):
			c.note(func() {
				c.turned[e.Status]++
				if e.RetryAfter <= 0 {
					c.rude++
				}
			})
			sleep(pressing, impatience)
		default:
			c.note(func() { c.failed = fmt.Errorf("a request was answered: %w", err) })
			return
		}
	}
}

func (c *crowd) note(what func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what()
}

// resident is the memory that the process has, in MiB.
func (p *process) resident() (float64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("the memory of the server: %w", err)
	}
	defer f.Close() // only read
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("the system does not say how much memory the server has")
}
