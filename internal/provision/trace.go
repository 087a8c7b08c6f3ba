package provision

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/simlatch/simlatch/internal/license"
	"github.com/simlatch/simlatch/internal/tracing"
)

// begin begins the span of a call of the carrier, in the trace of its request.
func (w *Worker) begin(ctx context.Context, tasks []license.Task) (context.Context, tracing.Span) {
	if !w.cfg.Tracer.On() {
		return ctx, tracing.Span{}
	}
	return w.cfg.Tracer.Begin(ctx, tasks[0].Trace, "carrier "+string(tasks[0].Action), trace.SpanKindClient,
		append(about(tasks[0]), attribute.Int("simlatch.devices", len(tasks)), attribute.Int("simlatch.attempt", tasks[0].Attempt+1))...)
}

func about(t license.Task) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("simlatch.request_id", string(t.Request)), attribute.String("simlatch.sku", string(t.SKU))}
}

// trace adds the settlement of a batch to the trace of each request in it.
func (w *Worker) trace(begun time.Time, batch []license.Outcome) {
	if !w.cfg.Tracer.On() {
		return
	}
	ended := time.Now()
	type counts struct {
		task  license.Task
		ended [license.Stuck + 1]int
	}
	byRequest := map[license.RequestID]*counts{}
	for i := range batch {
		o := &batch[i]
		c := byRequest[o.Task.Request]
		if c == nil {
			c = &counts{task: o.Task}
			byRequest[o.Task.Request] = c
		}
		c.ended[o.Verdict]++
	}
	for _, c := range byRequest {
		attributes := about(c.task)
		for verdict, n := range c.ended {
			if n > 0 {
				attributes = append(attributes, attribute.Int("simlatch."+license.Verdict(verdict).String(), n))
			}
		}
		w.cfg.Tracer.Add(context.Background(), c.task.Trace, "settle", begun, ended, attributes...)
	}
}
