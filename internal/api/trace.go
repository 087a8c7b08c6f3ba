package api

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/simlatch/simlatch/internal/tracing"
	"github.com/simlatch/simlatch/m2m"
)

// begin begins the span of a call, as a part of its caller's trace.
func (c *call) begin(pattern string) tracing.Span {
	t := c.api.cfg.Tracer
	if !t.On() {
		return tracing.Span{}
	}
	ctx, span := t.Begin(c.r.Context(), c.r.Header.Get(tracing.Header), methodLabel(c.r.Method)+" "+pattern, oteltrace.SpanKindServer,
		attribute.String("http.request.method", methodLabel(c.r.Method)), attribute.String("http.route", pattern),
		attribute.String("simlatch.call_id", c.id))
	c.r = c.r.WithContext(ctx)
	return span
}

// end ends the span of a call.
func (c *call) end(span tracing.Span, status int, code string, out any) {
	if !c.api.cfg.Tracer.On() {
		return
	}
	span.Set(attribute.Int("http.response.status_code", status))
	if accepted, ok := out.(m2m.RequestAccepted); ok {
		span.Set(attribute.String("simlatch.request_id", accepted.RequestID))
	}
	if code != "" {
		span.Set(attribute.String("simlatch.error_code", code))
	}
	if status >= http.StatusInternalServerError {
		span.Fail(http.StatusText(status))
	}
	span.End()
}
