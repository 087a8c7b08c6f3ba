package console

import (
	"net/http"
	"regexp"

	"github.com/simlatch/simlatch/internal/operator/client"
)

func simHref(account, iccid string) string {
	return join(Prefix+"/accounts/", account, "/sims/", iccid)
}

// licenseCell is what a SIM holds or awaits.
func licenseCell(s client.SIM) cell {
	if s.License == nil {
		return words("none")
	}
	tones := map[string]string{client.LicenseAssigned: "good", client.LicensePending: "busy", client.LicenseLeaving: "busy"}
	b := badge(s.License.SKU, tones[s.License.State])
	b.href = poolHref(s.Account, s.License.SKU)
	if s.License.State != client.LicenseAssigned {
		b.more = s.License.State
	}
	return b
}

// found is an identifier that leads to what it finds.
func found(text string) cell {
	if text == "" {
		return words("")
	}
	return id(text, Prefix+"/sims?find="+queryEscape(text))
}

func simColumns() []column[client.SIM] {
	return []column[client.SIM]{
		{"ICCID", func(s client.SIM) cell { return id(s.ICCID, simHref(s.Account, s.ICCID)) }},
		{"IMEI", func(s client.SIM) cell { return found(s.IMEI) }},
		{"MDN", func(s client.SIM) cell { return found(s.MDN) }},
		{"Account", func(s client.SIM) cell { return link(s.Account, accountHref(s.Account)) }},
		{"State", func(s client.SIM) cell {
			return badge(s.State, yesNo(s.State == "active", cell{tone: "good"}, cell{tone: "quiet"}).tone)
		}},
		{"Generation", func(s client.SIM) cell { return words(s.Generation) }},
		{"License", licenseCell},
		{"Added", func(s client.SIM) cell { return when(s.Added) }},
	}
}

// sims lists SIMs; with an identifier it looks one up.
func (c *Console) sims(v *visit) error {
	l := listing[client.SIM]{
		caption: "SIMs", path: "/sims", filters: []string{"account", "iccid", "imei", "mdn", "state"}, columns: simColumns(), empty: noSIMs(),
	}
	// One field for people, who have a number and need not say of which kind.
	_ = v.r.ParseForm() // a broken query is an empty one
	if text := digits.ReplaceAllString(v.value("find"), ""); text != "" {
		name := "mdn"
		switch {
		case len(text) > 15:
			name = "iccid"
		case len(text) > 13:
			name = "imei"
		}
		v.r.Form.Set(name, text)
	}
	if v.wantsCSV("") {
		return sendCSV(v, l)
	}
	g, found, err := list(v, l)
	if err != nil {
		return err
	}
	if len(found) == 1 && v.value("find") != "" && v.value("cursor") == "" && g.next == "" {
		http.Redirect(v.w, v.r, simHref(found[0].Account, found[0].ICCID), http.StatusSeeOther)
		return nil
	}
	names, err := v.accountNames()
	if err != nil {
		return err
	}
	return v.show(frame{title: "SIMs", here: "sims"}, listPage(v, "", g,
		field{name: "find", label: "ICCID, IMEI or MDN", kind: "search", value: v.value("find")},
		accountField(v, names),
		field{name: "state", label: "State", kind: "select", value: v.value("state"), choices: orAny("any", choose(simStates...))},
	))
}

// digits are not those of an identifier: what people paste has spaces and signs.
var digits = regexp.MustCompile(`[^0-9A-Za-z]`)

// sim shows one SIM: what it holds, since when and by which request, and all that
// was done with it.
func (c *Console) sim(v *visit) error {
	path := join("/accounts/", v.r.PathValue("account"), "/sims/", v.r.PathValue("iccid"))
	history := listing[client.Task]{caption: "History", path: path + "/history", empty: noHistory(), columns: []column[client.Task]{
		{"Request", func(t client.Task) cell { return id(t.Request, requestHref(t.Account, t.Request)) }},
		{"Accepted", func(t client.Task) cell { return when(t.Accepted) }},
		{"Action", func(t client.Task) cell { return words(t.Action) }},
		{"SKU", func(t client.Task) cell { return link(t.SKU, poolHref(t.Account, t.SKU)) }},
		{"Outcome", taskOutcome},
		{"Settled", func(t client.Task) cell { return when(t.Settled) }},
		{"Callback", taskState},
		{"Course", func(t client.Task) cell { return link("timeline", taskHref(t.Account, t.Request, t.ICCID)) }},
	}}
	if v.wantsCSV("") {
		return sendCSV(v, history)
	}
	s, err := get[client.SIM](v.r.Context(), v.asker, path, nil)
	if err != nil {
		return err
	}
	g, tasks, err := list(v, history)
	if err != nil {
		return err
	}
	var since *client.Task // of the license, where its request is still kept
	for i := range tasks {
		if s.License != nil && tasks[i].Request == s.License.Request {
			since = &tasks[i]
		}
	}
	return v.show(frame{title: "SIM " + s.ICCID, here: "sims", live: s.Account}, simPage(v, s, since, g))
}

// setState changes a SIM's state.
func (c *Console) setState(v *visit) error {
	account, iccid := v.r.PathValue("account"), v.r.PathValue("iccid")
	q := question{
		method: http.MethodPatch, path: join("/accounts/", account, "/sims/", iccid), body: client.SIMChange{State: v.value("state")},
		match: v.value("match"),
	}
	if _, err := v.ask(v.r.Context(), q, nil); err != nil {
		return v.again(err, c.sim)
	}
	return v.done(simHref(account, iccid), "The SIM is %s.", v.value("state"))
}
