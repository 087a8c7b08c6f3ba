package recipe

// What the commands about access are made of.
const (
	unauthorized = "UnifiedWebService.REQUEST_FAILED.Authorization"
	token        = "/api/ts/v1/oauth2/token"
	client       = "-u demo-key:demo-secret"
	grant        = "-d grant_type=client_credentials"
	somePool     = `{"accountName": "` + account + `"}`
)

// bearers are the errors of the gateway.
func bearers() []Recipe {
	body := data(somePool)
	return []Recipe{
		{
			Title: "No bearer token", Status: 401, Code: unauthorized, Message: "Missing Credentials",
			Reason: "There is no `Authorization` header, or one of another scheme. `fault.code` is 900902.",
			Shell:  curl("/api/m2m/v1"+pools, header(asJSON), body),
			Again:  NewToken,
			Client: "Get a token from `/api/ts/v1/oauth2/token`, and send it with each call, the login too.",
		},
		{
			Title: "A wrong bearer token", Status: 401, Code: unauthorized, Message: "Invalid Credentials",
			Reason: "The token is unknown, was revoked, or is older than an hour. `fault.code` is 900901.",
			Shell: steps(keep("TOKEN", "access_token", curl(token, client, grant)),
				control("/clock", `{"advance": "1h"}`),
				curl("/api/m2m/v1"+pools, `-H "Authorization: Bearer $TOKEN"`, header(asJSON), body)),
			Again:  NewToken,
			Client: "Get a new token and repeat the call once; the session goes on with the new token. If that is refused too, the application is gone: stop.",
		},
		{
			Title: "Two bearer tokens", Status: 401, Code: unauthorized, Message: "Invalid Credentials",
			Reason: "There are two `Authorization` headers, or a token stands in the query, which logs keep. Programs do not agree on which one counts.",
			Shell:  curl("/api/m2m/v1"+pools, header(bearer), header(bearer), header(asJSON), body),
			Again:  Correct,
			Client: "Send one header; a proxy may be adding its own.",
		},
	}
}

// applications are the errors of the token endpoints.
func applications() []Recipe {
	const request = "UnifiedWebService.INPUT_INVALID.TokenRequest.Invalid"
	return []Recipe{
		{
			Title: "No application", Status: 401, Code: unauthorized, Message: "Missing Credentials",
			Reason: "A token is asked for without key and secret in a Basic `Authorization` header; in the form they are not looked for. `error` is `invalid_client`.",
			Shell:  curl(token, grant),
			Again:  Correct,
			Client: "Send them in the header.",
		},
		{
			Title: "A wrong key or secret", Status: 401, Code: unauthorized, Message: "Invalid Credentials",
			Reason: "The same for an unknown key and a wrong secret. `error` is `invalid_client`.",
			Shell:  curl(token, "-u demo-key:wrong", grant),
			Again:  Correct,
			Client: "Do not try others in turn: that is [slowed](#too-many-wrong-secrets). Have the configuration corrected.",
		},
		{
			Title: "Too many wrong secrets", Status: 429, Code: unauthorized, Message: "Invalid Credentials",
			Reason: "From the sixth failure in a row of one key from one address on, tries within a delay that doubles up to 15 minutes are refused unseen. `Retry-After` says how long; the body is that of a wrong secret.",
			Shell: steps("for i in 1 2 3 4 5; do\n  curl "+Server+token+" -u demo-key:wrong "+grant+"\ndone",
				curl(token, "-u demo-key:wrong", grant), curl(token, client, grant)),
			Again:  Later,
			Client: "Stop, and have the configuration corrected; wait for `Retry-After` before the next try. Tokens that were given out are good still.",
		},
		{
			Title: "No grant type", Status: 400, Code: request, Message: "Missing grant_type parameter value",
			Reason: "The form has no `grant_type`.",
			Shell:  curl(token, client, "-d scope="),
			Again:  Correct,
			Client: "Send `grant_type=client_credentials`, as a form.",
		},
		{
			Title: "Another grant type", Status: 400, Code: request, Message: "Unsupported grant_type value",
			Reason: "There is one: `client_credentials`.",
			Shell:  curl(token, client, "-d grant_type=password"),
			Again:  Correct,
			Client: "Send that one.",
		},
		{
			Title: "A scope that is none", Status: 400, Code: request, Message: "The scope is not valid.",
			Reason: "A scope has no quotes, backslashes or control characters (RFC 6749). `error` is `invalid_scope`.",
			Shell:  curl(token, client, grant, `--data-urlencode 'scope="all"'`),
			Again:  Correct,
			Client: "Leave it out: scopes mean nothing here.",
		},
		{
			Title: "Nothing to revoke", Status: 400, Code: request, Message: "Missing token parameter value",
			Reason: "The form has no `token`.",
			Shell:  curl("/api/ts/v1/oauth2/revoke", client, "-d token="),
			Again:  Correct,
			Client: "Name the token. An application has one at a time: all who use it lose it.",
		},
	}
}

