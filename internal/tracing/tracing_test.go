package tracing

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/trace"
)

const known = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		known: known,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00":       "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-later": known,
		"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09later":  "",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more":  "",
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":       "",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01":       "",
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01":       "",
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01":       "",
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":       "",
		"zz-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":       "", "": "", "00": "",
	} {
		c, ok := parse(text)
		if got := format(c); ok != (want != "") || ok && got != want {
			t.Errorf("parse(%q) = %q, %v; want %q", text, got, ok, want)
		}
	}
}

// TestNone begins nothing and hands on what it was given.
func TestNone(t *testing.T) {
	var none Tracer
	ctx, span := none.Begin(context.Background(), known, "x", trace.SpanKindServer)
	span.Set()
	span.Fail("x")
	span.End()
	if got := span.Traceparent(known); got != known || Of(ctx) != "" || none.On() || New(nil).On() {
		t.Errorf("the traceparent is %q, of the context %q", got, Of(ctx))
	}
}

func FuzzTraceparent(f *testing.F) {
	f.Add(known)
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-later")
	f.Fuzz(func(t *testing.T, text string) {
		c, ok := parse(text)
		if !ok {
			return
		}
		written := format(c)
		if again, ok := parse(written); !ok || !again.Equal(c) || !Valid(written) {
			t.Errorf("%q is written as %q", text, written)
		}
	})
}
