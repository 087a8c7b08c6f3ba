package api

import (
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxBody is the largest body that is read.
const maxBody = 8 << 20

// maxDiscarded is how much is read away of one that was refused.
const maxDiscarded = 4 * maxBody

// limitBody bounds the time in which the client must have sent its body. The
// deadline also holds while net/http reads away what was left unread, so a slow
// client cannot hold up an early refusal either.
func (c *call) limitBody() {
	if c.r.Body == nil || c.r.Body == http.NoBody {
		return
	}
	// Network timeouts are real time, whatever the clock of the service says.
	// Writers that know no deadlines are those of tests.
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(c.api.cfg.BodyTimeout))
}

// discardBody reads away what still comes of a body after the answer, within the
// body's time. Many clients read nothing before they have sent everything; they
// would find a broken connection in the place of an early refusal. One that
// asks before it sends has been told.
func (c *call) discardBody() {
	if c.r.Body == nil || c.r.Body == http.NoBody || c.r.Header.Get("Expect") != "" {
		return
	}
	_, _ = io.CopyN(io.Discard, c.r.Body, maxDiscarded)
}

// readBody checks the type of the body and reads it.
func (c *call) readBody(mediaType string) error {
	if err := c.checkType(mediaType); err != nil {
		return err
	}
	if values := c.r.Header.Values("Content-Encoding"); strings.Join(values, "") != "" {
		return errContentEncoding()
	}
	if c.r.ContentLength > maxBody {
		return errTooLarge()
	}
	if c.r.Body == nil || c.r.Body == http.NoBody {
		return nil
	}
	body, err := readAll(http.MaxBytesReader(c.w, c.r.Body, maxBody), c.r.ContentLength, c.keep)
	if err != nil {
		return bodyError(err)
	}
	// The connection is also watched for the client's leaving it, by reads that
	// the body's deadline must not end.
	_ = http.NewResponseController(c.w).SetReadDeadline(time.Time{})
	c.body = body
	return nil
}

// checkType accepts the media type, in UTF-8, and a request that names none.
func (c *call) checkType(want string) error {
	values := c.r.Header.Values("Content-Type")
	if strings.Join(values, "") == "" {
		return nil
	}
	got, params, err := mime.ParseMediaType(values[0])
	if err != nil || len(values) > 1 || got != want {
		return errContentType(values[0], want)
	}
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8", "us-ascii":
		return nil
	}
	return errContentType(values[0], want)
}

// readAll reads r to its end. size is what the client announced, which is
// believed only so far. keep is told of each so many bytes that it wants to hold
// more, and may refuse them.
func readAll(r io.Reader, size int64, keep func(more int) error) ([]byte, error) {
	const believed = 64 << 10
	first := int(min(max(size, 0), believed)) + 512
	if err := keep(first); err != nil {
		return nil, err
	}
	b := make([]byte, 0, first)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			if err := keep(cap(b)); err != nil {
				return nil, err
			}
			grown := make([]byte, len(b), 2*cap(b))
			copy(grown, b)
			b = grown
		}
	}
}

func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	var timeout net.Error
	var turnedAway *wireError
	switch {
	case errors.As(err, &turnedAway):
		return err
	case errors.As(err, &tooLarge):
		return errTooLarge()
	case errors.As(err, &timeout) && timeout.Timeout():
		return errSlowBody()
	}
	return errUnreadable("the body ends before its announced end")
}

// noBody is the decoding of routes that take no body: whatever was sent is
// ignored, of any type (behaviour of the reference's logout).
func noBody(*call) (struct{}, error) { return struct{}{}, nil }

// jsonBody decodes a JSON body.
func jsonBody[T any](c *call) (T, error) {
	var v T
	if err := c.readBody("application/json"); err != nil {
		return v, err
	}
	return decodeJSON[T](c.body)
}

// formBody decodes the form of a token request, in which no parameter may come
// twice (RFC 6749, 3.2).
func formBody(c *call) (url.Values, error) {
	if err := c.readBody("application/x-www-form-urlencoded"); err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(c.body))
	if err != nil {
		return nil, errTokenRequest("The form is not valid.")
	}
	for name, values := range form {
		if len(values) > 1 {
			return nil, errTokenRequest("The parameter " + quote(name) + " is given twice.")
		}
	}
	return form, nil
}
