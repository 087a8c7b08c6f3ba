package callback

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/m2m"
)

// appendOpening appends the part of a message that is the same for all messages
// to one listener: from the first brace to where the request's id stands.
func appendOpening(b []byte, l license.Listener) []byte {
	b = append(b, '{')
	if l.Username != "" {
		b = append(b, `"username":`...)
		b = append(appendString(b, l.Username), ',')
	}
	if l.Password != "" {
		b = append(b, `"password":`...)
		b = append(appendString(b, l.Password), ',')
	}
	return append(b, `"requestId":"`...)
}

// appendMessage appends the m2m.CallbackMessage that tells of c, its members in
// the order of that type. It is written by hand since a listener may get many
// thousands of them a second; identifiers, SKUs and account names were checked
// when they were made and hold nothing to escape.
func appendMessage(b, opening []byte, c *license.Callback, attempts int) []byte {
	b = append(b, opening...)
	b = append(b, c.Request...)
	b = append(b, `","deviceIds":[{"id":"`...)
	b = append(b, c.Device.ICCID...)
	b = append(b, `","kind":"`+m2m.KindICCID+`"}`...)
	if c.Device.MDN != "" {
		b = append(b, `,{"id":"`...)
		b = append(b, c.Device.MDN...)
		b = append(b, `","kind":"`+m2m.KindMDN+`"}`...)
	}
	if c.Device.IMEI != "" {
		b = append(b, `,{"id":"`...)
		b = append(b, c.Device.IMEI...)
		b = append(b, `","kind":"`+m2m.KindIMEI+`"}`...)
	}
	b = append(b, `],`...)
	if c.OK {
		b = appendSuccess(b, c)
	} else {
		b = appendFault(b, c)
	}
	b = append(b, `,"callbackCount":`...)
	b = strconv.AppendInt(b, int64(c.Attempt)+1, 10)
	b = append(b, `,"maxCallbackThreshold":`...)
	b = strconv.AppendInt(b, int64(attempts), 10)
	return append(b, '}')
}

func appendSuccess(b []byte, c *license.Callback) []byte {
	b = append(b, `"deviceResponse":{"deviceSkuSubscriptionResponse":{"accountName":"`...)
	b = append(b, c.Account...)
	b = append(b, `","skuNumber":"`...)
	b = append(b, c.SKU...)
	b = append(b, `","action":"`...)
	b = append(b, actionName(c.Action)...)
	return append(b, `"}},"comment":"","status":"`+m2m.CallbackSuccess+`"`...)
}

func appendFault(b []byte, c *license.Callback) []byte {
	code, text := fault(c)
	b = append(b, `"faultResponse":{"faultcode":`...)
	b = appendString(b, code)
	b = append(b, `,"faultstring":`...)
	b = appendString(b, text)
	b = append(b, `},"comment":`...)
	if c.Comment != "" {
		text = c.Comment
	}
	b = appendString(b, text)
	return append(b, `,"status":"`+m2m.CallbackFailed+`"`...)
}

// fault is the faultcode and faultstring of a refusal (behaviour.md 3 and 7).
func fault(c *license.Callback) (code, text string) {
	if c.Code == license.CodeAlreadyLicensed {
		return m2m.ErrAlreadyLicensed.Code, m2m.ErrAlreadyLicensed.Message
	}
	// A code of the carrier's own is for the operator; clients know this one.
	code, text = m2m.CodeCarrierRequestUnsuccessful, c.Comment
	if text == "" {
		text = "REQUEST_FAILED: The carrier refused the request."
	}
	return code, text
}

func actionName(a license.Action) string {
	if a == license.Unassign {
		return "Unassign"
	}
	return "Assign"
}

// appendString appends s as a JSON string. What is not UTF-8 in it, which only a
// carrier's own words could bring, becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // reports only the replacement described above
	return b
}
