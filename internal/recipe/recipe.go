// Package recipe is the table of every error that the API gives: what it means,
// the commands that bring it about in a sandbox, and what a client should do then.
// docs/errors.md is written from it, a sandbox serves it, and a test of package
// server runs each recipe.
//
// Codes and messages are written out here once more, on purpose: the table says
// what is promised, and the test holds the service against it.
package recipe

//go:generate go run ../../tools/errordoc ../../docs/errors.md

import (
	"slices"
	"strings"
)

// Server is where the commands look for the sandbox: what "simlatch sandbox"
// listens on when it is told nothing.
const Server = "http://127.0.0.1:8080"

// Place is where a client meets an error.
type Place string

// The places.
const (
	InAnswer   Place = "answer"   // of HTTP, with errorCode and errorMessage
	InCallback Place = "callback" // with faultcode and faultstring, for one device
	Nowhere    Place = "nowhere"  // what was to come does not, and nothing says so
)

// Again says whether the same call may be made again.
type Again string

// The answers to that.
const (
	No         Again = "no"
	Correct    Again = "no: correct it first"
	NewToken   Again = "yes, with a new token"
	NewSession Again = "yes, in a new session"
	Later      Again = "yes, later"
	Same       Again = "yes, with the same key"
	Depends    Again = "it depends: see there"
)

// Recipe is one error.
type Recipe struct {
	Title   string `json:"title"`
	Place   Place  `json:"place"`
	Status  int    `json:"status"`            // of HTTP: of the error, or of the answer that shows it
	Code    string `json:"code,omitempty"`    // errorCode or faultcode
	Message string `json:"message,omitempty"` // errorMessage or faultstring
	Shows   string `json:"shows,omitempty"`   // Nowhere: what stands in the last answer
	Reason  string `json:"reason"`            // why it is given
	Shell   string `json:"shell"`             // the commands, the last of which shows it
	Again   Again  `json:"again"`
	Client  string `json:"client"` // what a client should do
}

// Chapter is the errors of one matter.
type Chapter struct {
	Title string `json:"title"`
	About string `json:"about"`
	// Strict says that its recipes need a sandbox that is not lenient: one that
	// looks at session tokens and passwords.
	Strict  bool     `json:"strict,omitempty"`
	Recipes []Recipe `json:"recipes"`
}

// Chapters is the table.
func Chapters() []Chapter {
	list := []Chapter{
		{Title: "Licenses: the reference's table", Recipes: documented, About: "The errors that the reference documents for assign and unassign, to the letter. Its code alone does not tell some of them apart: compare the message too. One more of its rows comes [in a callback](#refused-by-the-carrier). What is refused here is refused as a whole: no device of the request was changed and no license reserved."},
		{Title: "Licenses: beyond that table", Recipes: licenses, About: "What the reference leaves open. Here too the whole request is refused and nothing has changed."},
		{Title: "Refused by the carrier", Recipes: refusals(), About: "The request was accepted with 200 and a `requestId`, and one license was reserved for each of its devices. Then the carrier was asked. What it refuses is told in the callback of that device, in `faultResponse`; the other devices of the request are not touched by it. `http://inbox.simlatch.test/` is a listener that is always there in a sandbox; what it got stands in the answer to the last command, as `sent`."},
		{Title: "What never comes", Recipes: silences(), About: "Here too the request was accepted. No error says that nothing comes of it: the client must notice."},
		{Title: "Accounts and requests", Recipes: accounts},
		{Title: "Callback listeners", Recipes: listeners()},
		{Title: "Device lists", Recipes: deviceLists},
		{Title: "Bearer tokens", Recipes: bearers(), About: "A gateway stands before the reference's platform; its errors have a `fault` beside `errorCode` and `errorMessage`."},
		{Title: "The token endpoints", Recipes: applications(), About: "Their errors have `error` and `error_description` of RFC 6749 beside `errorCode` and `errorMessage`."},
		{Title: "Sessions", Recipes: sessions(), Strict: true},
		{Title: "Users", Recipes: users(), Strict: true},
		{Title: "Bodies", Recipes: bodies},
		{Title: "Paths, methods and HTTP itself", Recipes: transport()},
		{Title: "Load, outages and our own faults", Recipes: plights(), About: "These say nothing about the request. A sandbox gives them when it is told to. With `\"after\": true` in the fault's `then` the work is done and only its answer is lost, which is what `Idempotency-Key` is for."},
	}
	for i := range list {
		list[i].Recipes = slices.Clone(list[i].Recipes) // the caller's
		for j := range list[i].Recipes {
			if r := &list[i].Recipes[j]; r.Place == "" {
				r.Place = InAnswer
			}
		}
	}
	return list
}

// All is the recipes of all chapters.
func All() (list []Recipe) {
	for _, c := range Chapters() {
		list = slices.Concat(list, c.Recipes)
	}
	return list
}

// What the commands are made of.
const (
	account = "0000123456-00001"
	assign  = "/devices/license/actions/assign"
	pools   = "/accounts/subscriptions/actions/list"
	devices = "/devices/actions/list"
	login   = "/session/login"

	bearer = "Authorization: Bearer test-token"
	asJSON = "Content-Type: application/json"

	sim1, imei1 = "89148000000000000012", "490154203237518"
	sim2, imei2 = "89148000000000000020", "490154203237526"
	sim3        = "89148000000000000035"
	sim4        = "89148000000000000043"
	suspended   = "89148000000000000811"
	sim3G       = "89148000000000000829"
)

// steps are commands one after another.
func steps(commands ...string) string { return strings.Join(commands, "\n") }

// curl calls a path of the API with arguments, each on a line of its own.
func curl(path string, arguments ...string) string {
	return strings.Join(append([]string{"curl -i " + Server + path}, arguments...), " \\\n  ")
}

// header and data are arguments of curl. What they quote has no single quote.
func header(h string) string { return "-H '" + h + "'" }

func data(body string) string { return "-d '" + body + "'" }

// post makes a call with the test token and a JSON body.
func post(path, body string, headers ...string) string {
	return send("", path, body, headers...)
}

// send is post by another method.
func send(method, path, body string, headers ...string) string {
	arguments := []string{header(bearer), header(asJSON)}
	for _, h := range headers {
		arguments = append(arguments, header(h))
	}
	if method != "" {
		arguments[0] = "-X " + method + " " + arguments[0]
	}
	return curl("/api/m2m/v1"+path, append(arguments, data(body))...)
}

// keep is a command that keeps a member of an answer of post or send in a variable.
func keep(variable, member, call string) string {
	return variable + "=$(" + strings.Replace(call, "curl -i", "curl -s", 1) +
		" |\n  sed 's/.*\"" + member + "\":\"\\([^\"]*\\)\".*/\\1/')"
}

// get makes a call with the test token, without a body.
func get(path string) string { return curl("/api/m2m/v1"+path, header(bearer)) }

// control makes a call of the sandbox's own.
func control(path, body string) string {
	return "curl " + Server + "/sandbox/v1" + path + " " + data(body)
}

// order is the body of assign and unassign, with SIMs by their ICCIDs.
func order(sku string, iccids ...string) string {
	var named []string
	for _, id := range iccids {
		named = append(named, `{"deviceIds": [{"kind": "iccid", "id": "`+id+`"}]}`)
	}
	return orderOf(sku, strings.Join(named, ",\n                "))
}

// orderOf is the body of assign and unassign, with devices as JSON.
func orderOf(sku, devices string) string {
	return `{"accountName": "` + account + `", "skuNumber": "` + sku + "\",\n    \"devices\": [" + devices + `]}`
}
