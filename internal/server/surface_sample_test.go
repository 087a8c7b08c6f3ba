package server

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/simlatch/simlatch/internal/auth"
	"github.com/simlatch/simlatch/internal/exchange"
	"github.com/simlatch/simlatch/internal/operator/client"
	"github.com/simlatch/simlatch/m2m"
)

// sample is a request that means something, to be made into others. Its texts
// hold what is known only when it is sent, such as {bearer app}.
type sample struct {
	name         string
	method, path string
	headers      [][2]string
	body         string
	chunked      bool
}

// samples are the requests of all recorded exchanges, and one for each route of
// the operator API.
func samples(tb testing.TB, vars map[string]string) []sample {
	tb.Helper()
	exchanges, err := exchange.Load()
	if err != nil {
		tb.Fatal(err)
	}
	var all []sample
	for _, x := range exchanges {
		for _, step := range x.Steps {
			known := map[string]string{
				"listener": "{listener}", "requestId": "{request}",
				"bearer": "{bearer " + x.Application + "}", "session": "{session " + x.User + "}",
			}
			for _, from := range []map[string]string{vars, step.Vars} {
				for name, value := range from {
					known[name] = value
				}
			}
			q, err := step.Request.Expand(known)
			if err != nil {
				continue // it is about an earlier answer that the surface knows nothing of
			}
			all = append(all, sampleOf(x, q, vars))
		}
	}
	all = append(all, operatorSamples(vars)...)
	return append(all, ownSamples()...)
}

