package recipe

import "strings"

var accounts = []Recipe{
	{
		Title: "No account named", Status: 400,
		Code:    "UnifiedWebService.REQUEST_FAILED.MultipleAccounts",
		Message: "accountName is required: the user has access to more than one account.",
		Reason:  "`accountName` may be left out only by a user of one account.",
		Shell:   post(pools, `{"skuNumber": "SIMSec-IoT"}`),
		Again:   Correct,
		Client:  "Name the account, always: the user may be given a second one.",
	},
	{
		Title: "An unknown account", Status: 400,
		Code:    "UnifiedWebService.REQUEST_FAILED.AccountNotFound",
		Message: "The account was not found.",
		Reason:  "There is no such account, or it is not one of the user's: the two are never told apart. Leading zeros are part of the name; hyphens are not.",
		Shell:   post(pools, `{"accountName": "0000999999-00001", "skuNumber": "SIMSec-IoT"}`),
		Again:   Correct,
		Client:  "Correct the name, or have the user given access.",
	},
	{
		Title: "An unknown request", Status: 400,
		Code:    "UnifiedWebService.REQUEST_FAILED.RequestNotFound",
		Message: "The request was not found.",
		Reason:  "There is no request of that id, or it is another account's.",
		Shell:   get("/accounts/" + account + "/requests/c3f3d17c-79ff-4b35-82df-94446785b6e0/status"),
		Again:   Correct,
		Client:  "Keep the `requestId` with the account it was given for.",
	},
}

func listeners() []Recipe {
	const path = "/callbacks/" + account
	return []Recipe{
		{
			Title: "An unknown service", Status: 400,
			Code:    "UnifiedWebService.INPUT_INVALID.CallbackService.Invalid",
			Message: `The callback service "Carrier" is not valid: there is no such service.`,
			Reason:  "`name` is none of the reference's services. The one that tells of licenses is `CarrierService`.",
			Shell:   post(path, `{"name": "Carrier", "url": "http://inbox.simlatch.test/"}`),
			Again:   Correct,
			Client:  "Correct the name. A listener that was there before still is.",
		},
		{
			Title: "An unusable URL", Status: 400,
			Code:    "UnifiedWebService.INPUT_INVALID.CallbackUrl.Invalid",
			Message: `The callback URL "ftp://example.com/" is not valid: it must begin with http:// or https://.`,
			Reason:  "The URL is absent, not of HTTP, has a user name or a fragment, no host, a port out of range, over 2,048 characters, or an address that callbacks are not sent to; the message says which. `simlatch serve` refuses private and loopback addresses unless `--callback-allow` has them; a sandbox takes any.",
			Shell:   post(path, `{"name": "CarrierService", "url": "ftp://example.com/"}`),
			Again:   Correct,
			Client:  "Correct the URL. A listener that was there before still is, with its old URL.",
		},
		{
			Title: "An address that is never called", Status: 400,
			Code:    "UnifiedWebService.INPUT_INVALID.CallbackUrl.Invalid",
			Message: `The callback URL "http://169.254.169.254/" is not valid: callbacks are never sent to 169.254.169.254: it is link-local, of a metadata service, or no host's address.`,
			Reason:  "At such addresses clouds give out credentials. No `--callback-allow` allows them, and no sandbox does.",
			Shell:   post(path, `{"name": "CarrierService", "url": "http://169.254.169.254/"}`),
			Again:   Correct,
			Client:  "Give the listener an address of its own.",
		},
		{
			Title: "Credentials that are too long", Status: 400,
			Code:    "UnifiedWebService.INPUT_INVALID.CallbackCredentials.Invalid",
			Message: "The callback credentials are not valid: a user name or password has at most 40 characters.",
			Reason:  "They come with each callback, in its body.",
			Shell: post(path, `{"name": "CarrierService", "url": "http://inbox.simlatch.test/",
    "username": "me", "password": "`+strings.Repeat("x", 41)+`"}`),
			Again:  Correct,
			Client: "Choose shorter ones, without control characters; they need not be those of anything else.",
		},
		{
			Title: "No such listener", Status: 400,
			Code:    "UnifiedWebService.REQUEST_FAILED.CallbackNotRegistered",
			Message: `No listener is registered for the service "CarrierService".`,
			Reason:  "What is to be taken away is not there.",
			Shell:   curl("/api/m2m/v1"+path+"/name/CarrierService", "-X DELETE "+header(bearer)),
			Again:   No,
			Client:  "Nothing: it is as it was meant to be. To change a listener, register it again, which replaces it in one step; take none away before.",
		},
	}
}

var deviceLists = []Recipe{
	{
		Title: "A filter that makes no sense", Status: 400,
		Code:    "UnifiedWebService.INPUT_INVALID.Filter.Invalid",
		Message: `earliest: "yesterday" is not a date and time of RFC 3339, such as 2026-01-31T12:00:00Z.`,
		Reason:  "The message begins with the member that is wrong.",
		Shell:   post(devices, `{"accountName": "`+account+`", "earliest": "yesterday"}`),
		Again:   Correct,
		Client:  "Correct that member.",
	},
	{
		Title: "A filter by what is not kept", Status: 400,
		Code:    "UnifiedWebService.INPUT_INVALID.Filter.NotSupported",
		Message: "Devices cannot be selected by servicePlan: service plans are not kept here.",
		Reason:  "A filter that was ignored would list devices that were not asked for. The others are `customFields`, and groups and carriers other than the one there is.",
		Shell:   post(devices, `{"accountName": "`+account+`", "servicePlan": "M2M5GB"}`),
		Again:   Correct,
		Client:  "Leave that member out, and select in the client.",
	},
	{
		Title: "An unknown state", Status: 400,
		Code:    "UnifiedWebService.INPUT_INVALID.DeviceState.Invalid",
		Message: `The device state "asleep" is not valid: a state is active, suspend, deactive or pre-active.`,
		Reason:  "`currentState` is none of a SIM's states.",
		Shell:   post(devices, `{"accountName": "`+account+`", "currentState": "asleep"}`),
		Again:   Correct,
		Client:  "Name one of those in the message.",
	},
}

