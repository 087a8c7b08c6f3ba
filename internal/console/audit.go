package console

import (
	"encoding/json"
	"net/http"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/operator/client"
)

// lifetime is the SKU whose licenses stay for ever.
const lifetime = string(license.SKULifetime)

func auditColumns() []column[client.AuditEntry] {
	return []column[client.AuditEntry]{
		{"Number", func(e client.AuditEntry) cell { return yesNo(e.Number == 0, words("not sealed"), number(e.Number)) }},
		{"At", func(e client.AuditEntry) cell { return when(e.At) }},
		{"Who", func(e client.AuditEntry) cell { return link(e.Who, Prefix+"/audit?who="+queryEscape(e.Who)) }},
		{"Via", func(e client.AuditEntry) cell { c := words(e.Via); c.more = e.From; return c }},
		{"Action", func(e client.AuditEntry) cell { return link(e.Action, Prefix+"/audit?action="+queryEscape(e.Action)) }},
		{"Account", func(e client.AuditEntry) cell {
			return yesNo(e.Account == "", words(""), link(e.Account, accountHref(e.Account)))
		}},
		{"Target", auditTarget},
		{"Before", func(e client.AuditEntry) cell { return told(e.Before) }},
		{"After", func(e client.AuditEntry) cell { return told(e.After) }},
		{"Hash", func(e client.AuditEntry) cell { return cell{text: e.Hash, code: true} }},
	}
}

func auditTarget(e client.AuditEntry) cell {
	if e.Target == "" {
		return words("")
	}
	return link(e.Target, Prefix+"/audit?target="+queryEscape(e.Target))
}

// told is what an entry says that something was, or became.
func told(v any) cell {
	if v == nil {
		return words("")
	}
	data, err := json.Marshal(v)
	if err != nil { // it came as JSON
		return words("")
	}
	return cell{text: string(data), code: true}
}

// audit lists who did what, the newest first.
func (c *Console) audit(v *visit) error {
	l := listing[client.AuditEntry]{
		caption: "Audit", path: "/audit", filters: []string{"account", "who", "target", "action", "since"}, columns: auditColumns(), empty: noAudit(),
	}
	return showList(v, frame{title: "Audit", here: "audit"}, "Who did what, when, from where. Entries are sealed into a chain of hashes each second; Verify checks it.", l,
		field{name: "who", label: "Who", kind: "text", value: v.value("who")},
		field{name: "action", label: "Action", kind: "text", value: v.value("action"), placeholder: "pool.purchase"},
		field{name: "target", label: "Target", kind: "text", value: v.value("target")},
	)
}

// verify shows where the ledger is verified.
func (c *Console) verify(v *visit) error {
	return v.show(frame{title: "Verify", here: "verify"}, verifyPage(v, nil, grid{}))
}

// runVerify holds the facts of the ledger against each other.
func (c *Console) runVerify(v *visit) error {
	var found client.Verified
	if _, err := v.ask(v.r.Context(), question{method: http.MethodPost, path: "/verify", body: struct{}{}}, &found); err != nil {
		return v.again(err, c.verify)
	}
	drift := newGrid("Drift", []column[client.Drift]{
		{"Account", func(d client.Drift) cell { return link(d.Account, accountHref(d.Account)) }},
		{"SKU", func(d client.Drift) cell { return words(d.SKU) }},
		{"What", func(d client.Drift) cell { return words(d.What) }},
	}, found.Drift, nil)
	if v.value("format") == "csv" {
		return sendGrid(v, drift)
	}
	return v.show(frame{title: "Verify", here: "verify"}, verifyPage(v, &found, drift))
}
