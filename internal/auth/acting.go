package auth

import (
	"context"

	"github.com/simlatch/simlatch/internal/license"
)

// Acting is an operator who is known by other means than the call's own token:
// the console has read their session.
type Acting struct {
	Operator
	Via  license.Via
	From string // the address they called from

	// Progress is told how far a long change has come, where it is not nil.
	Progress func(done int)
}

type actingKey struct{}

// WithActing is a context for calls within the process on an operator's behalf.
// No call that comes from outside has one.
func WithActing(ctx context.Context, a Acting) context.Context {
	return context.WithValue(ctx, actingKey{}, a)
}

// ActingOf is who acts in a context, if anybody does.
func ActingOf(ctx context.Context) (Acting, bool) {
	a, ok := ctx.Value(actingKey{}).(Acting)
	return a, ok
}
