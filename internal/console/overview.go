package console

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/operator/client"
)

func queryEscape(text string) string { return url.QueryEscape(text) }

// overview shows how all stands.
func (c *Console) overview(v *visit) error {
	o, err := get[client.Overview](v.r.Context(), v.asker, "/overview", nil)
	if err != nil {
		return err
	}
	g := overviewGrids(o)
	for _, table := range []grid{g.pools, g.hours, g.queues, g.trouble, g.audit} {
		if v.wantsCSV(table.caption) && v.value("table") != "" {
			return sendGrid(v, table)
		}
	}
	for _, table := range []*grid{&g.pools, &g.hours, &g.queues, &g.trouble, &g.audit} {
		table.csv = v.here(map[string]string{"format": "csv", "table": table.caption})
	}
	return v.show(frame{title: "Overview", here: "overview", live: "*"}, overviewPage(v, o, g))
}

// overviewParts are the tables of the overview.
type overviewParts struct{ pools, hours, queues, trouble, audit grid }

func overviewGrids(o client.Overview) overviewParts {
	return overviewParts{
		pools: newGrid("Pools", poolColumns(true), o.Pools, noPools()),
		hours: newGrid("The last 24 hours", []column[client.Hour]{
			{"Hour, UTC", func(h client.Hour) cell { return words(h.At.UTC().Format("01-02 15:00")) }},
			{"Requests", func(h client.Hour) cell { return number(h.Requests) }},
			{"Devices", func(h client.Hour) cell { return number(h.Devices) }},
			{"Done", func(h client.Hour) cell { return number(h.Succeeded) }},
			{"Refused", func(h client.Hour) cell { return number(h.Failed) }},
			{"Delivered", func(h client.Hour) cell { return number(h.Delivered) }},
			{"Undelivered", func(h client.Hour) cell { return number(h.Undelivered) }},
		}, o.Hours, nil),
		queues: newGrid("Queues", []column[client.Queue]{
			{"Waits for", func(q client.Queue) cell {
				return words(map[string]string{"carrier": "the carrier", "listener": "its listener"}[q.Phase])
			}},
			{"Due", func(q client.Queue) cell { return number(q.Due) }},
			{"Oldest", func(q client.Queue) cell { return when(q.Oldest) }},
			{"For", func(q client.Queue) cell { return waited(o.At, q.Oldest) }},
		}, o.Queues, nil),
		trouble: newGrid("Listeners in trouble", []column[client.Trouble]{
			{"Listener", func(t client.Trouble) cell { return link(t.Service, listenerHref(t.Account, t.Service)) }},
			{"Account", func(t client.Trouble) cell { return link(t.Account, accountHref(t.Account)) }},
			{"URL", func(t client.Trouble) cell { return cell{text: t.URL, code: true} }},
			{"Failed", func(t client.Trouble) cell {
				return link(strconv.FormatInt(t.Undelivered, 10), Prefix+"/callbacks?account="+queryEscape(t.Account))
			}},
			{"Last", func(t client.Trouble) cell { return when(t.Last) }},
			{"Answer", func(t client.Trouble) cell { return yesNo(t.Status == 0, words("none"), number(t.Status)) }},
		}, o.Trouble, noTrouble()),
		audit: newGrid("Last changes", []column[client.AuditEntry]{
			{"At", func(e client.AuditEntry) cell { return when(e.At) }},
			{"Who", func(e client.AuditEntry) cell { return link(e.Who, Prefix+"/audit?who="+queryEscape(e.Who)) }},
			{"Via", func(e client.AuditEntry) cell { return words(e.Via) }},
			{"Action", func(e client.AuditEntry) cell { return link(e.Action, Prefix+"/audit?action="+queryEscape(e.Action)) }},
			{"Target", auditTarget},
		}, o.Audit, noAudit()),
	}
}

// waited is for how long something has waited.
func waited(now, since time.Time) cell {
	if since.IsZero() || since.After(now) {
		return words("")
	}
	return words(now.Sub(since).Round(time.Second).String())
}

// A column chart of hours: its columns are 1000 wide in all and 120 high.
const (
	chartWidth  = 960
	chartHeight = 120
)

// stack is one part of a column.
type stack struct{ class, x, y, width, height, label string }

// chart draws two counts of each hour on each other.
func chart(hours []client.Hour, below, above func(client.Hour) int64, what string) (parts []stack, most int64) {
	for _, h := range hours {
		most = max(most, below(h)+above(h))
	}
	if most == 0 || len(hours) == 0 {
		return nil, 0
	}
	step := float64(chartWidth) / float64(len(hours))
	at := func(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }
	for i, h := range hours {
		y := float64(chartHeight)
		for _, part := range []struct {
			class string
			n     int64
		}{{"lower", below(h)}, {"upper", above(h)}} {
			if part.n == 0 {
				continue
			}
			height := max(1.5, float64(chartHeight-2)*float64(part.n)/float64(most))
			y -= height
			parts = append(parts, stack{
				part.class, at(float64(i)*step + 2), at(y), at(step - 4), at(height),
				fmt.Sprintf("%s UTC: %d %s", h.At.UTC().Format("15:00"), part.n, what),
			})
		}
	}
	return parts, most
}

// events hands the browser the live events of the operator API.
func (c *Console) events(w http.ResponseWriter, r *http.Request) {
	v := c.visit(w, r)
	if err := v.enter(r.Context()); err != nil {
		http.Error(w, "sign in", http.StatusUnauthorized)
		return
	}
	r = r.Clone(auth.WithActing(r.Context(), v.who))
	r.URL.Path, r.URL.RawPath = client.Prefix+"/events", ""
	r.RequestURI = r.URL.RequestURI()
	r.Header.Del("Authorization")
	c.cfg.Operator.ServeHTTP(w, r)
}
