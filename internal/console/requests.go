package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/simlatch/simlatch/internal/operator/client"
)

func requestHref(account, request string) string {
	return join(Prefix+"/accounts/", account, "/requests/", request)
}

func taskHref(account, request, iccid string) string {
	return join(Prefix+"/accounts/", account, "/requests/", request, "/tasks/", iccid)
}

// statusBadge is how a request stands.
func statusBadge(r client.Request) cell {
	switch {
	case r.Status == "Pending":
		return badge("pending", "busy")
	case r.Failed == 0:
		return badge("success", "good")
	case r.Succeeded == 0:
		return badge("failure", "bad")
	}
	return badge("in part", "warn")
}

func requestColumns() []column[client.Request] {
	return []column[client.Request]{
		{"Request", func(r client.Request) cell { return id(r.ID, requestHref(r.Account, r.ID)) }},
		{"Account", func(r client.Request) cell { return link(r.Account, accountHref(r.Account)) }},
		{"Accepted", func(r client.Request) cell { return when(r.Accepted) }},
		{"Action", func(r client.Request) cell { return words(r.Action) }},
		{"SKU", func(r client.Request) cell { return link(r.SKU, poolHref(r.Account, r.SKU)) }},
		{"Devices", func(r client.Request) cell { return number(r.Devices) }},
		{"Done", func(r client.Request) cell { return number(r.Succeeded) }},
		{"Refused", func(r client.Request) cell { return number(r.Failed) }},
		{"Callbacks ended", func(r client.Request) cell { return number(r.Ended) }},
		{"State", statusBadge},
	}
}

// requests lists requests, the newest first.
func (c *Console) requests(v *visit) error {
	l := listing[client.Request]{
		caption: "Requests", path: "/requests", filters: []string{"account", "request", "status", "action", "sku", "since", "until"},
		columns: requestColumns(), empty: noRequests(),
	}
	return showList(v, frame{title: "Requests", here: "requests", live: "*"}, "", l,
		field{name: "status", label: "State", kind: "select", value: v.value("status"), choices: []choice{{"", "any"}, {"Pending", "pending"}, {"Success", "success"}, {"Failure", "failure"}}},
		field{name: "action", label: "Action", kind: "select", value: v.value("action"), choices: orAny("any", choose("assign", "unassign"))},
		field{name: "sku", label: "SKU", kind: "select", value: v.value("sku"), choices: orAny("any", choose(skus()...))},
		field{name: "request", label: "Request", kind: "text", value: v.value("request")},
	)
}

// The states of tasks, as the API names them, with their tone.
var stateTones = map[string]string{
	"carrier": "busy", "stuck": "bad", "waiting": "busy", "delivered": "good", "undelivered": "bad", "unsent": "quiet",
}

func taskState(t client.Task) cell { return badge(t.State, stateTones[t.State]) }

func taskOutcome(t client.Task) cell {
	switch t.Outcome {
	case client.DecideDone:
		return badge("done", "good")
	case client.DecideRefused:
		c := badge("refused", "bad")
		c.more = t.Comment
		return c
	}
	return words("")
}

func taskColumns() []column[client.Task] {
	return []column[client.Task]{
		{"ICCID", func(t client.Task) cell { return id(t.ICCID, simHref(t.Account, t.ICCID)) }},
		{"Outcome", taskOutcome},
		{"Settled", func(t client.Task) cell { return when(t.Settled) }},
		{"Callback", taskState},
		{"Attempts", func(t client.Task) cell { return number(t.Attempts) }},
		{"Answer", taskAnswer},
		{"Course", func(t client.Task) cell { return link("timeline", taskHref(t.Account, t.Request, t.ICCID)) }},
	}
}

// taskAnswer is what the listener last answered.
func taskAnswer(t client.Task) cell {
	if t.Attempts == 0 {
		return words("")
	}
	if t.Status == 0 {
		return words("none")
	}
	c := number(t.Status)
	c.more = latency(t.LatencyMS)
	return c
}

func latency(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(10 * time.Microsecond).String()
}

func (v *visit) requestPath() string {
	return join("/accounts/", v.r.PathValue("account"), "/requests/", v.r.PathValue("request"))
}

// states are the states to filter tasks by.
func states() []choice {
	return choose("carrier", "stuck", "waiting", "delivered", "undelivered", "unsent")
}

