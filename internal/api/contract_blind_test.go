package api

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/openapi/contract"
)

// TestContractSeesMistakesOfTheDescription breaks the document in one way at a
// time.
func TestContractSeesMistakesOfTheDescription(t *testing.T) {
	for name, tt := range map[string]struct{ old, broken string }{
		"version":              {"openapi: 3.1.0", "openapi: 3.0.3"},
		"misspelt keyword":     {"required: [id, kind]", "requird: [id, kind]"},
		"type that is none":    {"requestId: {type: string, format: uuid}", "requestId: {type: text, format: uuid}"},
		"no description":       {"      description: The pools.\n", ""},
		"status":               {`"413": {$ref`, `"13": {$ref`},
		"reference":            {`"#/components/responses/Devices"`, `"#/components/responses/Nowhere"`},
		"reference of schema":  {`{$ref: "#/components/schemas/SKU"}`, `{$ref: "#/components/schemas/Nowhere"}`},
		"parameter":            {"      name: account\n      in: path", "      name: acount\n      in: path"},
		"operationId twice":    {"operationId: logout", "operationId: login"},
		"tag":                  {"tags: [Devices]", "tags: [Device]"},
		"security":             {"        - application: []", "        - applications: []"},
		"example's enum":       {"licenseType: Lifetime, ", "licenseType: LifeTime, "},
		"example's type":       {"callbackCount: 1", `callbackCount: "1"`},
		"example's lack":       {"                sessionToken: bcce3ea6-fe4f-4952-bacf-eadd80718e83\n                expiresIn", "                expiresIn"},
		"example's surplus":    {"        organizationName: \"\"\n", "        organizationName: \"\"\n        note: \"\"\n"},
		"example's format":     {`createdAt: "2026-01-05T12:00:00Z"`, `createdAt: "2026-01-05"`},
		"example's const":      {"token_type: Bearer\n", "token_type: Bear\n"},
		"parameter's example":  {`enum: ["true"]}`, `enum: ["true"]}` + "\n      example: \"false\""},
		"beside the reference": {"$ref: \"#/components/schemas/SKU\"\n          description: List", "$ref: \"#/components/schemas/SKU\"\n          descripton: List"},
	} {
		broken := bytes.Replace(openAPI, []byte(tt.old), []byte(tt.broken), 1)
		if bytes.Equal(broken, openAPI) {
			t.Errorf("%s: %q is not in the document", name, tt.old)
		}
		c, err := contract.Read(broken)
		if err != nil {
			continue
		}
		if _, errs := c.Examples(); len(errs) == 0 && len(c.Mistakes()) == 0 {
			t.Errorf("%s: not seen", name)
		}
	}
}

func TestContractSeesMistakesOfAnswers(t *testing.T) {
	const (
		login   = "POST /api/m2m/v1/session/login"
		list    = "POST /m2m/v1/account/subscriptions/actions/list"
		session = `{"sessionToken":"bcce3ea6-fe4f-4952-bacf-eadd80718e83","expiresIn":1200}`
		pool    = `{"skuNumber":"SIMSec-IoT","licenseType":"Flexible","licensePurchased":1,"licenseAssigned":1,"licenseAvailable":0}`
		busy    = `{"errorCode":"UnifiedWebService.REQUEST_FAILED.TooManyRequests","errorMessage":"x"}`
	)
	for name, tt := range map[string]struct {
		call    string
		status  int
		body    string
		headers []string // names and values
		says    string   // "" for an answer that is right
	}{
		"right":             {login, 200, session, nil, ""},
		"right list":        {list, 200, `{"accountName":"a","subscriptionList":[` + pool + `]}`, nil, ""},
		"right refusal":     {login, 429, busy, []string{"Retry-After", "1"}, ""},
		"status":            {login, 201, session, nil, "no response"},
		"status elsewhere":  {login, 404, session, nil, "no response"},
		"path":              {"POST /api/m2m/v1/session/logon", 200, session, nil, "no such operation"},
		"prefix":            {"POST /api/ts/v1/session/login", 200, session, nil, "no such operation"},
		"method":            {"PUT /api/m2m/v1/session/login", 200, session, nil, "no such operation"},
		"media type":        {login, 200, session, []string{"Content-Type", "text/plain"}, "no content"},
		"no media type":     {login, 200, session, []string{"Content-Type", ""}, "no media type"},
		"no JSON":           {login, 200, session[1:], nil, "invalid character"},
		"lack":              {login, 200, `{"expiresIn":1200}`, nil, "missing property 'sessionToken'"},
		"surplus":           {login, 200, `{"user":"demo",` + session[1:], nil, "at '/user': false schema"},
		"type":              {login, 200, strings.Replace(session, "1200", `"1200"`, 1), nil, "got string, want integer"},
		"null":              {login, 200, strings.Replace(session, "1200", "null", 1), nil, "got null, want integer"},
		"format":            {login, 200, strings.Replace(session, "bcce3ea6-", "", 1), nil, "is not valid uuid"},
		"minimum":           {login, 200, strings.Replace(session, "1200", "0", 1), nil, "minimum: got 0"},
		"deep surplus":      {list, 200, `{"accountName":"a","subscriptionList":[{"n":1,` + pool[1:] + `]}`, nil, "at '/subscriptionList/0/n': false schema"},
		"deep enum":         {list, 200, strings.Replace(`{"accountName":"a","subscriptionList":[`+pool+`]}`, "Flexible", "Rigid", 1), nil, "value must be one of"},
		"code":              {login, 429, strings.Replace(busy, "Many", "Few", 1), []string{"Retry-After", "1"}, "value must be one of"},
		"fault":             {login, 401, busy, nil, "missing property 'fault'"},
		"header's lack":     {login, 429, busy, nil, "no header Retry-After"},
		"header's minimum":  {login, 429, busy, []string{"Retry-After", "0"}, "Retry-After"},
		"header's type":     {login, 429, busy, []string{"Retry-After", "1.5"}, "Retry-After"},
		"header's const":    {login, 200, session, []string{"Cache-Control", "public"}, "Cache-Control"},
		"fault of no path":  {"GET /x", 404, busy, nil, "missing property 'fault'"},
		"code of no method": {"PUT /api/m2m/v1/session/login", 405, `{"errorCode":"x","errorMessage":"x"}`, nil, "value must be one of"},
	} {
		header := http.Header{"Content-Type": {"application/json; charset=UTF-8"}}
		for i := 0; i+1 < len(tt.headers); i += 2 {
			header.Set(tt.headers[i], tt.headers[i+1])
		}
		method, path, _ := strings.Cut(tt.call, " ")
		err := asDescribed(method, path, &http.Response{StatusCode: tt.status, Header: header}, []byte(tt.body))
		if (err != nil) != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %s answered %d %s: %v, want %q", name, tt.call, tt.status, tt.body, err, tt.says)
		}
	}
}
