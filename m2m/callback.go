package m2m

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxCallback is the largest callback that is read; they have about 600 bytes.
const maxCallback = 1 << 20

// tolerance is how far a signature's time may be from now, so that nobody can
// send an old callback again.
const tolerance = 5 * time.Minute

// CallbackOption makes a CallbackHandler stricter.
type CallbackOption func(*receiver)

// WithCredentials refuses, with 401, messages that do not carry this user name
// and password, those the listener was registered with.
func WithCredentials(username, password string) CallbackOption {
	return func(r *receiver) {
		r.checks = append(r.checks, func(_ http.Header, _ []byte, m *CallbackMessage) error {
			// Both are compared whatever the first gives: the time must not tell.
			if subtle.ConstantTimeCompare(sum(m.Username), sum(username))&
				subtle.ConstantTimeCompare(sum(m.Password), sum(password)) != 1 {
				return errors.New("wrong user name or password")
			}
			return nil
		})
	}
}

func sum(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// WithSigningSecret refuses, with 401, messages that are not signed with the
// secret; see CheckSignature.
func WithSigningSecret(secret string) CallbackOption {
	return func(r *receiver) {
		r.checks = append(r.checks, func(h http.Header, body []byte, _ *CallbackMessage) error {
			return CheckSignature(secret, h, body)
		})
	}
}

// CheckSignature reports whether a message is signed with a secret by Standard
// Webhooks: the headers webhook-id, webhook-timestamp and webhook-signature, over
// the body as it came. The secret is base64, with or without "whsec_" before it;
// one that is not lets no message pass. A signature of more than five minutes ago
// does not count, so that nobody can send an old message again.
//
// It is for receivers that cannot use CallbackHandler.
func CheckSignature(secret string, h http.Header, body []byte) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err == nil && len(key) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return fmt.Errorf("the receiver's signing secret is unusable: %w", err)
	}
	return verify(h, body, key)
}

// verify checks a Standard Webhooks signature.
func verify(h http.Header, body, key []byte) error {
	id, at := h.Get("webhook-id"), h.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if id == "" || err != nil {
		return errors.New("the message is not signed")
	}
	if age := time.Since(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return errors.New("the signature is too old or too new")
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	want := mac.Sum(nil)
	for _, s := range strings.Fields(h.Get("webhook-signature")) {
		got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "v1,"))
		if strings.HasPrefix(s, "v1,") && err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return errors.New("the signature is wrong")
}

// CallbackHandler receives callbacks: it gives each message to f and answers 200
// when f returns nil, which acknowledges it. After an error of f it answers 500,
// and the message will come again, with a higher CallbackCount.
//
// A message may come more than once also when it was acknowledged: RequestID and
// the ICCID tell. f should be quick, since the server waits some seconds only;
// its context ends when the server has hung up.
func CallbackHandler(f func(context.Context, *CallbackMessage) error, opts ...CallbackOption) http.Handler {
	r := &receiver{f: f}
	for _, o := range opts {
		o(r)
	}
	return r
}

type receiver struct {
	f      func(context.Context, *CallbackMessage) error
	checks []func(h http.Header, body []byte, m *CallbackMessage) error
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		reply(w, http.StatusMethodNotAllowed, "callbacks are posted")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxCallback))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		reply(w, http.StatusRequestEntityTooLarge, "the message is too large")
		return
	}
	var m CallbackMessage
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err != nil {
		reply(w, http.StatusBadRequest, "the message is not a callback in JSON")
		return
	}
	for _, check := range r.checks {
		if err := check(req.Header, body, &m); err != nil {
			reply(w, http.StatusUnauthorized, err.Error())
			return
		}
	}
	// What went wrong inside is nobody else's business.
	if err := r.f(req.Context(), &m); err != nil {
		reply(w, http.StatusInternalServerError, "the message could not be taken in")
		return
	}
	reply(w, http.StatusOK, "")
}

// reply answers with a JSON object that holds the message, if any.
func reply(w http.ResponseWriter, status int, message string) {
	body, _ := json.Marshal(struct { // a string always marshals
		Message string `json:"message,omitempty"`
	}{message})
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // nobody is left to tell
}
