package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/simlatch/simlatch/m2m"
)

// callbackPrinter prints attempts as they come.
type callbackPrinter struct {
	put func(*receivedCallback) error
}

// newCallbackPrinter prints to w in the form that the options ask for.
func newCallbackPrinter(w io.Writer, o listenOptions) (callbackPrinter, error) {
	line := func(text string) error {
		_, err := fmt.Fprintln(w, text)
		return err
	}
	switch {
	case o.counts:
		return callbackPrinter{func(*receivedCallback) error { return nil }}, nil
	case o.form == formTable:
		p := paintOf(w)
		return callbackPrinter{func(c *receivedCallback) error { return line(callbackRow(c, p)) }}, line(callbackHeadings)
	case o.form == formCSV:
		list, err := newLister(w, formCSV, receivedColumns)
		if err != nil {
			return callbackPrinter{}, err
		}
		return callbackPrinter{func(c *receivedCallback) error {
			if err := list.put(c); err != nil {
				return err
			}
			return list.end() // that is, flush: whoever reads wants it now
		}}, list.end()
	case o.form == formJSON || o.form == formJSONL:
		return callbackPrinter{func(c *receivedCallback) error {
			var b bytes.Buffer
			if err := json.Compact(&b, c.body); err != nil {
				return err
			}
			return line(b.String())
		}}, nil
	}
	return callbackPrinter{func(c *receivedCallback) error { return line(callbackLine(c.m) + answered(c)) }}, nil
}

// answered tells of an answer that is not the usual one.
func answered(c *receivedCallback) string {
	if c.answer == 200 {
		return ""
	}
	return fmt.Sprintf("  answered %d", c.answer)
}

const (
	callbackHeadings = "TIME      STATUS   ACTION    ICCID                 TRY  ANSWER  REQUEST                               DETAIL"
	callbackFormat   = "%-8s  %s  %-8s  %-20s  %-3s  %-6d  %-36s  %s"
)

// callbackRow is an attempt as a row of a table that is not yet complete, so
// that its columns have fixed widths.
func callbackRow(c *receivedCallback, p paint) string {
	m := c.m
	action, detail := "-", m.Comment
	if r := m.DeviceResponse; r != nil {
		action, detail = r.DeviceSKUSubscriptionResponse.Action, r.DeviceSKUSubscriptionResponse.SKUNumber
	}
	if f := m.FaultResponse; f != nil {
		detail = f.FaultString
	}
	status := fmt.Sprintf("%-7s", printable(m.Status))
	switch m.Status {
	case m2m.CallbackSuccess:
		status = p.good(status)
	default:
		status = p.bad(status)
	}
	text := fmt.Sprintf(callbackFormat, c.at.Format(time.TimeOnly), status, printable(action), printable(m.ICCID()),
		fmt.Sprintf("%d/%d", m.CallbackCount, m.MaxCallbackThreshold), c.answer, printable(m.RequestID), printable(detail))
	return strings.TrimRight(text, " ")
}

var receivedColumns = []column[*receivedCallback]{
	{"time", "TIME", func(c *receivedCallback) any { return c.at.UTC().Format(time.RFC3339) }},
	{"status", "STATUS", func(c *receivedCallback) any { return c.m.Status }},
	{"action", "ACTION", func(c *receivedCallback) any { return response(c.m).Action }},
	{"sku", "SKU", func(c *receivedCallback) any { return response(c.m).SKUNumber }},
	{"iccid", "ICCID", func(c *receivedCallback) any { return c.m.ICCID() }},
	{"imei", "IMEI", func(c *receivedCallback) any { return c.m.IMEI() }},
	{"mdn", "MDN", func(c *receivedCallback) any { return c.m.MDN() }},
	{"request", "REQUEST", func(c *receivedCallback) any { return c.m.RequestID }},
	{"attempt", "ATTEMPT", func(c *receivedCallback) any { return c.m.CallbackCount }},
	{"answer", "ANSWER", func(c *receivedCallback) any { return c.answer }},
	{"faultcode", "FAULTCODE", func(c *receivedCallback) any { return fault(c.m).FaultCode }},
	{"faultstring", "FAULTSTRING", func(c *receivedCallback) any { return fault(c.m).FaultString }},
}

