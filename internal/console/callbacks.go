package console

import (
	"net/http"
	"strings"
	"time"

	"github.com/simlatch/simlatch/internal/operator/client"
)

// callbacks lists callbacks: those that failed first.
func (c *Console) callbacks(v *visit) error {
	l := listing[client.Task]{
		caption: "Callbacks", path: "/callbacks", filters: []string{"account", "request", "state", "since", "until"}, empty: noCallbacks(),
		pick: func(t client.Task) string { return t.Account + "/" + t.Request + "/" + t.ICCID },
		columns: []column[client.Task]{
			{"ICCID", func(t client.Task) cell { return id(t.ICCID, simHref(t.Account, t.ICCID)) }},
			{"Account", func(t client.Task) cell { return link(t.Account, accountHref(t.Account)) }},
			{"Request", func(t client.Task) cell { return id(t.Request, requestHref(t.Account, t.Request)) }},
			{"Accepted", func(t client.Task) cell { return when(t.Accepted) }},
			{"Outcome", taskOutcome},
			{"State", taskState},
			{"Round", func(t client.Task) cell { return number(t.Round) }},
			{"Attempts", func(t client.Task) cell { return number(t.Attempts) }},
			{"Answer", taskAnswer},
			{"Next or ended", func(t client.Task) cell { return yesNo(t.Due.IsZero(), when(t.Ended), when(t.Due)) }},
			{"Inspect", func(t client.Task) cell { return link("inspect", taskHref(t.Account, t.Request, t.ICCID)) }},
		},
	}
	if v.wantsCSV("") {
		return sendCSV(v, l)
	}
	g, _, err := list(v, l)
	if err != nil {
		return err
	}
	g.form = "picked"
	names, err := v.accountNames()
	if err != nil {
		return err
	}
	state := v.value("state")
	return v.show(frame{title: "Callbacks", here: "callbacks", live: "*"}, callbacksPage(v, g, names,
		accountField(v, names),
		field{name: "state", label: "State", kind: "select", value: state, choices: orAny("failed", states())},
		field{name: "request", label: "Request", kind: "text", value: v.value("request")},
	))
}

// sendPicked sends the callbacks again that were picked in the list.
func (c *Console) sendPicked(v *visit) error {
	picked := v.r.PostForm["pick"]
	if len(picked) == 0 {
		v.invalid("Pick the callbacks to send again in the table's first column.")
		return c.callbacks(v)
	}
	queued := 0
	for _, p := range picked {
		parts := strings.Split(p, "/")
		if len(parts) != 3 {
			v.invalid("“%s” is no callback.", p)
			return c.callbacks(v)
		}
		sent, err := v.send(parts[0], client.SendCallbacks{Request: parts[1], ICCID: parts[2], Delivered: true}, v.value("key")+"/"+p)
		if err != nil {
			if err = v.refused(err); err != nil {
				return err
			}
			v.alert.text += " Before it, " + strings.ToLower(sentText(client.SentCallbacks{Queued: queued}))
			return c.callbacks(v)
		}
		queued += sent.Queued
	}
	return v.done(Prefix+"/callbacks", "%s", sentText(client.SentCallbacks{Queued: queued}))
}

// sendRange sends the callbacks of an account again whose requests were accepted
// in a time.
func (c *Console) sendRange(v *visit) error {
	order := client.SendCallbacks{Delivered: v.value("delivered") != ""}
	for name, at := range map[string]*time.Time{"since": &order.Since, "until": &order.Until} {
		text := v.value(name)
		if text == "" {
			continue
		}
		t, err := parseTime(text)
		if err != nil {
			v.invalid("“%s” is no time.", text)
			return c.callbacks(v)
		}
		*at = t
	}
	account := v.value("account")
	if account == "" {
		v.invalid("Name the account whose callbacks are to be sent again.")
		return c.callbacks(v)
	}
	sent, err := v.send(account, order, v.value("key"))
	if err != nil {
		return v.again(err, c.callbacks)
	}
	return v.done(Prefix+"/callbacks", "%s", sentText(sent))
}

// parseTime reads a time as an input of a form gives it, in UTC, or as the API has
// it.
func parseTime(text string) (t time.Time, err error) {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02", time.RFC3339} {
		if t, err = time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return t, err
}

