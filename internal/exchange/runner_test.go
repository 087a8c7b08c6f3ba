package exchange

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// tiny is a server that knows just enough to try the runner on.
type tiny struct {
	*httptest.Server
	mu       sync.Mutex // guards what follows
	requests []string   // as they came: a line, the interesting headers, the body
	logins   int
	listener string
	polls    int
	sending  sync.WaitGroup
}

func newTiny(t *testing.T) *tiny {
	s := &tiny{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.sending.Wait()
		s.Close()
	})
	return s
}

const (
	tinyID    = "c3f3d17c-79ff-4b35-82df-94446785b6e0"
	tinyOther = "1f28c944-d007-44c9-9543-003b8820cc69"
)

func (s *tiny) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf("%s %s length=%d auth=%q token=%q type=%q body=%q", r.Method, r.URL, r.ContentLength,
		r.Header.Get("Authorization"), r.Header.Get("VZ-M2M-Token"), r.Header.Get("Content-Type"), body)
	s.requests = append(s.requests, line)
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/api/ts/v1/oauth2/token":
		fmt.Fprint(w, `{"access_token": "b"}`)
	case "/api/m2m/v1/session/login":
		s.logins++
		fmt.Fprint(w, `{"sessionToken": "s"}`)
	case "/api/m2m/v1/callbacks/0001":
		var in struct{ URL string }
		if json.Unmarshal(body, &in) == nil {
			s.listener = in.URL
		}
		fmt.Fprint(w, `{"accountName": "0001", "serviceName": "CarrierService"}`)
	case "/poll":
		s.polls++
		fmt.Fprintf(w, `{"polls": %d}`, s.polls)
	case "/send": // posts the messages in the body to the listener
		var in []json.RawMessage
		if err := json.Unmarshal(body, &in); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		s.send(in)
		fmt.Fprintf(w, `{"requestId": %q}`, tinyID)
	case "/echo":
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	case "/bad":
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"errorCode": 5}`)
	case "/redirect":
		http.Redirect(w, r, "/elsewhere", http.StatusFound)
	case "/empty":
	default:
		fmt.Fprint(w, `{}`)
	}
}

func (s *tiny) send(messages []json.RawMessage) {
	url := s.listener
	s.sending.Go(func() {
		for _, m := range messages {
			for range 3 { // again while the listener says 503
				resp, err := http.Post(url, "application/json", bytes.NewReader(m))
				if err != nil {
					return
				}
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusServiceUnavailable {
					break
				}
			}
		}
	})
}

func (s *tiny) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[len(s.requests)-1]
}

func tinyRunner(t *testing.T, s *tiny, offers ...Need) *Runner {
	t.Helper()
	r, err := NewRunner(Config{
		URL: s.URL + "/", Offers: offers, Patience: 200 * time.Millisecond, Quiet: 20 * time.Millisecond,
		Vars: map[string]string{
			"user.name": "u", "user.password": "p", "app.key": "k", "app.secret": "x",
			"account": "0001", "d1.iccid": "11", "d1.imei": "12", "d2.iccid": "21", "d2.imei": "22",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func parse(t *testing.T, text string) Exchange {
	t.Helper()
	x, err := Parse("x", []byte("Title\nsource: s\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestRunnerSends(t *testing.T) {
	tests := []struct{ name, request, want string }{
		{
			"a body", "-- request --\nPOST /a?b=${account}\n\n{}\n",
			`POST /a?b=0001 length=2 auth="Bearer b" token="s" type="application/json" body="{}"`,
		},
		{
			"no body", "-- request --\nGET /a\n",
			`GET /a length=0 auth="Bearer b" token="s" type="" body=""`,
		},
		{
			"an empty body", "-- request --\nPOST /a\n\n",
			`POST /a length=0 auth="Bearer b" token="s" type="" body=""`,
		},
		{
			"DELETE with a body", "-- request --\nDELETE /a\n\n{}\n",
			`DELETE /a length=2 auth="Bearer b" token="s" type="application/json" body="{}"`,
		},
		{
			"chunked", "-- request chunked --\nPOST /a\n\n{}\n",
			`POST /a length=-1 auth="Bearer b" token="s" type="application/json" body="{}"`,
		},
		{
			"hex", "-- request hex --\nPOST /a\n\n7b ff\n00 7d\n",
			`POST /a length=4 auth="Bearer b" token="s" type="application/json" body="{\xff\x00}"`,
		},
		{
			"no headers", "-- request --\nPOST /a\n!Authorization\n!vz-m2m-token\n!Content-Type\n\n{}\n",
			`POST /a length=2 auth="" token="" type="" body="{}"`,
		},
		{
			"other headers", "-- request --\nPOST /a\naUTHORIZATION: x\nvz-m2m-token: y\nCONTENT-TYPE: z\n\n{}\n",
			`POST /a length=2 auth="x" token="y" type="z" body="{}"`,
		},
		{
			"login", "-- request --\nPOST /m2m/v1/session/login\n\n{}\n",
			`POST /m2m/v1/session/login length=2 auth="Bearer b" token="" type="application/json" body="{}"`,
		},
		{
			"token", "-- request --\nPOST /ts/v1/oauth2/revoke\n\ntoken=${bearer}\n",
			`POST /ts/v1/oauth2/revoke length=7 auth="Basic azp4" token="" type="application/x-www-form-urlencoded" body="token=b"`,
		},
		{
			"path that is not clean", "-- request --\nGET /a//b/../c/\n",
			`GET /a//b/../c/ length=0 auth="Bearer b" token="s" type="" body=""`,
		},
	}
	s := newTiny(t)
	r := tinyRunner(t, s)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := r.Run(t.Context(), parse(t, tt.request+"-- response --\n200\n"))
			if !res.OK() {
				t.Errorf("the exchange failed:\n%v", res)
			}
			if got := s.last(); got != tt.want {
				t.Errorf("the server got\n%s, want\n%s", got, tt.want)
			}
		})
	}
	if s.logins != 1 {
		t.Errorf("the runner logged in %d times, want 1", s.logins)
	}
}

