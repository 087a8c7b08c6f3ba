// Package exchange holds the recorded exchanges: what a client sends, what the
// server must answer and which callbacks must come, one scenario a file. They
// are a test of this server, the documentation of the API by example, and a kit
// that can be pointed at any other server that speaks the same API. For that
// reason the package imports nothing of ours: what it knows of the API stands
// in the files, written from behaviour.md and thingspace-api.md.
//
// # Files
//
// A file is a txtar archive. Its comment begins with a title, one line, then
// says what the scenario shows; lines of these forms anywhere in it are
// directives:
//
//	source: behaviour.md 7; thingspace-api.md 1.5    where it is said (always)
//	needs: callbacks refusal                         what the host must offer, see Need
//	user: two                                        who is logged in (user)
//	application: other                               by which application (app)
//	listens: account [username password]             register a listener first
//
// Steps follow, each a request, a response and perhaps callbacks:
//
//	-- request: a label --
//	POST /api/m2m/v1/devices/license/actions/assign
//	X-Request-ID: anything
//
//	{"accountName": "${account}", "skuNumber": "SIMSec-IoT", "devices": [${devices d1}]}
//	-- response --
//	200
//	X-Request-ID: anything
//
//	{"requestId": "<uuid as requestId>"}
//	-- callback each=d1 --
//	{"requestId": "${requestId}", "deviceIds": "<any>", ...}
//
// # Requests
//
// The runner adds what nearly every request needs: Authorization and
// VZ-M2M-Token of the exchange's application and user, and the content type of
// a body. A token endpoint gets Basic credentials and a form instead, a login no
// session. A header in the file takes the place of the automatic one; the line
// "!Name" leaves it out. Headers are sent as they are spelled and as often as
// they stand there. The options "chunked" (a body of unannounced length) and
// "hex" (a body of arbitrary bytes) stand before the label: "-- request
// chunked: a label --".
//
// # Variables
//
// ${name} is replaced in requests, responses and callbacks. The names come from
// the seed (see Variables), from a table of cases, and from placeholders that
// captured a value. ${name+2} and ${name-2} calculate. These are made on the
// spot:
//
//	${devices d1 d2}     the JSON of devices of the seed, IMEI and ICCID of each
//	${made 10001}        the JSON of so many devices that nobody has
//	${repeat 40 [}       a text, so many times
//	${plain account}     a variable without its hyphens
//	${base64 a:b}        for Basic credentials; variables are replaced within it
//	${bearer} ${session} ${listener}
//
// # Responses
//
// The status stands on the first line, then headers that must be there
// ("!Name": must not), then the body. JSON is compared by value: an extra
// member is a difference unless the object has "..." among its members, as in
// {"requestId": "<uuid>", ...}; in an array "..." lets further elements stand
// anywhere. A string in angle brackets is a placeholder:
//
//	<any> <string> <text> <bool> <array> <object>    text is a string that is not empty
//	<int> <int 1..3600>                              a number without a fraction
//	<uuid> <uuid4> <time>                            time is one of RFC 3339
//	<contains WORDS> <matches REGEXP>                of a string
//	<atmost N>                                       a string of at most N characters
//	<set A B>                                        a list with commas, in any order
//
// and keeps the value as a variable with "as": "<uuid as requestId>". The option
// "eventually" repeats the request until the answer fits or patience ends.
//
// Beyond what a file says, every answer must have a body, of JSON without
// duplicate members, and every error the strings errorCode and errorMessage in
// less than 8 KiB.
//
// # Callbacks
//
// "-- callback --" expects one message, "times=2" two, "each=d1,d2" one for each
// device, whose identifiers are ${device.iccid}, ${device.imei} and
// ${device.mdn}. Header lines and a blank line may stand before the JSON.
// Callbacks of a step may come in any order. Where an exchange expects any for a
// request, those it does not expect are differences. "-- no callback --" waits a
// little to see that none comes. "-- listener 503 200 --" before a step has the
// listener answer the first message about each device with 503 and later ones
// with 200.
//
// # Results
//
// A result holds what was sent, expected and received, whole but for very long
// messages. Secrets are masked in it: those of the seed and the tokens in answers
// wherever they stand, and what stands where a secret does.
//
// # Cases
//
// The steps between "-- cases --" and "-- end cases --", or the end of the file,
// are run once for each row of a table. Its first line names the columns, which
// a | separates.
package exchange