// request shows one request: how far it is, its course, and its devices.
func (c *Console) request(v *visit) error {
	tasks := listing[client.Task]{caption: "Devices", path: v.requestPath() + "/tasks", filters: []string{"state", "outcome"}, columns: taskColumns()}
	if v.wantsCSV("Devices") {
		return sendCSV(v, tasks)
	}
	detail, err := get[client.RequestDetail](v.r.Context(), v.asker, v.requestPath(), nil)
	if err != nil {
		return err
	}
	course := newGrid("Course", momentColumns(), detail.Timeline, nil)
	if v.wantsCSV("Course") {
		return sendGrid(v, course)
	}
	course.csv = v.here(map[string]string{"format": "csv", "table": "Course"})
	g, _, err := list(v, tasks)
	if err != nil {
		return err
	}
	g.csv = v.here(map[string]string{"format": "csv", "table": "Devices", "cursor": ""})
	raw, err := get[client.Exchange](v.r.Context(), v.asker, v.requestPath()+"/exchange", nil)
	if err != nil {
		if err = v.refused(err); err != nil {
			return err
		}
	}
	r := detail.Request
	return v.show(frame{title: "Request " + r.ID, here: "requests", live: r.Account}, requestPage(v, r, course, g, raw))
}

func momentColumns() []column[client.Moment] {
	return []column[client.Moment]{
		{"At", func(m client.Moment) cell { return when(m.At) }},
		{"What", func(m client.Moment) cell { return badge(m.What, momentTones[m.What]) }},
		{"Units", func(m client.Moment) cell {
			if m.Units == 0 {
				return words("")
			}
			return number(m.Units)
		}},
		{"Detail", func(m client.Moment) cell { return words(m.Detail) }},
	}
}

// momentTones are the tones of what happens in a course.
var momentTones = map[string]string{
	"accepted": "quiet", "reserve": "busy", "post": "good", "void": "bad", "release": "good", "done": "good", "refused": "bad",
	"stuck": "bad", "attempt-failed": "bad", "delivered": "good", "undelivered": "bad", "unsent": "quiet",
}

// task shows the work for one device of a request, from acceptance to the last
// attempt to call back.
func (c *Console) task(v *visit) error {
	path := v.requestPath() + join("/tasks/", v.r.PathValue("iccid"))
	detail, err := get[client.TaskDetail](v.r.Context(), v.asker, path, nil)
	if err != nil {
		return err
	}
	course := newGrid("Course", momentColumns(), detail.Timeline, nil)
	attempts := newGrid("Failed attempts", []column[client.Attempt]{
		{"Ended", func(a client.Attempt) cell { return when(a.Ended) }},
		{"Round", func(a client.Attempt) cell { return number(a.Round) }},
		{"Attempt", func(a client.Attempt) cell { return number(a.Attempt) }},
		{"Status", func(a client.Attempt) cell { return yesNo(a.Status == 0, words("none"), number(a.Status)) }},
		{"Took", func(a client.Attempt) cell { return words(latency(a.LatencyMS)) }},
		{"Answer", func(a client.Attempt) cell { return cell{text: a.Answer, code: true} }},
	}, detail.Failures, noFailures())
	switch {
	case v.wantsCSV("Course"):
		return sendGrid(v, course)
	case v.wantsCSV("Failed attempts"):
		return sendGrid(v, attempts)
	}
	course.csv = v.here(map[string]string{"format": "csv", "table": "Course"})
	attempts.csv = v.here(map[string]string{"format": "csv", "table": "Failed attempts"})
	raw, err := get[client.Exchange](v.r.Context(), v.asker, path+"/exchange", nil)
	if err != nil && !isProblem(err, "not-ended", "no-listener") {
		if err = v.refused(err); err != nil {
			return err
		}
	}
	t := detail.Task
	return v.show(frame{title: "SIM " + t.ICCID + " in a request", here: "requests", live: t.Account}, taskPage(v, t, course, attempts, raw))
}

// send has callbacks sent again, all of them that the order means.
func (v *visit) send(account string, order client.SendCallbacks, key string) (sent client.SentCallbacks, err error) {
	for step := 0; ; step++ {
		var part client.SentCallbacks
		k := key
		if k != "" && step > 0 {
			k += "/" + order.Cursor
		}
		q := question{method: http.MethodPost, path: join("/accounts/", account, "/callbacks/send"), body: order, key: k}
		if _, err := v.ask(v.r.Context(), q, &part); err != nil {
			return sent, err
		}
		sent.Queued += part.Queued
		sent.Changed += part.Changed
		for state, n := range part.Left {
			if sent.Left == nil {
				sent.Left = map[string]int{}
			}
			sent.Left[state] += n
		}
		if part.NextCursor == "" {
			return sent, nil
		}
		order.Cursor = part.NextCursor
	}
}

