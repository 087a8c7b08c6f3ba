package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// growthRequest is how many devices a request of the growth row has.
const growthRequest = 100

// growth measures what an accepted device costs where few SIMs are known and
// where many are. Both servers run side by side; the SIMs are drawn at random.
func (b *bench) growth(ctx context.Context, engine string) ([]row, error) {
	var sites [2]*site
	var cs [2]contender
	for i, sims := range []int{b.o.sizes.growthSmall, b.o.sizes.growth} {
		s, err := b.newSite(ctx, siteOptions{engine: engine, sims: []int{sims}})
		if err != nil {
			return nil, err
		}
		sites[i], cs[i] = s, s.growing(sims)
	}
	values, err := b.rounds(ctx, cs[0], cs[1])
	if err = errors.Join(err, sites[0].close(ctx), sites[1].close(ctx)); err != nil {
		return nil, err
	}
	work := fmt.Sprintf("growth: an accepted device with %s SIMs stored, against %s, %s",
		thousands(b.o.sizes.growth), thousands(b.o.sizes.growthSmall), engine)
	return []row{newRow(work, "µs/device", "few SIMs", values[1], values[0]).wanted(1.5, 1.2)}, nil
}

// growing accepts devices in no order and, out of the measured time, takes
// their licenses back.
func (s *site) growing(sims int) contender {
	return contender{fmt.Sprintf("%s SIMs", thousands(sims)), "µs/device", func(ctx context.Context) (float64, error) {
		n := min(s.b.o.sizes.growthDevices, sims)
		drawn := map[int]bool{}
		numbers := make([]int, 0, n)
		for len(numbers) < n {
			if k := rand.IntN(sims); !drawn[k] {
				drawn[k] = true
				numbers = append(numbers, k)
			}
		}
		w := render(s.url, s.header, load.Fleet{Mark: 1}, accounts[0], numbers, growthRequest)
		s.held[0] += n
		stop := s.b.startProfile(s)
		_, took, err := closedLoop(ctx, s.url, 1, w.requests)
		stop()
		if err = errors.Join(err, s.assigned(ctx)); err != nil {
			return 0, err
		}
		for i, request := range w.requests {
			w.requests[i] = repath(request, "POST", "DELETE")
		}
		s.held[0] -= n
		if _, _, err := closedLoop(ctx, s.url, 1, w.requests); err != nil {
			return 0, err
		}
		return float64(took.Microseconds()) / float64(n), s.assigned(ctx)
	}}
}

// inventory measures the server's memory and its start where many SIMs are
// known.
func (b *bench) inventory(ctx context.Context, engine string) ([]row, error) {
	sink := &load.Sink{}
	listener, err := b.listen(ctx, sink, nil)
	if err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, siteOptions{engine: engine, sims: []int{b.o.sizes.inventory}})
	if err != nil {
		return nil, err
	}
	if err := s.listen(ctx, 0, listener.URL); err != nil {
		return nil, err
	}
	c := &callers{b: b, site: s, sink: sink}
	resident := contender{"memory", "MiB", func(ctx context.Context) (float64, error) {
		w, err := s.take(0, 1, b.o.sizes.large)
		if err != nil {
			return 0, err
		}
		if _, err := c.sent(ctx, s.url, w); err != nil {
			return 0, err
		}
		if err := pause(ctx, b.o.sizes.idle); err != nil {
			return 0, err
		}
		return residentMiB(s.process.cmd.Process.Pid)
	}}
	values, err := b.rounds(ctx, resident, contender{"start", "s", s.restart})
	if err = errors.Join(err, sink.Check(), s.close(ctx)); err != nil {
		return nil, err
	}
	known := thousands(b.o.sizes.inventory) + " SIMs known"
	return []row{
		newRow(fmt.Sprintf("%s, idle for %v after a %s-device request: resident memory, %s",
			known, b.o.sizes.idle, thousands(b.o.sizes.large), engine), "MiB", "", values[0], nil).wanted(150, 80),
		newRow(fmt.Sprintf("start to first answer, %s, %s", known, engine), "s", "", values[1], nil).wanted(1, 0.3),
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// residentMiB is a process's resident memory.
func residentMiB(pid int) (float64, error) {
	name := fmt.Sprintf("/proc/%d/status", pid)
	if _, err := os.Stat(name); err != nil {
		return 0, fmt.Errorf("memory can be measured under Linux only: %w", err)
	}
	kilobytes, _, _ := strings.Cut(field(name, "VmRSS"), " ")
	n, err := strconv.Atoi(kilobytes)
	return float64(n) / 1024, err
}

// restart stops the server and measures the time from starting it until it has
// answered a call: a token for the application.
func (s *site) restart(ctx context.Context) (float64, error) {
	if err := s.process.stop(); err != nil {
		return 0, err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	s.address = ln.Addr().String()
	if err := ln.Close(); err != nil { // the server takes it over
		return 0, err
	}
	answered := make(chan error, 1)
	start := time.Now()
	go func() { answered <- s.firstAnswer(ctx) }()
	startErr := s.start(ctx, "")
	if err := errors.Join(<-answered, startErr); err != nil {
		return 0, err
	}
	took := s.answered.Sub(start)
	return took.Seconds(), s.login(ctx)
}

// firstAnswer asks for a token until there is one, and notes when.
func (s *site) firstAnswer(ctx context.Context) error {
	ctx, cancel := within(ctx, patience)
	defer cancel()
	for {
		body := strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode())
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.address+m2m.TokenPrefix+"/oauth2/token", body)
		if err != nil {
			return err
		}
		req.SetBasicAuth(applicationKey, secret)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			s.answered = time.Now()
			_ = resp.Body.Close() // its status says enough
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return context.Cause(ctx)
		}
	}
}
