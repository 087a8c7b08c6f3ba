package carrier

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/simlatch/simlatch/internal/license"
)

// The messages between Simlatch and a carrier by HTTP. docs/carrier.openapi.yaml
// describes them for those who write one, and a test holds it against these.

// callMessage is what a carrier is asked: a batch of tasks of one request.
type callMessage struct {
	Tasks []taskMessage `json:"tasks"`
}

type taskMessage struct {
	Key        string        `json:"key"`
	RequestID  string        `json:"requestId"`
	Action     string        `json:"action"`
	SKU        string        `json:"sku"`
	Account    string        `json:"account"`
	Device     deviceMessage `json:"device"`
	Attempt    int           `json:"attempt"`
	AcceptedAt string        `json:"acceptedAt"`
}

type deviceMessage struct {
	ICCID string `json:"iccid"`
	IMEI  string `json:"imei,omitempty"`
	MDN   string `json:"mdn,omitempty"`
}

// outcomesMessage is a carrier's answer, and what it brings later by itself. That
// the list is missing is told from that it is empty.
type outcomesMessage struct {
	Outcomes *[]outcomeMessage `json:"outcomes"`
}

type outcomeMessage struct {
	Account string `json:"account,omitempty"` // of late ones
	Key     string `json:"key"`
	Outcome string `json:"outcome"`
	Code    string `json:"code,omitempty"`
	Text    string `json:"text,omitempty"`
	Due     string `json:"due,omitempty"`
}

// resultsMessage answers late outcomes, in their order.
type resultsMessage struct {
	Results []resultMessage `json:"results"`
}

type resultMessage struct {
	Account string `json:"account"`
	Key     string `json:"key"`
	Result  string `json:"result"`
	Detail  string `json:"detail,omitempty"`
}

// encodeCall is the body of a call.
func encodeCall(tasks []license.Task) ([]byte, error) {
	m := callMessage{Tasks: make([]taskMessage, len(tasks))}
	for i := range tasks {
		t := &tasks[i]
		m.Tasks[i] = taskMessage{
			Key: t.Key(), RequestID: string(t.Request), Action: string(t.Action), SKU: string(t.SKU), Account: string(t.Account),
			Device:  deviceMessage{ICCID: string(t.Device.ICCID), IMEI: string(t.Device.IMEI), MDN: string(t.Device.MDN)},
			Attempt: t.Attempt + 1, AcceptedAt: t.At.UTC().Format(time.RFC3339Nano),
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("writing the call: %w", err)
	}
	return body, nil
}

// decodeOutcomes reads a list of outcomes, strictly: a body with a duplicate
// member or bytes that are no UTF-8 means nothing. Unknown members are ignored.
func decodeOutcomes(body []byte) ([]outcomeMessage, error) {
	var m outcomesMessage
	if err := unmarshalOnce(body, &m); err != nil {
		return nil, err
	}
	if m.Outcomes == nil {
		return nil, errors.New(`it has no member "outcomes"`)
	}
	return *m.Outcomes, nil
}

// errTwice says that a body would mean something else to a reader that does not
// mind the case of names.
var errTwice = errors.New("a member is there by another case of its name")

// unmarshalOnce decodes a body strictly, if it has one meaning: what readers that
// mind the case of names read is what others do.
func unmarshalOnce[T any](body []byte, into *T) error {
	if err := json.Unmarshal(body, into); err != nil {
		return err
	}
	var folded T
	if err := json.Unmarshal(body, &folded, json.MatchCaseInsensitiveNames(true)); err != nil || !reflect.DeepEqual(*into, folded) {
		return errTwice
	}
	return nil
}

// verdictOf reads an outcome's word.
func verdictOf(word string) (license.Verdict, bool) {
	for _, v := range []license.Verdict{license.Done, license.Refused, license.Retry, license.Later} {
		if word == v.String() {
			return v, true
		}
	}
	return license.Retry, false
}

// cutKey takes a task's key apart.
func cutKey(key string) (license.RequestID, license.ICCID, bool) {
	first, second, _ := strings.Cut(key, "/")
	request, err := license.ParseRequestID(first)
	if err != nil {
		return "", "", false
	}
	iccid, err := license.ParseICCID(second)
	return request, iccid, err == nil
}

// laterAgain is when a carrier that answers "later" and names no time is asked
// what became of the task: it should have told by then, by a call of its own.
const laterAgain = 5 * time.Minute

// oddities counts what is wrong with an answer that was understood.
type oddities struct{ unknown, contradictory, invalid, missing int }

// tooLate is how long after its acceptance a task is no longer left waiting because
// the carrier says "later": as long as one without any answer waits.
const tooLate = 24 * time.Hour

// putOff reads a "later". A carrier that says nothing else for a day is silent in
// other words: the outcome is unknown then, for which an operator is asked, and a
// call that brings it still settles the task. One that is asked for the first time
// only then, since nobody asked before, has all the time that it wants until it is
// asked again.
func putOff(o *license.Outcome, now time.Time) {
	end := o.Task.At.Add(tooLate)
	switch over := !now.Before(end); {
	case over && o.Task.Attempt > 0:
		*o = license.Outcome{Task: o.Task, Comment: "the carrier says later, and has not said more in a day"}
		return
	case o.Due.IsZero():
		o.Due = now.Add(laterAgain)
	case !over && o.Due.After(end):
		o.Due = end // so that an operator hears of it then
	}
}

// answer makes one outcome for each task, in their order, of what a carrier
// answered. What it leaves open stays unknown.
func answer(tasks []license.Task, said []outcomeMessage, now time.Time) ([]license.Outcome, oddities) {
	place := make(map[string]int, len(tasks))
	out := make([]license.Outcome, len(tasks))
	for i := range tasks {
		place[tasks[i].Key()] = i
		out[i] = license.Outcome{Task: tasks[i], Comment: "the carrier gave no outcome"}
	}
	var odd oddities
	first := make([]*outcomeMessage, len(tasks))
	unclear := make([]bool, len(tasks))
	for i := range said {
		m := &said[i]
		p, ours := place[m.Key]
		switch {
		case !ours:
			odd.unknown++
		case first[p] == nil:
			first[p] = m
		case first[p].Outcome != m.Outcome && !unclear[p]:
			unclear[p] = true
			odd.contradictory++
		}
	}
	for i, m := range first {
		o := &out[i]
		switch {
		case m == nil:
			odd.missing++
			continue
		case unclear[i]:
			o.Comment = "the carrier gave outcomes that contradict each other"
			continue
		}
		verdict, valid := verdictOf(m.Outcome)
		if !valid {
			odd.invalid++
			o.Comment = fmt.Sprintf("the carrier gave an outcome that there is not: %.40q", m.Outcome)
			continue
		}
		o.Verdict, o.Code, o.Comment = verdict, m.Code, m.Text
		o.Due, _ = time.Parse(time.RFC3339, m.Due) // none, and what is no time, is the zero time
		if verdict == license.Later {
			putOff(o, now)
		}
	}
	return out, odd
}