func TestRunnerSendsHeadersAsSpelled(t *testing.T) {
	var got []string
	sock := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token": "b", "sessionToken": "s"}`)
		got = append(r.Header["X-Twice"], r.Host)
	}))
	defer sock.Close()
	r := tinyRunner(t, &tiny{Server: sock})
	res := r.Run(t.Context(), parse(t, "-- request --\nGET /\nX-Twice: 1\nX-Twice: 2\nHost: example.com\n-- response --\n200\n"))
	if want := "[1 2 example.com]"; fmt.Sprint(got) != want || !res.OK() {
		t.Errorf("the server got %v, want %v\n%v", got, want, res)
	}
}

func TestRunnerCompares(t *testing.T) {
	tests := []struct {
		name, steps string
		at          []string
	}{
		{"as expected", "-- request --\nPOST /echo\n\n{\"errorCode\": \"c\", \"errorMessage\": \"m\"}\n-- response --\n418\n\n{\"errorCode\": \"c\", ...}\n", nil},
		{"another status", "-- request --\nGET /a\n-- response --\n201\n", []string{"status"}},
		{"another body", "-- request --\nGET /a\n-- response --\n200\n\n{\"a\": 1}\n", []string{"body.a"}},
		{"a header", "-- request --\nGET /a\n-- response --\n200\nAllow: GET\n", []string{"header Allow"}},
		{"an empty answer", "-- request --\nGET /empty\n-- response --\n200\n", []string{"body"}},
		{
			"an error without its members", "-- request --\nGET /bad\n-- response --\n400\n",
			[]string{"header Content-Type", "body.errorCode", "body.errorMessage"},
		},
		{"a long error", "-- request --\nPOST /echo\n\n{\"errorCode\": \"c\", \"errorMessage\": \"${repeat 9000 m}\"}\n-- response --\n418\n", []string{"body"}},
		{"a redirect is not followed", "-- request --\nGET /redirect\n-- response --\n302\nLocation: /elsewhere\n", []string{"body"}},
		{"eventually", "-- request --\nGET /poll\n-- response eventually --\n200\n\n{\"polls\": 3}\n", nil},
		{"never", "-- request --\nGET /a\n-- response eventually --\n200\n\n{\"polls\": 3}\n", []string{"body.polls"}},
		{"captured", "-- request --\nPOST /echo\n\n{\"errorCode\": \"c\", \"errorMessage\": \"m\"}\n-- response --\n418\n\n{\"errorCode\": \"<text as c>\", \"errorMessage\": \"<text as m>\"}\n" +
			"-- request --\nPOST /echo\n\n{\"errorCode\": \"${m}\", \"errorMessage\": \"${c}\"}\n-- response --\n418\n\n{\"errorCode\": \"m\", \"errorMessage\": \"c\"}\n", nil},
	}
	s := newTiny(t)
	r := tinyRunner(t, s)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			compare(t, r.Run(t.Context(), parse(t, tt.steps)), tt.at)
		})
	}
}

