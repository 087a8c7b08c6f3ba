package main

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/simlatch/simlatch/internal/server"
)

// tracesWanted says whether the standard variables of OpenTelemetry ask for
// traces: by naming an exporter, or where to send them.
func tracesWanted(env func(string) string) (bool, error) {
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") {
		return false, nil
	}
	switch exporter := env("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return false, nil
	case "otlp":
	case "":
		if env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" && env("OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
			return false, nil
		}
	default:
		return false, usagef("OTEL_TRACES_EXPORTER=%s: traces are sent by otlp, or not at all with none", exporter)
	}
	protocol := cmp.Or(env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), env("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf")
	if protocol != "http/protobuf" {
		return false, usagef("OTEL_EXPORTER_OTLP_PROTOCOL=%s: traces are sent by http/protobuf", protocol)
	}
	return true, nil
}

// traceTo has the server's spans sent as the environment says, if it does. The
// function returned sends what is left.
func traceTo(ctx context.Context, cfg *server.Config, log *slog.Logger) (end func(), err error) {
	wanted, err := tracesWanted(os.Getenv)
	if err != nil || !wanted {
		return func() {}, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, usagef("sending traces: %v", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces were not sent", "error", err) }))
	own := resource.NewSchemaless(
		attribute.String("service.name", "simlatch"), attribute.String("service.version", server.ReadBuild().Version),
		attribute.String("service.instance.id", cfg.Node))
	about, err := resource.Merge(own, resource.Environment()) // which may name the service otherwise
	if err != nil {
		return nil, usagef("OTEL_RESOURCE_ATTRIBUTES: %v", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	cfg.Traces = provider
	return func() {
		const patience = 5 * time.Second
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			log.Warn("the last traces were not sent", "error", err)
		}
	}, nil
}
