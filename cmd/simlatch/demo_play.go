package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// demo is one run of the demonstration. One goroutine plays it; only the
// listener has others.
type demo struct {
	scene    demoScene
	url      string
	database string
	streams  streams
	client   *m2m.Client
	listener *demoListener

	requests []demoRequest
	read     int                // arrivals read so far
	seen     map[string]arrival // by key
	twice    int                // arrivals of what was seen before
	before   pools              // at the start
	after    pools              // at the end
	checked  string             // what verify says
}

// demoRequest is an accepted request.
type demoRequest struct {
	id      string
	action  license.Action
	sku     license.SKU
	devices map[string]bool // by ICCID
	sent    time.Time
}

// pools are an account's pools as the API lists them.
type pools map[license.SKU]m2m.Subscription

// callbackPatience is how long the demonstration waits for callbacks: much
// longer than they take, for machines that are busy.
const callbackPatience = 2 * time.Minute

// play plays the demonstration and fails when its numbers do not fit together.
func (d *demo) play(ctx context.Context) error {
	d.seen = map[string]arrival{}
	s := d.scene
	if err := d.login(ctx); err != nil {
		return err
	}
	var err error
	if d.before, err = d.pools(ctx); err != nil {
		return err
	}
	say(d.streams.out, "Assigning a flexible license to %s SIMs and a lifetime one to %s, %d in a request …",
		thousands(s.flexible), thousands(s.lifetime), s.batch)
	err = d.work(ctx, "assigning", license.Assign, []demoBatch{
		{license.SKUFlexible, s.devices(0, s.flexible)},
		{license.SKULifetime, s.devices(s.flexible, s.flexible+s.lifetime)},
	})
	if err != nil {
		return err
	}
	if err := d.refusals(ctx); err != nil {
		return err
	}
	say(d.streams.out, "Unassigning %s of the flexible licenses …", thousands(s.unassign))
	err = d.work(ctx, "unassigning", license.Unassign, []demoBatch{{license.SKUFlexible, d.assigned(license.SKUFlexible, s.unassign)}})
	if err != nil {
		return err
	}
	if d.after, err = d.pools(ctx); err != nil {
		return err
	}
	return d.conclude(ctx)
}

// login gets a token and a session and registers the listener.
func (d *demo) login(ctx context.Context) error {
	client, err := m2m.New(m2m.Config{
		BaseURL: d.url, Key: d.scene.key, Secret: d.scene.secret, Username: d.scene.user, Password: d.scene.password,
	})
	if err != nil {
		return err
	}
	d.client = client
	if err := client.Login(ctx); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	_, err = client.RegisterListener(ctx, d.scene.account, m2m.ListenerRequest{Name: license.CarrierService, URL: d.listener.url})
	if err != nil {
		return fmt.Errorf("registering the listener: %w", err)
	}
	say(d.streams.out, "Got a token, logged in, and registered the listener %s for %s.", d.listener.url, license.CarrierService)
	return nil
}

func (d *demo) pools(ctx context.Context) (pools, error) {
	list, err := d.client.Subscriptions(ctx, d.scene.account, "")
	if err != nil {
		return nil, fmt.Errorf("reading the pools: %w", err)
	}
	p := pools{}
	for _, s := range list.SubscriptionList {
		p[license.SKU(s.SKUNumber)] = s
	}
	return p, nil
}

// demoBatch is what to do for one SKU.
type demoBatch struct {
	sku     license.SKU
	devices []m2m.Device
}

