package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/simlatch/simlatch/internal/load"
	"github.com/simlatch/simlatch/m2m"
)

// register starts the listener and registers it. What it returns undoes both.
func (o *benchOptions) register(ctx context.Context, client *m2m.Client, sink *load.Sink) (undo func() error, err error) {
	have, err := client.Listeners(ctx, o.account)
	if err != nil {
		return nil, fmt.Errorf("looking for listeners: %w", err)
	}
	for _, l := range have {
		if l.ServiceName == m2m.CarrierService {
			return nil, fmt.Errorf("account %s has a listener for %s, %s, which the load would take the place of: use another account, or deregister it",
				o.account, m2m.CarrierService, l.URL)
		}
	}
	listener, err := load.Listen(ctx, o.listen, sink, nil)
	if err != nil {
		return nil, err
	}
	url, allow := listenerURL(listener.Addr)
	if o.callbackURL != "" {
		url, allow = o.callbackURL, ""
	}
	if _, err := client.RegisterListener(ctx, o.account, m2m.ListenerRequest{Name: m2m.CarrierService, URL: url}); err != nil {
		if allow != "" {
			err = fmt.Errorf("%w; a Simlatch server calls this address only with --callback-allow %s", err, allow)
		}
		return nil, errors.Join(fmt.Errorf("registering the listener %s: %w", url, err), listener.Close())
	}
	return func() error {
		// Also after an interrupt: a listener that is gone should not be called.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, err := client.DeregisterListener(ctx, o.account, m2m.CarrierService)
		if err != nil {
			err = fmt.Errorf("deregistering the listener: %w", err)
		}
		return errors.Join(err, listener.Close())
	}, nil
}

// watchLoad says every few seconds how far a load has come, until stopped.
func watchLoad(w io.Writer, l *load.Load) (stop func()) {
	every := progressEvery
	if isTerminal(w) {
		every = time.Second
	}
	done, ended := make(chan struct{}), make(chan struct{})
	start := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				p := l.Progress()
				say(w, "simlatch: %3.0f s: %s requests accepted, %s refused; %s devices, %s callbacks", time.Since(start).Seconds(),
					thousands(p.Accepted), thousands(p.Refused), thousands(p.Devices), thousands(p.Callbacks))
			}
		}
	}()
	return func() {
		close(done)
		<-ended
	}
}

// benchReport is the report in JSON.
type benchReport struct {
	Server      string `json:"server"`
	SKU         string `json:"sku"`
	Devices     int    `json:"devicesPerRequest"`
	Connections int    `json:"connections"`

	load.Result
}

func (o *benchOptions) print(w io.Writer, r load.Result) error {
	if o.form == formJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(benchReport{o.server, o.sku, o.devices, o.connections, r})
	}
	say(w, "%-11s %s requests in %.1f s, %.1f a second; %s refused", "accepted", thousands(r.Accepted), r.Seconds, r.RequestsPerSecond, thousands(r.Refused))
	say(w, "%-11s %s devices, %.1f a second to the last callback; %s failed", "called back", thousands(r.Callback.Count), r.DevicesPerSecond, thousands(r.Failed))
	say(w, "\n%-11s%12s%12s%12s%12s%12s", "", "P50", "P90", "P99", "P99.9", "MAX")
	for _, p := range []struct {
		what string
		load.Percentiles
	}{{"to answer", r.Accept}, {"to callback", r.Callback}} {
		say(w, "%-11s%9.1f ms%9.1f ms%9.1f ms%9.1f ms%9.1f ms", p.what, p.P50, p.P90, p.P99, p.P999, p.Max)
	}
	if r.Starved > 0 {
		say(w, "\nConnections waited %s times for devices whose callbacks had not come: the callbacks\nwere the limit, or --fleet was.", thousands(r.Starved))
	}
	for _, text := range slices.Sorted(maps.Keys(r.Errors)) {
		say(w, "\n%s times refused: %s", thousands(r.Errors[text]), text)
	}
	return nil
}