// open logs in and keeps the session's token; within makes a call of that session.
func open(user string) string {
	return keep("SESSION", "sessionToken", post(login, `{"username": "`+user+`", "password": "`+user+`-password"}`))
}

func within(path, body string) string {
	return curl("/api/m2m/v1"+path, header(bearer), `-H "VZ-M2M-Token: $SESSION"`, header(asJSON), data(body))
}

// sessions are the errors of session tokens.
func sessions() []Recipe {
	const invalid = "UnifiedWebService.INPUT_INVALID.SessionToken.Invalid"
	body := data(somePool)
	return []Recipe{
		{
			Title: "No session token", Status: 400, Code: invalid,
			Message: "The header VZ-M2M-Token is required.",
			Reason:  "All calls but the login need a session beside the bearer token.",
			Shell:   curl("/api/m2m/v1"+pools, header(bearer), header(asJSON), body),
			Again:   NewSession,
			Client:  "Log in, and send the `sessionToken` of the answer in that header.",
		},
		{
			Title: "A session token that is none", Status: 400, Code: invalid,
			Message: "The session token is not a valid GUID.",
			Reason:  "It does not have the form of one; it may have been cut.",
			Shell:   curl("/api/m2m/v1"+pools, header(bearer), header("VZ-M2M-Token: 17"), header(asJSON), body),
			Again:   NewSession,
			Client:  "Send the token as the login gave it.",
		},
		{
			Title: "Two session tokens", Status: 400, Code: invalid,
			Message: "The session token must be given once, in the header VZ-M2M-Token.",
			Reason:  "There are two, or one stands in the query, which logs keep.",
			Shell: steps(open("demo"), curl("/api/m2m/v1"+pools, header(bearer),
				`-H "VZ-M2M-Token: $SESSION" -H "VZ-M2M-Token: $SESSION"`, header(asJSON), body)),
			Again:  Correct,
			Client: "Send one header.",
		},
		{
			Title: "The session has ended", Status: 400,
			Code:    "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired",
			Message: "The session has expired",
			Reason:  "It was idle for 20 minutes, was logged out, was never known, or is another application's: these are not told apart. The message has no full stop, as the reference's has none.",
			Shell:   steps(open("demo"), control("/clock", `{"advance": "20m"}`), within(pools, somePool)),
			Again:   NewSession,
			Client:  "Log in again and repeat the call once; it was not begun. Keep one session per process: a new login does not end the others.",
		},
	}
}

// users are the errors of logins, and of users.
func users() []Recipe {
	const (
		wrong    = "UnifiedWebService.REQUEST_FAILED.Authentication"
		mistyped = `{"username": "demo", "password": "mistyped"}`
	)
	return []Recipe{
		{
			Title: "A wrong user name or password", Status: 400, Code: wrong,
			Message: "The user name or password is not correct.",
			Reason:  "The same for an unknown name and a wrong password.",
			Shell:   post(login, mistyped),
			Again:   Correct,
			Client:  "Do not try again: that is [slowed](#too-many-wrong-passwords), and on the reference five failures lock the user until support helps. Have the configuration corrected.",
		},
		{
			Title: "Too many wrong passwords", Status: 429, Code: wrong,
			Message: "The user name or password is not correct.",
			Reason:  "From the sixth failure in a row of one name from one address on, tries within a delay that doubles up to 15 minutes are refused unseen, the right password too. `Retry-After` says how long. Other names, other addresses and sessions that are open are not touched.",
			Shell: steps("for i in 1 2 3 4 5; do\n  "+post(login, mistyped)+"\ndone",
				post(login, mistyped), post(login, `{"username": "demo", "password": "demo-password"}`)),
			Again:  Later,
			Client: "Stop, and have the configuration corrected; wait for `Retry-After` before the next try.",
		},
		{
			Title: "A user without accounts", Status: 400,
			Code:    "UnifiedWebService.REQUEST_FAILED.NoAccounts",
			Message: "The user has access to no account.",
			Reason:  "No account is named, and the user has none.",
			Shell: steps(control("/seed", `{"users": [{"username": "new", "password": "new-password", "accounts": []}]}`),
				open("new"), within(pools, `{"skuNumber": "SIMSec-IoT"}`)),
			Again:  Correct,
			Client: "Have the user given access; then log in again.",
		},
	}
}