// compare holds the places where a result has differences against those wanted.
func compare(t *testing.T, res Result, at []string) {
	t.Helper()
	var got []string
	for _, s := range res.Steps {
		for _, d := range s.Diffs {
			got = append(got, d.At)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(at) || res.Error != "" || res.Failed() != (len(at) > 0) {
		t.Errorf("differs at %v, want %v\n%v", got, at, res)
	}
}

func TestRunnerCallbacks(t *testing.T) {
	message := func(id, iccid string, count int) string {
		return fmt.Sprintf(`{"requestId": %q, "deviceIds": [{"id": %q}], "callbackCount": %d}`, id, iccid, count)
	}
	send := func(messages ...string) string {
		return "needs: callbacks\nlistens: account\n-- request --\nPOST /send\n\n[" + strings.Join(messages, ", ") + "]\n" +
			"-- response --\n200\n\n{\"requestId\": \"<uuid as requestId>\"}\n"
	}
	expect := func(options string) string {
		return "-- callback " + options + " --\n{\"requestId\": \"${requestId}\", \"deviceIds\": [{\"id\": \"${device.iccid}\"}], \"callbackCount\": 1}\n"
	}
	one, two := message(tinyID, "11", 1), message(tinyID, "21", 1)
	tests := []struct {
		name, text string
		at         []string
	}{
		{"one each, in another order", send(two, one) + expect("each=d1,d2"), nil},
		{"none wanted, none asked about", send(one), nil},
		{"one too few", send(one) + expect("each=d1,d2"), []string{"callback"}},
		{"another than expected", send(message(tinyID, "11", 2)) + expect("each=d1"), []string{"callback", "callback"}},
		{"twice", send(one, one) + expect("times=2 each=d1"), nil},
		{"twice, once expected", send(one, one) + expect("each=d1") + "-- no callback --\n", []string{"callback"}},
		{"of another request", send(message(tinyOther, "11", 1), one) + expect("each=d1") + "-- no callback --\n", nil},
		{"silence", send() + "-- no callback --\n", nil},
		{"no silence", send(one) + "-- no callback --\n", []string{"callback"}},
		{"tried again", strings.Replace(send(one), "-- request", "-- listener 503 200 --\n-- request", 1) + expect("times=2 each=d1") + "-- no callback --\n", nil},
		{"a header", send(one) + "-- callback --\nwebhook-id: <text>\n\n{...}\n", []string{"callback"}},
	}
	s := newTiny(t)
	r := tinyRunner(t, s, NeedCallbacks)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			compare(t, r.Run(t.Context(), parse(t, tt.text)), tt.at)
			s.sending.Wait()
		})
	}
}

func TestRunnerSkips(t *testing.T) {
	r := tinyRunner(t, newTiny(t))
	res := r.Run(t.Context(), parse(t, "needs: carrier\n-- request --\nGET /\n-- response --\n200\n"))
	if res.Skipped != "needs carrier" || res.OK() || res.Failed() {
		t.Errorf("Run gave %+v, want it skipped", res)
	}
}

func TestRunnerErrors(t *testing.T) {
	s := newTiny(t)
	r := tinyRunner(t, s)
	x := parse(t, "-- request --\nGET /${missing}\n-- response --\n200\n")
	if res := r.Run(t.Context(), x); !strings.Contains(res.Error, "${missing} is not defined") || !res.Failed() {
		t.Errorf("with an undefined variable: %v", res)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	x = parse(t, "-- request --\nGET /\n-- response --\n200\n")
	if res := r.Run(ctx, x); !strings.Contains(res.Error, "canceled") {
		t.Errorf("with a cancelled context: %v", res)
	}
	if _, err := NewRunner(Config{}); err == nil {
		t.Error("NewRunner without a URL gave no error")
	}
	if _, err := NewRunner(Config{URL: s.URL, Offers: []Need{NeedCallbacks}, Listen: "nowhere:x"}); err == nil {
		t.Error("NewRunner with a bad address to listen on gave no error")
	}
}

func TestResultIsReadable(t *testing.T) {
	r := tinyRunner(t, newTiny(t))
	res := r.Run(t.Context(), parse(t, "-- request: ask --\nGET /a\n-- response --\n200\n\n{\"a\": 1}\n"))
	text := res.String()
	for _, want := range []string{"FAIL x: Title (s)", "step 1: ask", "body.a: want 1, got nothing", "GET /a", "200 OK"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Bearer b") {
		t.Errorf("the report holds the bearer token:\n%s", text)
	}
	if _, err := json.Marshal(res); err != nil {
		t.Errorf("the result as JSON: %v", err)
	}
}

// TestListenOnAllAddresses: such a listener has a URL that can be called.
func TestListenOnAllAddresses(t *testing.T) {
	l, err := listen(":0", "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(l.url, "http://127.0.0.1:") {
		t.Errorf("the listener's URL is %s", l.url)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}
