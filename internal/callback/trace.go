package callback

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
)

// begin begins the span of an attempt, in the trace of its request, and has the
// callback carry it on to the listener.
func (s *Sender) begin(c *license.Callback) tracing.Span {
	if !s.cfg.Tracer.On() {
		return tracing.Span{}
	}
	_, span := s.cfg.Tracer.Begin(context.Background(), c.Trace, "callback", trace.SpanKindClient,
		attribute.String("http.request.method", "POST"), attribute.String("simlatch.request_id", string(c.Request)),
		attribute.String("simlatch.iccid", string(c.Device.ICCID)), attribute.Int("simlatch.attempt", c.Attempt+1))
	c.Trace = span.Traceparent(c.Trace)
	return span
}

// endSpan ends the span of an attempt. The words of an error may hold the listener's
// secrets, and are not in it.
func endSpan(span tracing.Span, status int, err error) {
	switch {
	case err != nil:
		span.Fail("no answer")
	case status < 200 || status > 299:
		span.Fail("not acknowledged")
	}
	if status != 0 {
		span.Set(attribute.Int("http.response.status_code", status))
	}
	span.End()
}
