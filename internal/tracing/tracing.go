// Package tracing continues the trace of a request, wherever its work is done: the
// trace context stands in the request's row, in the form of W3C's traceparent, and
// a span that is begun from it joins the trace on any node, after any restart.
package tracing

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Header is the header that carries a trace context.
const Header = "Traceparent"

// Tracer begins spans. The zero value begins none, and costs nothing.
type Tracer struct{ tracer trace.Tracer }

// New makes a tracer of what provides them; nil provides none.
func New(p trace.TracerProvider) Tracer {
	if p == nil {
		return Tracer{}
	}
	return Tracer{p.Tracer("github.com/simlatch/simlatch")}
}

// On reports whether spans are begun.
func (t Tracer) On() bool { return t.tracer != nil }

// Begin begins a span as a part of the trace that a traceparent names, or of a new
// one where it names none. The span is ended by Span.End; where the tracer begins
// none, it does nothing.
func (t Tracer) Begin(ctx context.Context, parent, name string, kind trace.SpanKind, attributes ...attribute.KeyValue) (context.Context, Span) {
	return t.begin(ctx, parent, name, kind, time.Time{}, attributes)
}

// Add adds a span that has ended already.
func (t Tracer) Add(ctx context.Context, parent, name string, begun, ended time.Time, attributes ...attribute.KeyValue) {
	if _, s := t.begin(ctx, parent, name, trace.SpanKindInternal, begun, attributes); s.span != nil {
		s.span.End(trace.WithTimestamp(ended))
	}
}

func (t Tracer) begin(ctx context.Context, parent, name string, kind trace.SpanKind, at time.Time, attributes []attribute.KeyValue) (context.Context, Span) {
	if t.tracer == nil {
		return ctx, Span{}
	}
	if from, ok := parse(parent); ok {
		ctx = trace.ContextWithRemoteSpanContext(ctx, from)
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(attributes...)}
	if !at.IsZero() {
		options = append(options, trace.WithTimestamp(at))
	}
	ctx, span := t.tracer.Start(ctx, name, options...)
	return ctx, Span{span}
}

// Span is a span, or none.
type Span struct{ span trace.Span }

// Set adds attributes.
func (s Span) Set(attributes ...attribute.KeyValue) {
	if s.span != nil {
		s.span.SetAttributes(attributes...)
	}
}

// Fail says that what the span is about failed, and why; a reason must hold no
// secret.
func (s Span) Fail(reason string) {
	if s.span != nil {
		s.span.SetStatus(codes.Error, reason)
	}
}

// End ends the span.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// Traceparent is the span's context for those who are to continue it; without a
// span it is otherwise.
func (s Span) Traceparent(otherwise string) string {
	if s.span == nil {
		return otherwise
	}
	return format(s.span.SpanContext())
}

// Of is the trace context of what is done under ctx; empty where there is none.
func Of(ctx context.Context) string { return format(trace.SpanContextFromContext(ctx)) }

// format is a traceparent; empty of what is none.
func format(c trace.SpanContext) string {
	if !c.IsValid() {
		return ""
	}
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + (c.TraceFlags() & trace.FlagsSampled).String()
}

// Valid reports whether a text is a traceparent that can be handed on.
func Valid(traceparent string) bool {
	_, ok := parse(traceparent)
	return ok
}

// parse reads a traceparent (W3C Trace Context, 3.2). What a later version adds is
// not looked at.
func parse(s string) (trace.SpanContext, bool) {
	const whole = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if len(s) < whole || s != strings.ToLower(s) || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return trace.SpanContext{}, false
	}
	version, flags := [1]byte{}, [1]byte{}
	_, wrong := hex.Decode(version[:], []byte(s[:2]))
	id, wrongID := trace.TraceIDFromHex(s[3:35])
	span, wrongSpan := trace.SpanIDFromHex(s[36:52])
	_, wrongFlags := hex.Decode(flags[:], []byte(s[53:whole]))
	if wrong != nil || wrongID != nil || wrongSpan != nil || wrongFlags != nil || version[0] == 0xff ||
		version[0] == 0 && len(s) > whole || len(s) > whole && s[whole] != '-' {
		return trace.SpanContext{}, false
	}
	c := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.TraceFlags(flags[0]) & trace.FlagsSampled, Remote: true})
	return c, c.IsValid()
}