// response is what a message says was done; empty where nothing was.
func response(m *m2m.CallbackMessage) (r m2m.SKUSubscriptionResponse) {
	if m.DeviceResponse != nil {
		r = m.DeviceResponse.DeviceSKUSubscriptionResponse
	}
	return r
}

// fault is why a message says that it failed; empty where it did not.
func fault(m *m2m.CallbackMessage) (f m2m.FaultResponse) {
	if m.FaultResponse != nil {
		f = *m.FaultResponse
	}
	return f
}

// callbackLine is a message on one line: how it ended, what was done, to which
// device, for which request, and at which attempt.
func callbackLine(m *m2m.CallbackMessage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-7s", m.Status)
	if r := response(m); r.Action != "" {
		fmt.Fprintf(&b, "  %s %s", r.Action, r.SKUNumber)
	}
	for _, id := range m.DeviceIDs {
		fmt.Fprintf(&b, "  %s %s", id.Kind, id.ID)
	}
	fmt.Fprintf(&b, "  request %s  attempt %d of %d", m.RequestID, m.CallbackCount, m.MaxCallbackThreshold)
	if f := fault(m); f.FaultCode != "" {
		fmt.Fprintf(&b, "  %s: %s", f.FaultCode, f.FaultString)
	}
	return printable(b.String())
}

// printable replaces what could steer a terminal: a listener prints what
// strangers send.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}

// deviceCount is what came for one device.
type deviceCount struct {
	iccid              string
	messages, attempts int
	succeeded, failed  int
	last               time.Time
}

// deviceCounts counts what comes for each device.
type deviceCounts map[string]*deviceCount

// count counts an attempt; told is what was known of its message before.
func (d *deviceCounts) count(c *receivedCallback, told *toldMessage) {
	if *d == nil {
		*d = deviceCounts{}
	}
	n := (*d)[c.m.ICCID()]
	if n == nil {
		n = &deviceCount{iccid: c.m.ICCID()}
		(*d)[n.iccid] = n
	}
	n.attempts++
	n.last = c.at
	if told.counted {
		return
	}
	told.counted = true
	n.messages++
	if c.m.Status == m2m.CallbackSuccess {
		n.succeeded++
	} else {
		n.failed++
	}
}

var deviceCountColumns = []column[*deviceCount]{
	{"iccid", "ICCID", func(n *deviceCount) any { return printable(n.iccid) }},
	{"messages", "MESSAGES", func(n *deviceCount) any { return n.messages }},
	{"attempts", "ATTEMPTS", func(n *deviceCount) any { return n.attempts }},
	{"succeeded", "SUCCEEDED", func(n *deviceCount) any { return n.succeeded }},
	{"failed", "FAILED", func(n *deviceCount) any { return n.failed }},
	{"last", "LAST", func(n *deviceCount) any { return n.last.UTC().Format(time.RFC3339) }},
}

// print lists the counts by device.
func (d deviceCounts) print(w io.Writer, form string) error {
	if form == formText {
		form = formTable
	}
	rows := make([]*deviceCount, 0, len(d))
	for _, n := range d {
		rows = append(rows, n)
	}
	slices.SortFunc(rows, func(a, b *deviceCount) int { return strings.Compare(a.iccid, b.iccid) })
	return writeList(w, form, deviceCountColumns, rows)
}

// summary is all there was, on one line.
func (d deviceCounts) summary(messages, taken, refused int) string {
	attempts, failed := 0, 0
	for _, n := range d {
		attempts += n.attempts
		failed += n.failed
	}
	return fmt.Sprintf("%s messages of %s devices in %s attempts; %s tell of a failure, %s were acknowledged, %s were refused",
		thousands(messages), thousands(len(d)), thousands(attempts), thousands(failed), thousands(taken), thousands(refused))
}
