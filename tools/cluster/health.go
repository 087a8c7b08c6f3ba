//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// prober asks for health. It minds no proxy: all is on loopback.
var prober = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// asks succeeds when a GET is answered with 200.
func asks(ctx context.Context, url string) error {
	_, err := get(ctx, url)
	return err
}

func get(ctx context.Context, url string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	a, err := prober.Do(q)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	body, err := io.ReadAll(io.LimitReader(a.Body, 1<<20))
	if err == nil && a.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", url, a.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}

// await waits until a part that was started is as it should be.
func await(ctx context.Context, p *part, what string, healthy func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := healthy(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("waiting until %s: it has ended (%w); %s says:\n%s", what, errors.Join(p.err), p.log, tail(p.log))
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w: %w; %s says:\n%s", what, context.Cause(ctx), err, p.log, tail(p.log))
		case <-tick.C:
		}
	}
}

// role is what a PostgreSQL server is, as its Patroni tells: "primary",
// "synchronous standby", "standby", or why it does not tell.
func (s *postgres) role(ctx context.Context) string {
	body, err := get(ctx, s.REST.url()+"/patroni")
	if err != nil {
		return "unknown: its Patroni does not answer"
	}
	return parseRole(body)
}

// parseRole reads the answer of Patroni's GET /patroni. What is the primary was
// called master before Patroni 4.
func parseRole(body []byte) string {
	var said struct {
		State       string `json:"state"`
		Role        string `json:"role"`
		Synchronous bool   `json:"sync_standby"`
	}
	switch err := json.Unmarshal(body, &said); {
	case err != nil:
		return "unknown: " + err.Error()
	case said.State != "running" && said.State != "streaming":
		return said.State
	case said.Role == "primary" || said.Role == "master":
		return "primary"
	case said.Synchronous:
		return "synchronous standby"
	case said.Role == "replica":
		return "standby"
	}
	return said.Role
}

// primary is the number of the server that is one, or -1.
func (c *cluster) primary(ctx context.Context) int {
	for i, s := range c.Postgres {
		if c.servers[i].running() && s.role(ctx) == "primary" && asks(ctx, s.REST.url()+"/primary") == nil {
			return i
		}
	}
	return -1
}
