// Package client calls the operator API of a Simlatch server, and has its types.
// It imports nothing of ours: the server's side of the API uses the same types,
// so that the two cannot drift.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config says whom to call, and as whom.
type Config struct {
	BaseURL string // such as https://simlatch.example.com
	Token   string // an operator's
	// HTTP makes the calls; nil means a client of its own.
	HTTP *http.Client
	// UserAgent is sent with each call; empty means the client's own.
	UserAgent string
}

// Client calls the operator API. It is safe for concurrent use.
type Client struct{ cfg Config }

// New makes a client. It calls nobody yet.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.BaseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the server's URL %q is none of http or https", cfg.BaseURL)
	}
	if cfg.Token == "" {
		return nil, errors.New("the operator's token is missing")
	}
	cfg.BaseURL = strings.TrimSuffix(cfg.BaseURL, "/")
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "simlatch-operator"
	}
	return &Client{cfg}, nil
}

// call is one call of the API.
type call struct {
	method, path string
	query        url.Values
	body         any       // in JSON
	upload       io.Reader // in the place of body
	uploadType   string
	key          string // Idempotency-Key
	match        string // If-Match
}

// maxAnswer bounds an answer.
const maxAnswer = 64 << 20

// do makes a call and decodes its answer into out, which may be nil. It returns
// the answer's ETag.
func (c *Client) do(ctx context.Context, k call, out any) (etag string, err error) {
	resp, err := c.send(ctx, k)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("reading the answer to %s %s: %w", k.method, k.path, err)
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return "", problemOf(resp, body)
	}
	if out != nil && len(body) > 0 {
		if err := json.Unmarshal(body, out); err != nil {
			return "", fmt.Errorf("the answer to %s %s is not that of an operator API: %w", k.method, k.path, err)
		}
	}
	return resp.Header.Get("ETag"), nil
}

func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	body, contentType := k.upload, k.uploadType
	if k.body != nil {
		data, err := json.Marshal(k.body)
		if err != nil {
			return nil, fmt.Errorf("encoding a call: %w", err)
		}
		body, contentType = bytes.NewReader(data), "application/json"
	}
	u := c.cfg.BaseURL + Prefix + k.path
	if len(k.query) > 0 {
		u += "?" + k.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, k.method, u, body)
	if err != nil {
		return nil, fmt.Errorf("making a call: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	for name, value := range map[string]string{"Content-Type": contentType, KeyHeader: k.key, "If-Match": k.match} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := c.cfg.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", c.cfg.BaseURL, err)
	}
	return resp, nil
}

// post makes a POST with an idempotency key, again while the server is out of
// reach for a moment: under its key it is done once.
func (c *Client) post(ctx context.Context, path string, in, out any) error {
	k := call{method: http.MethodPost, path: path, body: in, key: rand.Text()}
	const tries = 3
	for try := 1; ; try++ {
		_, err := c.do(ctx, k, out)
		var p *Problem
		refused := errors.As(err, &p) && p.Status != http.StatusServiceUnavailable
		if err == nil || refused || try == tries || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(try) * time.Second):
		}
	}
}

// Problem is an error of the API (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Request is the X-Request-ID of the call, by which the server's logs have
	// it.
	Request string `json:"requestId,omitempty"`
	// Lines are what is wrong with single lines of an upload: the first of them,
	// of as many as LineCount says.
	Lines     []Line `json:"lines,omitempty"`
	LineCount int    `json:"lineCount,omitempty"`
}

// TypePrefix begins the type of each problem.
const TypePrefix = "urn:simlatch:problem:"

// Error tells the problem in words.
func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	for _, l := range p.Lines {
		text += fmt.Sprintf("\nline %d: %s", l.Line, l.Detail)
	}
	if n := p.LineCount - len(p.Lines); n > 0 {
		text += fmt.Sprintf("\nand %d more", n)
	}
	return text
}

// IsType reports whether err is a problem of a type, named without its prefix.
func IsType(err error, name string) bool {
	var p *Problem
	return errors.As(err, &p) && p.Type == TypePrefix+name
}

func problemOf(resp *http.Response, body []byte) error {
	p := &Problem{}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(body, p) != nil {
		return fmt.Errorf("%s answered %s, and not as an operator API does", resp.Request.URL.Host, resp.Status)
	}
	return p
}
