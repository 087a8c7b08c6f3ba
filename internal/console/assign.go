package console

import (
	"io"
	"net/http"
	"regexp"

	"github.com/simlatch/simlatch/internal/operator/client"
)

// maxPlan is how many SIMs a request may have.
const maxPlan = 10_000

// assignForm shows where to name SIMs.
func (c *Console) assignForm(v *visit) error {
	names, err := v.accountNames()
	if err != nil {
		return err
	}
	return v.show(frame{title: "Assign or unassign", here: "assign"}, assignPage(v, names))
}

// order is what the form asks for.
func (v *visit) order() (account string, in client.NewRequest) {
	in = client.NewRequest{Action: v.value("action"), SKU: v.value("sku")}
	seen := map[string]bool{}
	for _, text := range iccidsIn(v.value("iccids")) {
		if !seen[text] {
			seen[text] = true
			in.ICCIDs = append(in.ICCIDs, text)
		}
	}
	return v.value("account"), in
}

// plan says, SIM by SIM, what a request would do.
func (c *Console) plan(v *visit) error {
	if file, _, err := v.r.FormFile("file"); err == nil {
		text, err := io.ReadAll(file)
		_ = file.Close()
		if err == nil && len(text) > 0 {
			v.kept = map[string]string{"iccids": v.value("iccids") + "\n" + string(text)}
		}
	}
	account, in := v.order()
	switch {
	case len(in.ICCIDs) == 0:
		v.invalid("Paste or drop the ICCIDs of the SIMs. Among what was sent is none.")
		return c.assignForm(v)
	case len(in.ICCIDs) > maxPlan:
		v.invalid("These are %s SIMs; a request has at most %s.", count(len(in.ICCIDs)), count(maxPlan))
		return c.assignForm(v)
	}
	var planned client.Planned
	q := question{method: http.MethodPost, path: join("/accounts/", account, "/plan"), body: in}
	if _, err := v.ask(v.r.Context(), q, &planned); err != nil {
		return v.again(err, c.assignForm)
	}
	g := newGrid("SIMs", []column[client.PlannedDevice]{
		{"ICCID", func(d client.PlannedDevice) cell { return id(d.ICCID, simHref(account, d.ICCID)) }},
		{"Would be", func(d client.PlannedDevice) cell {
			return yesNo(d.OK, badge(in.Action+"ed", "good"), badge("refused", "bad"))
		}},
		{"Why not", func(d client.PlannedDevice) cell { return words(d.Reason) }},
	}, planned.Devices, nil)
	if v.value("format") == "csv" {
		return sendGrid(v, g)
	}
	return v.show(frame{title: "The plan", here: "assign"}, planPage(v, account, in, planned, g))
}

// assign has the request accepted, and shows it.
func (c *Console) assign(v *visit) error {
	account, in := v.order()
	var made client.Request
	q := question{method: http.MethodPost, path: join("/accounts/", account, "/requests"), body: in, key: v.value("key")}
	if _, err := v.ask(v.r.Context(), q, &made); err != nil {
		return v.again(err, c.assignForm)
	}
	return v.done(requestHref(made.Account, made.ID), "The request is accepted: %s SIMs.", count(made.Devices))
}

// iccidsIn are the ICCIDs among pasted text: one a line, a column of a CSV, or
// anything between.
func iccidsIn(text string) []string { return iccidLike.FindAllString(text, -1) }

// iccidLike is what may be an ICCID in a text. A shorter or longer number is not
// passed over: it is what the API then refuses by name.
var iccidLike = regexp.MustCompile(`\b[0-9]{17,22}[Ff]?\b`)
