package recipe

// transport are the errors of what is no call of the API.
func transport() []Recipe {
	const malformed = "UnifiedWebService.INPUT_INVALID.Request.Malformed"
	return []Recipe{
		{
			Title: "An unknown path", Status: 404,
			Code:    "UnifiedWebService.REQUEST_FAILED.ResourceNotFound",
			Message: "No matching resource found in the API for the given request",
			Reason:  "There is nothing at that path. One that is not clean (`//`, a slash at the end) is another path; there are no redirects, which would lose a body. `fault.code` is 900906.",
			Shell:   get("/accounts/" + account + "/licenses"),
			Again:   Correct,
			Client:  "Correct the path. That of licenses has \"license\" in the singular or the plural.",
		},
		{
			Title: "Another method", Status: 405,
			Code:    "UnifiedWebService.INPUT_INVALID.Method.NotAllowed",
			Message: `The method "GET" is not allowed here; allowed: DELETE, POST.`,
			Reason:  "The path is right. The header `Allow` has the methods too.",
			Shell:   get(assign),
			Again:   Correct,
			Client:  "Correct the method. What follows redirects may have made a GET of a POST.",
		},
		{
			Title: "What is no HTTP", Status: 400, Code: malformed,
			Message: "The request is not valid HTTP/1.1.",
			Reason:  "It never reached the API: a broken header, an unknown version or transfer encoding, or plain HTTP sent to a TLS port.",
			Shell:   curl("/api/m2m/v1"+pools, header("Transfer-Encoding: pigeon"), data("{}")),
			Again:   Correct,
			Client:  "Use an HTTP library, and check the port. A proxy may be the culprit.",
		},
		{
			Title: "Headers that are too large", Status: 431, Code: malformed,
			Message: "The headers of the request are too large.",
			Reason:  "They may have 64 KiB together.",
			Shell:   curl("/api/m2m/v1"+pools, header(bearer), `-H "X-Notes: $(printf '%070000d' 0)"`, data("{}")),
			Again:   Correct,
			Client:  "Send what is long in the body.",
		},
		{
			Title: "An unknown expectation", Status: 417, Code: malformed,
			Message: "The expectation of the request is not known.",
			Reason:  "HTTP knows `Expect: 100-continue`, and no other.",
			Shell:   curl("/api/m2m/v1"+pools, header(bearer), header("Expect: miracles"), data("{}")),
			Again:   Correct,
			Client:  "Leave the header out.",
		},
	}
}

// plights are the errors that are not of the client's making.
func plights() []Recipe {
	// fault has the sandbox answer the next call with a status.
	fault := func(then string) string {
		return control("/faults", `{"on": "api", "times": 1, "then": {"do": "answer", `+then+`}}`)
	}
	once := post(assign, order("SIMSec-IoT", sim1), "Idempotency-Key: order-20")
	return []Recipe{
		{
			Title: "Too many calls", Status: 429,
			Code:    "UnifiedWebService.REQUEST_FAILED.TooManyRequests",
			Message: "The application has made too many calls.",
			Reason:  "The application is over the limit of `--rate-limit`, which is off by default. `Retry-After` says how long. `simlatch sandbox --rate-limit 1` gives it without a fault.",
			Shell:   steps(fault(`"status": 429, "retryAfter": "7s"`), post(pools, somePool)),
			Again:   Later,
			Client:  "Wait for `Retry-After`, then repeat the call: it was not begun. All of an application share the limit, so slow down all.",
		},
		{
			Title: "Out of reach", Status: 503,
			Code:    "UnifiedWebService.REQUEST_FAILED.ServiceUnavailable",
			Message: "The service is not available for the moment. Please try again.",
			Reason:  "The database is out of reach, this node is going down, or it has as many calls as it takes at once (`--max-calls`). `Retry-After` says how long to wait.",
			Shell:   steps(fault(`"status": 503, "retryAfter": "5s"`), post(assign, order("SIMSec-IoT", sim1), "Idempotency-Key: order-18")),
			Again:   Same,
			Client:  "Wait for `Retry-After`, then longer each time, and repeat the call. Whether it was done is not known: assign and unassign are safe to repeat with the same `Idempotency-Key` and body, and with nothing else.",
		},
		{
			Title: "Our own fault", Status: 500,
			Code:    "UnifiedWebService.REQUEST_FAILED.UnexpectedError",
			Message: "Unexpected error occurred. Could not complete request. Correlation id: call-19",
			Reason:  "A bug of the service. The correlation id is the `X-Request-ID` of the call, or one that was made for it, and stands in the log of the service.",
			Shell:   steps(fault(`"status": 500`), post(assign, order("SIMSec-IoT", sim1), "X-Request-ID: call-19", "Idempotency-Key: order-19")),
			Again:   Same,
			Client:  "Once or twice, after a while, with the same `Idempotency-Key` and body; then stop, and report the correlation id. Whether it was done is not known.",
		},
		{
			Title: "No answer at all", Place: Nowhere, Status: 200,
			Shows:  `"requestId"`,
			Reason: "The connection breaks, or nothing comes within the client's patience. Here the work is done and its answer is lost; the second call gets it.",
			Shell:  steps(control("/faults", `{"on": "api", "times": 1, "then": {"do": "break", "after": true}}`), once, once),
			Again:  Same,
			Client: "Repeat it with the same `Idempotency-Key` and body: what was done is not done twice, and the first answer comes again.",
		},
	}
}