func listenerHref(account, service string) string {
	return join(Prefix+"/accounts/", account, "/listeners/", service)
}

// listeners lists where callbacks go.
func (c *Console) listeners(v *visit) error {
	l := listing[client.Listener]{caption: "Listeners", path: "/listeners", filters: []string{"account"}, empty: noListeners(), columns: []column[client.Listener]{
		{"Service", func(l client.Listener) cell { return link(l.Service, listenerHref(l.Account, l.Service)) }},
		{"Account", func(l client.Listener) cell { return link(l.Account, accountHref(l.Account)) }},
		{"URL", func(l client.Listener) cell { return cell{text: l.URL, code: true} }},
		{"Signed", func(l client.Listener) cell { return yesNo(l.Signed, badge("signed", "good"), words("no")) }},
		{"Attempts", func(l client.Listener) cell { return yesNo(l.Attempts == 0, words("usual"), number(l.Attempts)) }},
		{"Interval", func(l client.Listener) cell { return usual(l.Interval) }},
		{"Timeout", func(l client.Listener) cell { return usual(l.Timeout) }},
	}}
	return showList(v, frame{title: "Listeners", here: "listeners"}, "Where the callbacks of each account go.", l)
}

func usual(text string) cell {
	if text == "" {
		return words("usual")
	}
	return words(text)
}

func (v *visit) listenerPath() string {
	return join("/accounts/", v.r.PathValue("account"), "/listeners/", v.r.PathValue("service"))
}

// listener shows one listener.
func (c *Console) listener(v *visit) error { return c.showListener(v, nil, "") }

// showListener shows a listener, with how it answered a test, or with its new
// secret.
func (c *Console) showListener(v *visit, tested *client.Tested, secret string) error {
	var l client.Listener
	etag, err := v.ask(v.r.Context(), question{method: http.MethodGet, path: v.listenerPath()}, &l)
	if err != nil {
		return err
	}
	return v.show(frame{title: l.Service + " of " + l.Account, here: "listeners"}, listenerPage(v, l, etag, tested, secret))
}

// setListener tunes a listener.
func (c *Console) setListener(v *visit) error {
	in := client.ListenerChange{}
	attempts, err := atoi(v.value("attempts"))
	if err != nil {
		v.invalid("“%s” is no number of attempts.", v.value("attempts"))
		return c.listener(v)
	}
	interval, timeout := orZero(v.value("interval")), orZero(v.value("timeout"))
	in.Attempts, in.Interval, in.Timeout = &attempts, &interval, &timeout
	q := question{method: http.MethodPatch, path: v.listenerPath(), body: in, match: v.value("match")}
	if _, err := v.ask(v.r.Context(), q, nil); err != nil {
		return v.again(err, c.listener)
	}
	return v.done(listenerHref(v.r.PathValue("account"), v.r.PathValue("service")), "The listener's settings are changed.")
}

// testListener sends a listener a message that is about no device.
func (c *Console) testListener(v *visit) error {
	var tested client.Tested
	if _, err := v.ask(v.r.Context(), question{method: http.MethodPost, path: v.listenerPath() + "/test"}, &tested); err != nil {
		return v.again(err, c.listener)
	}
	return c.showListener(v, &tested, "")
}

// newSigningSecret gives a listener a new secret, and shows it once.
func (c *Console) newSigningSecret(v *visit) error {
	var made client.SigningSecret
	if _, err := v.ask(v.r.Context(), question{method: http.MethodPost, path: v.listenerPath() + "/secret"}, &made); err != nil {
		return v.again(err, c.listener)
	}
	return c.showListener(v, nil, made.Secret)
}

// removeListener takes a registration away.
func (c *Console) removeListener(v *visit) error {
	if v.value("sure") == "" {
		v.invalid("Say that you are sure: without a listener the account's callbacks are not sent.")
		return c.listener(v)
	}
	if _, err := v.ask(v.r.Context(), question{method: http.MethodDelete, path: v.listenerPath(), match: v.value("match")}, nil); err != nil {
		return v.again(err, c.listener)
	}
	return v.done(Prefix+"/listeners", "The listener is removed.")
}
