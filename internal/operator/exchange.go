package operator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/internal/store"
	"github.com/simlatch/simlatch/m2m"
)

// masked stands for a secret.
const masked = "••••••••"

// exchangeDevices is how many devices of a request its exchange shows.
const exchangeDevices = 100

// notKept is said of every exchange.
const notKept = "Messages are not kept: this is made anew from what is known of them. Secrets are masked."

// requestExchange is the call that made a request, and its answer.
func (a *API) requestExchange(ctx context.Context, c *call) (out client.Exchange, err error) {
	account, id, err := c.request(ctx)
	if err != nil {
		return out, err
	}
	r, err := c.store().Request(ctx, account, id)
	if err != nil {
		return out, err
	}
	list, err := c.callbacks(ctx, store.CallbackFilter{
		Account: account, Request: id, States: allStates(), Page: exchangeDevices,
	}, exchangeDevices)
	if err != nil {
		return out, err
	}
	in := m2m.LicenseRequest{AccountName: string(account), SKUNumber: string(r.SKU)}
	for _, t := range list {
		in.Devices = append(in.Devices, m2m.Device{DeviceIDs: []m2m.DeviceID{{ID: t.ICCID, Kind: m2m.KindICCID}}})
	}
	out.Note = notKept
	if more := r.Total - len(list); more > 0 && r.Purged.IsZero() {
		out.Note += fmt.Sprintf(" %d more devices are left out.", more)
	}
	if r.Application == byOperator {
		out.Note += " An operator made it, and no client: it is shown as a client would have made it."
	}
	out.Request = wire("POST "+m2m.APIPrefix+"/devices/license/actions/"+string(r.Action)+" HTTP/1.1", [][2]string{
		{"Authorization", "Bearer " + masked}, {m2m.SessionHeader, masked}, {"Content-Type", "application/json"}, {"traceparent", r.Trace},
	}, in)
	out.Answer = wire("HTTP/1.1 200 OK", [][2]string{{"Content-Type", "application/json"}}, m2m.RequestAccepted{RequestID: string(id)})
	return out, nil
}

// taskExchange is the callback that tells of a device, as it was sent last or would
// be sent now.
func (a *API) taskExchange(ctx context.Context, c *call) (out client.Exchange, err error) {
	account, id, iccid, err := c.task(ctx)
	if err != nil {
		return out, err
	}
	kept, err := c.store().Callback(ctx, account, id, iccid)
	if err != nil {
		return out, err
	}
	if kept.State == store.CallbackCarrier || kept.State == store.CallbackStuck {
		return out, problemf(errNotEnded, "the carrier has not answered for this SIM, so there is no callback yet")
	}
	l, err := c.store().Listener(ctx, account, license.CarrierService)
	if errors.Is(err, license.ErrNotFound) {
		err = license.ErrNoListener
	}
	if err != nil {
		return out, err
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		return out, fmt.Errorf("a listener's URL: %w", err)
	}
	if l.Password != "" {
		l.Password = masked
	}
	callback := kept.Callback
	callback.Attempt = max(0, kept.Attempt-1) // those before the last
	headers := [][2]string{{"Host", u.Host}, {"Content-Type", "application/json"}, {"webhook-id", kept.WebhookID()}}
	if l.SigningSecret != "" {
		headers = append(headers, [2]string{"webhook-signature", masked})
	}
	out = client.Exchange{Note: notKept}
	if kept.Attempt == 0 {
		out.Note += " It was not sent yet."
	}
	out.Request = wire("POST "+u.RequestURI()+" HTTP/1.1", headers, jsontext.Value(a.cfg.Message(l, callback)))
	if kept.Status != 0 {
		out.Answer = wire(fmt.Sprintf("HTTP/1.1 %d", kept.Status), nil, nil)
	}
	return out, nil
}

// wire is a message of HTTP as text, without headers that have no value.
func wire(first string, headers [][2]string, body any) string {
	var b bytes.Buffer
	fmt.Fprintln(&b, first)
	for _, h := range headers {
		if h[1] != "" {
			fmt.Fprintf(&b, "%s: %s\n", h[0], h[1])
		}
	}
	if body == nil {
		return b.String()
	}
	data, err := json.Marshal(body, jsontext.Multiline(true), jsontext.WithIndent("  "))
	if err != nil { // it is strings and numbers
		panic("encoding a message: " + err.Error())
	}
	fmt.Fprintf(&b, "\n%s\n", data)
	return b.String()
}