// sampleOf adds the headers that a runner of exchanges adds.
func sampleOf(x exchange.Exchange, q exchange.Request, vars map[string]string) sample {
	s := sample{name: x.Name, method: q.Method, path: q.Path, body: q.Body, chunked: q.Chunked}
	said := map[string]bool{}
	add := func(name, value string) {
		if !said[strings.ToLower(name)] {
			s.headers = append(s.headers, [2]string{name, value})
		}
	}
	for _, h := range q.Headers {
		if !h.Without {
			s.headers = append(s.headers, [2]string{h.Name, h.Value})
		}
		said[strings.ToLower(h.Name)] = true
	}
	if strings.Contains(q.Path, "/oauth2/") {
		basic := vars[x.Application+".key"] + ":" + vars[x.Application+".secret"]
		add("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(basic)))
		add("Content-Type", "application/x-www-form-urlencoded")
		return s
	}
	add("Authorization", "Bearer {bearer "+x.Application+"}")
	if !strings.HasSuffix(q.Path, "/session/login") {
		add(m2m.SessionHeader, "{session "+x.User+"}")
	}
	if q.Body != "" {
		add("Content-Type", "application/json")
	}
	return s
}

// operatorSamples are calls of the operator API.
func operatorSamples(vars map[string]string) []sample {
	account, iccid := vars["account"], vars["d1.iccid"]
	inAccount := "/accounts/" + account
	request := inAccount + "/requests/{request}"
	callsAndBodies := [][2]string{
		{"GET /self"},
		{"GET /accounts?limit=2"},
		{"POST /accounts", `{"name":"0000777777-00001"}`},
		{"GET " + inAccount},
		{"GET " + inAccount + "/policy"},
		{"PUT " + inAccount + "/policy", `{"refuseLifetime":true,"devicesPerDay":5}`},
		{"GET /applications"},
		{"POST /applications", `{"key":"new-key"}`},
		{"GET /applications/other-key"},
		{"PATCH /applications/revoked-key", `{"disabled":true}`},
		{"POST /applications/revoked-key/rotate", `{}`},
		{"POST /applications/revoked-key/rotate", `{"overlap":"1h"}`},
		{"POST /applications/revoked-key/end-old-secret", `{}`},
		{"POST /applications/revoked-key/unlock", `{}`},
		{"GET /users"},
		{"POST /users", `{"name":"new-user","accounts":["` + account + `"]}`},
		{"GET /users/demo"},
		{"PATCH /users/changing", `{"accounts":["` + account + `"],"disabled":true}`},
		{"POST /users/changing/rotate", `{}`},
		{"POST /users/changing/unlock", `{}`},
		{"GET /operators"},
		{"POST /operators", `{"name":"another","role":"viewer"}`},
		{"GET /operators/the-viewer"},
		{"PATCH /operators/another", `{"role":"operator","disabled":true}`},
		{"POST /operators/another/rotate", `{}`},
		{"GET /pools?limit=1"},
		{"GET " + inAccount + "/pools/SIMSec-IoT"},
		{"PATCH " + inAccount + "/pools/SIMSec-IoT", `{"threshold":3}`},
		{"GET " + inAccount + "/pools/SIMSec-IoT/purchases"},
		{"POST " + inAccount + "/pools/SIMSec-IoT/purchases", `{"units":10,"reference":"r","reason":"bought"}`},
		{"GET /sims?account=" + account + "&limit=3"},
		{"POST /sims/import", "account,imei,iccid,mdn,state,generation\n" + account + ",358240050000099,89148010000000000999,,active,4G\n"},
		{"POST /sims/import?dryRun=true", `{"sims":[{"account":"` + account + `","imei":"358240050000107","iccid":"89148010000000001070"}]}`},
		{"POST " + inAccount + "/sims/state", `{"state":"suspend","iccids":["` + iccid + `"]}`},
		{"GET " + inAccount + "/sims/" + iccid},
		{"PATCH " + inAccount + "/sims/" + iccid, `{"state":"active","mdn":"5551239999"}`},
		{"GET " + inAccount + "/sims/" + iccid + "/history"},
		{"GET /requests?state=pending&account=" + account},
		{"GET " + request},
		{"GET " + request + "/tasks?limit=1"},
		{"GET " + request + "/tasks/" + iccid},
		{"POST " + request + "/tasks/" + iccid + "/decide", `{"outcome":"done","reason":"seen"}`},
		{"GET /callbacks?account=" + account},
		{"POST " + inAccount + "/callbacks/send", `{"request":"{request}"}`},
		{"GET /stuck"},
		{"GET /listeners"},
		{"GET " + inAccount + "/listeners/CarrierService"},
		{"PATCH " + inAccount + "/listeners/CarrierService", `{"attempts":2,"interval":"1s"}`},
		{"DELETE " + inAccount + "/listeners/CarrierService"},
		{"POST " + inAccount + "/listeners/CarrierService/secret", `{}`},
		{"POST " + inAccount + "/listeners/CarrierService/test", `{}`},
		{"POST /verify", `{}`},
		{"GET /audit?limit=2"},
		{"GET /events"},
		{"GET /openapi.json"},
	}
	var all []sample
	for _, c := range callsAndBodies {
		method, path, _ := strings.Cut(c[0], " ")
		s := sample{name: "operator", method: method, path: client.Prefix + path, body: c[1]}
		s.headers = [][2]string{{"Authorization", "Bearer {operator " + string(auth.RoleAdmin) + "}"}}
		switch {
		case strings.HasPrefix(c[1], "account,"):
			s.headers = append(s.headers, [2]string{"Content-Type", "text/csv"})
		case c[1] != "":
			s.headers = append(s.headers, [2]string{"Content-Type", "application/json"})
		}
		all = append(all, s)
	}
	return all
}

// ownSamples are what those ask who run the service.
func ownSamples() []sample {
	var all []sample
	for _, path := range []string{"/metrics", "/healthz", "/readyz", "/version", "/openapi.json", "/openapi.yaml", "/docs", "/"} {
		all = append(all, sample{name: "own", method: http.MethodGet, path: path})
	}
	return all
}

// known is what samples refer to and only a running server knows.
type known struct {
	bearer, session, operator map[string]string
	listener                  string
	request                   string // the last one accepted
}

// fill puts what is known into a text.
func (k *known) fill(text string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	var pairs []string
	for what, values := range map[string]map[string]string{"bearer": k.bearer, "session": k.session, "operator": k.operator} {
		for name, value := range values {
			pairs = append(pairs, fmt.Sprintf("{%s %s}", what, name), value)
		}
	}
	pairs = append(pairs, "{request}", k.request, "{listener}", k.listener)
	return strings.NewReplacer(pairs...).Replace(text)
}

// form is the body of a request for a token.
func form() string { return url.Values{"grant_type": {"client_credentials"}}.Encode() }