// sentText says what became of callbacks that were to be sent again.
func sentText(s client.SentCallbacks) string {
	text := "Nothing was to be sent again."
	switch s.Queued {
	case 0:
	case 1:
		text = "One callback is sent again."
	default:
		text = count(s.Queued) + " callbacks are sent again."
	}
	var left []string
	for state, n := range s.Left {
		left = append(left, count(n)+" "+state)
	}
	slices.Sort(left)
	if len(left) > 0 {
		text += " Left alone: " + strings.Join(left, ", ") + "."
	}
	return text
}

// sendRequest sends the callbacks of a request again.
func (c *Console) sendRequest(v *visit) error {
	account, request := v.r.PathValue("account"), v.r.PathValue("request")
	sent, err := v.send(account, client.SendCallbacks{Request: request, Delivered: v.value("delivered") != ""}, v.value("key"))
	if err != nil {
		return v.again(err, c.request)
	}
	return v.done(requestHref(account, request), "%s", sentText(sent))
}

// sendTask sends one callback again.
func (c *Console) sendTask(v *visit) error {
	account, request, iccid := v.r.PathValue("account"), v.r.PathValue("request"), v.r.PathValue("iccid")
	sent, err := v.send(account, client.SendCallbacks{Request: request, ICCID: iccid, Delivered: true}, v.value("key"))
	if err != nil {
		return v.again(err, c.task)
	}
	return v.done(taskHref(account, request, iccid), "%s", sentText(sent))
}

// decide decides a stuck task.
func (c *Console) decide(v *visit) error {
	account, request, iccid := v.r.PathValue("account"), v.r.PathValue("request"), v.r.PathValue("iccid")
	in := client.Decision{Decision: v.value("decision"), Reason: v.value("reason")}
	path := v.requestPath() + join("/tasks/", iccid, "/decide")
	if _, err := v.ask(v.r.Context(), question{method: http.MethodPost, path: path, body: in, key: v.value("key")}, nil); err != nil {
		return v.again(err, c.task)
	}
	what := map[string]string{client.DecideDone: "was done", client.DecideRefused: "was refused", client.DecideRetry: "is tried again"}
	return v.done(taskHref(account, request, iccid), "Decided: the task of SIM %s %s.", iccid, what[in.Decision])
}

// stuck lists the tasks whose carrier stayed silent.
func (c *Console) stuck(v *visit) error {
	l := listing[client.StuckTask]{caption: "Stuck tasks", path: "/stuck", filters: []string{"account"}, empty: noStuck(), columns: []column[client.StuckTask]{
		{"ICCID", func(t client.StuckTask) cell { return id(t.ICCID, simHref(t.Account, t.ICCID)) }},
		{"Account", func(t client.StuckTask) cell { return link(t.Account, accountHref(t.Account)) }},
		{"Request", func(t client.StuckTask) cell { return id(t.Request, requestHref(t.Account, t.Request)) }},
		{"Action", func(t client.StuckTask) cell { return words(t.Action) }},
		{"SKU", func(t client.StuckTask) cell { return link(t.SKU, poolHref(t.Account, t.SKU)) }},
		{"Since", func(t client.StuckTask) cell { return when(t.Since) }},
		{"Asked", func(t client.StuckTask) cell { return number(t.Asked) }},
		{"Last word", func(t client.StuckTask) cell { return words(t.Comment) }},
		{"Decide", func(t client.StuckTask) cell { return link("decide", taskHref(t.Account, t.Request, t.ICCID)) }},
	}}
	return showList(v, frame{title: "Stuck tasks", here: "stuck", live: "*"}, "The carrier did not say what became of these. Their licenses stay reserved until somebody who has asked the carrier decides.", l)
}

// polled has the script look again now and then, while something is under way: a
// callback that is sent again is of a request that may be too old for live events.
func polled(while bool) templ.Attributes {
	if !while {
		return nil
	}
	return templ.Attributes{"data-poll": "2000"}
}
