package recipe

// listen registers a listener that is always there.
func listen() string {
	return post("/callbacks/"+account, `{"name": "CarrierService", "url": "http://inbox.simlatch.test/"}`)
}

// refusals are those of the carrier, which come after the request was accepted.
func refusals() []Recipe {
	// expect waits for a SIM's callbacks.
	expect := func(iccid, count string) string {
		return curl("/sandbox/v1/expect", data(`{"match": {"iccid": "`+iccid+`"}, "count": `+count+`, "within": "1m"}`))
	}
	const (
		blocked     = "8999900010000000001"
		licensed    = "8999900020000000001"
		unreachable = "8999900030000000001"
		wordy       = "8999900040000000001"
	)
	return []Recipe{
		{
			Title: "The carrier has a license on the SIM already", Place: InCallback, Status: 200,
			Code:    "REQUEST_FAILED.CarrierRequestUnsuccessful",
			Message: "REQUEST FAILED: Device already has license assigned.",
			Reason:  "The reference documents it. The records here know of no license on the SIM; the carrier does: it was assigned elsewhere. The license that was reserved is available again. SIMs that begin with `899990002` meet it always.",
			Shell:   steps(listen(), post(assign, order("SIMSec-IoT", licensed)), expect(licensed, "1")),
			Again:   Depends,
			Client:  "Not by itself: someone must find out where that license comes from. Only when the carrier has taken it back does the same request succeed.",
		},
		{
			Title: "The carrier refuses to assign", Place: InCallback, Status: 200,
			Code:    "UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful",
			Message: "REQUEST_FAILED: The SIM is blocked.",
			Reason:  "The carrier's own words are the `faultstring`; they are not for programs. The license that was reserved is available again. SIMs that begin with `899990001` meet it always.",
			Shell:   steps(listen(), post(assign, order("SIMSec-IoT", blocked)), expect(blocked, "1")),
			Again:   Depends,
			Client:  "Show the words to a person. A new request, with a new `Idempotency-Key`, is right once the reason is gone.",
		},
		{
			Title: "The carrier refuses to unassign", Place: InCallback, Status: 200,
			Code:    "UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful",
			Message: "REQUEST_FAILED: The SIM cannot be reached.",
			Reason:  "The SIM keeps its license, and the pool does not get it back. SIMs that begin with `899990003` are assigned one and do not give it back.",
			Shell: steps(listen(), post(assign, order("SIMSec-IoT", unreachable)), expect(unreachable, "1"),
				send("DELETE", assign, order("SIMSec-IoT", unreachable)), expect(unreachable, "2")),
			Again:  Depends,
			Client: "Count the license as assigned still. Make a new request later, with a new `Idempotency-Key`.",
		},
		{
			Title: "The carrier's words need escaping", Place: InCallback, Status: 200,
			Code:    "UnifiedWebService.REQUEST_FAILED.CarrierRequestUnsuccessful",
			Message: "<b>\"HLR\" says: \\ñ✗&</b>\n",
			Reason:  "The carrier's words are passed on as they are, and may hold anything. SIMs that begin with `899990004` are refused like this, to assign and to unassign.",
			Shell:   steps(listen(), post(assign, order("SIMSec-IoT", wordy)), expect(wordy, "1")),
			Again:   Depends,
			Client:  "Read callbacks with a JSON parser, escape `faultstring` before it is shown, and match nothing against it.",
		},
	}
}

// silences are what never comes.
func silences() []Recipe {
	const (
		silent = "8999900130000000001"
		lost   = "8999900210000000001"
	)
	status := get("/accounts/" + account + "/requests/$REQUEST/status")
	return []Recipe{
		{
			Title: "The carrier never answers", Place: Nowhere, Status: 200,
			Shows:  `"status":"Pending"`,
			Reason: "The request stays `Pending` and the license reserved: nobody knows whether the SIM has it. After a day it is given up on and *stuck*, until an operator who has asked the carrier says what came of it (`simlatch stuck`). SIMs that begin with `899990013` meet it always.",
			Shell: steps(keep("REQUEST", "requestId", post(assign, order("SIMSec-IoT", silent))),
				control("/clock", `{"advance": "25h"}`), status),
			Again:  No,
			Client: "Do not assign again: the SIM is [refused](#a-device-has-a-license-already) as long. Tell the operator when a request is older than your patience, and take the outcome from the callback, whenever it comes.",
		},
		{
			Title: "The callback never arrives", Place: Nowhere, Status: 200,
			Shows:  `"status":"Success"`,
			Reason: "All attempts failed: four, five minutes from the end of one to the next. The license is assigned all the same. The message is kept for 30 days, in which an operator can have it sent again (`simlatch callback send`). The callbacks of SIMs that begin with `899990021` are lost always.",
			Shell: steps(listen(), keep("REQUEST", "requestId", post(assign, order("SIMSec-IoT", lost))),
				control("/clock", `{"advance": "20m"}`), status),
			Again:  No,
			Client: "Ask for the status of a request whose callbacks have not all come after 20 minutes, and for `Failure` ask the operator which devices failed.",
		},
	}
}