// work sends batches in requests of a size the vendor's SDKs can send, and
// waits for a callback for each of their devices.
func (d *demo) work(ctx context.Context, what string, action license.Action, batches []demoBatch) error {
	total := len(d.seen)
	for _, b := range batches {
		total += len(b.devices)
	}
	p := newProgress(ctx, d.streams.err, what, total-len(d.seen))
	defer p.end()
	for _, b := range batches {
		for rest := b.devices; len(rest) > 0; {
			n := min(len(rest), d.scene.batch)
			if err := d.send(ctx, action, b.sku, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
			d.receive(p)
		}
	}
	patience := time.NewTimer(callbackPatience)
	defer patience.Stop()
	for {
		if d.receive(p); len(d.seen) >= total {
			return nil
		}
		select {
		case <-d.listener.ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-patience.C:
			return fmt.Errorf("%d callbacks had not come after %s", total-len(d.seen), callbackPatience)
		}
	}
}

// send sends one request, which must be accepted.
func (d *demo) send(ctx context.Context, action license.Action, sku license.SKU, devices []m2m.Device) error {
	r := demoRequest{action: action, sku: sku, devices: map[string]bool{}, sent: time.Now()}
	id, err := d.call(ctx, action, sku, devices)
	if err != nil {
		return fmt.Errorf("asking to %s %d licenses: %w", action, len(devices), err)
	}
	r.id = id
	for _, device := range devices {
		r.devices[device.DeviceIDs[1].ID] = true
	}
	d.requests = append(d.requests, r)
	return nil
}

func (d *demo) call(ctx context.Context, action license.Action, sku license.SKU, devices []m2m.Device) (requestID string, err error) {
	body := m2m.LicenseRequest{AccountName: d.scene.account, SKUNumber: string(sku), Devices: devices}
	if action == license.Unassign {
		return d.client.Unassign(ctx, body)
	}
	return d.client.Assign(ctx, body)
}

// receive counts what has come to the listener.
func (d *demo) receive(p *progress) {
	fresh := 0
	for _, a := range d.listener.since(d.read) {
		d.read++
		if _, ok := d.seen[a.key()]; ok {
			d.twice++
			continue
		}
		d.seen[a.key()] = a
		fresh++
	}
	if fresh > 0 {
		p.add(fresh)
	}
}

// assigned are n of the devices that were assigned a license of the SKU.
func (d *demo) assigned(sku license.SKU, n int) []m2m.Device {
	var devices []m2m.Device
	for i := 0; i < d.scene.flexible+d.scene.lifetime && len(devices) < n; i++ {
		device := d.scene.device(i)
		for _, r := range d.requests {
			if a, ok := d.seen[r.id+"/"+device.DeviceIDs[1].ID]; ok && r.sku == sku && a.ok() {
				devices = append(devices, device)
			}
		}
	}
	return devices
}

// refusals makes three requests that the reference documents as refused, and
// looks whether they are refused in its words and change nothing.
func (d *demo) refusals(ctx context.Context) error {
	held := d.assigned(license.SKUFlexible, 1)
	forLife := d.assigned(license.SKULifetime, 1)
	if len(held) == 0 || len(forLife) == 0 {
		return errors.New("the simulated carrier refused everything: there is nothing to show (try a lower --carrier-refuse-rate)")
	}
	was, err := d.pools(ctx)
	if err != nil {
		return err
	}
	free := d.scene.flexible + d.scene.lifetime
	many := int(was[license.SKUBundle].LicenseAvailable) + 1
	say(d.streams.out, "Three requests that the documentation says are refused:")
	for _, c := range []struct {
		what    string
		action  license.Action
		sku     license.SKU
		devices []m2m.Device
		want    *m2m.Error
	}{
		{"assign to a SIM that holds a license", license.Assign, license.SKUFlexible, held, m2m.ErrLicenseHeld},
		{
			fmt.Sprintf("assign %d of the %d there are", many, many-1), license.Assign, license.SKUBundle,
			d.scene.devices(free, free+many), m2m.ErrInsufficientLicense,
		},
		{"unassign a lifetime license", license.Unassign, license.SKULifetime, forLife, m2m.ErrUnassignLifetime},
	} {
		_, err := d.call(ctx, c.action, c.sku, c.devices)
		var refused *m2m.Error
		if !errors.As(err, &refused) || refused.Code != c.want.Code || refused.Message != c.want.Message || refused.Status != c.want.Status {
			return fmt.Errorf("%s: got %w, want %w", c.what, orAccepted(err), c.want)
		}
		say(d.streams.out, "  %s\n    %d %s\n    %s", c.what, refused.Status, refused.Code, refused.Message)
	}
	is, err := d.pools(ctx)
	if err != nil {
		return err
	}
	for sku, p := range was {
		if is[sku] != p {
			return fmt.Errorf("a refused request changed the pool of %s from %+v to %+v", sku, p, is[sku])
		}
	}
	return nil
}

func orAccepted(err error) error {
	if err == nil {
		return errors.New("the request accepted")
	}
	return err
}