// unreadable is the code of what is no JSON, or not that which is wanted.
const unreadable = "UnifiedWebService.DeserializationFailed"

var bodies = []Recipe{
	{
		Title: "An empty body", Status: 400,
		Code:    "UnifiedWebService.INPUT_INVALID.RequestUndefined",
		Message: "Request cannot be blank. Please provide request details.",
		Reason:  "The body is empty or `null`. Several client libraries unassign by a DELETE without a body, and proxies drop that of a DELETE: nothing is known then of what to unassign.",
		Shell:   send("DELETE", assign, ""),
		Again:   Correct,
		Client:  "Send the body with the DELETE, or use `POST /devices/license/actions/unassign`, which is the same.",
	},
	{
		Title: "Broken JSON", Status: 400, Code: unreadable,
		Message: "The request could not be read: unexpected end at byte 34.",
		Reason:  "The body is no JSON. The message says where, in bytes from the start.",
		Shell:   post(assign, `{"accountName": "`+account+`"`),
		Again:   Correct,
		Client:  "Have a JSON library write the body.",
	},
	{
		Title: "A wrong type", Status: 400, Code: unreadable,
		Message: `The request could not be read: expected a string at "/devices/0/deviceIds/0/id", byte 138.`,
		Reason:  "A member has another type than the documented one: here a number for an ICCID, which most languages would have rounded.",
		Shell:   post(assign, orderOf("SIMSec-IoT", `{"deviceIds": [{"kind": "iccid", "id": `+sim1+`}]}`)),
		Again:   Correct,
		Client:  "Keep identifiers as strings.",
	},
	{
		Title: "A member twice", Status: 400, Code: unreadable,
		Message: `The request could not be read: duplicate member at "/skuNumber", byte 63.`,
		Reason:  "Programs do not agree on which of the two counts, and a lifetime license is for ever.",
		Shell:   post(assign, `{"accountName": "`+account+`", "skuNumber": "SIMSec-IoT", "skuNumber": "SIMSec-IoT-Lt"}`),
		Again:   Correct,
		Client:  "Name each member once.",
	},
	{
		Title: "Bytes that are not UTF-8", Status: 400, Code: unreadable,
		Message: `The request could not be read: invalid UTF-8 at "/accountName", byte 17.`,
		Reason:  "JSON is UTF-8; this is Latin-1.",
		Shell: `printf '{"accountName": "\344"}' |
` + curl("/api/m2m/v1"+pools, header(bearer), header(asJSON), "-d @-"),
		Again:  Correct,
		Client: "Encode the body as UTF-8.",
	},
	{
		Title: "Another media type", Status: 415,
		Code:    "UnifiedWebService.INPUT_INVALID.ContentType.Invalid",
		Message: `The Content-Type "application/x-www-form-urlencoded" is not supported; send application/json.`,
		Reason:  "`Content-Type` may be left out; where it stands it must be right, in UTF-8. `curl -d` sends this one unless it is told otherwise.",
		Shell:   curl("/api/m2m/v1"+pools, header(bearer), data(`{"accountName": "`+account+`"}`)),
		Again:   Correct,
		Client:  "Send `application/json`, or to the token endpoints `application/x-www-form-urlencoded`.",
	},
	{
		Title: "A compressed body", Status: 415,
		Code:    "UnifiedWebService.INPUT_INVALID.ContentEncoding.Invalid",
		Message: "A Content-Encoding is not supported; send the body as it is.",
		Reason:  "A small body could stand for a huge one.",
		Shell: `echo '{"accountName": "` + account + `"}' | gzip |
` + curl("/api/m2m/v1"+pools, header(bearer), header(asJSON), header("Content-Encoding: gzip"), "--data-binary @-"),
		Again:  Correct,
		Client: "Switch compression off.",
	},
	{
		Title: "A body that is too large", Status: 413,
		Code:    "UnifiedWebService.INPUT_INVALID.Request.TooLarge",
		Message: "The body is larger than 8388608 bytes.",
		Reason:  "The limit is 8 MiB. The connection is closed.",
		Shell: `head -c 9000000 /dev/zero | tr '\0' ' ' |
` + curl("/api/m2m/v1"+assign, header(bearer), header(asJSON), "--data-binary @-"),
		Again:  Correct,
		Client: "Make several requests; 10,000 devices take about 1 MB.",
	},
	{
		Title: "A body that does not come", Status: 408,
		Code:    "UnifiedWebService.REQUEST_FAILED.RequestTimeout",
		Message: "The body did not arrive in time.",
		Reason:  "The body took over 20 seconds of real time: here two of a hundred bytes come. The connection is closed.",
		Shell:   curl("/api/m2m/v1"+assign, header(bearer), header(asJSON), header("Content-Length: 100"), data("{}")),
		Again:   Later,
		Client:  "Try again: the request was not read, and nothing was done. When it happens often, the network or a proxy on the way is too slow.",
	},
}
