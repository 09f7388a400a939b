package keystore

import (
	"context"
	"time"
)

// Effect says from when on the changes hold that were made under a context of
// [WithEffect].
type Effect struct {
	// Cluster says that the store is shared. Else the only node is this one, and
	// every change holds when it is answered.
	Cluster bool
	// By is zero if every node acts by the changes now. Else each of them does at the
	// latest then, by the clock of this node: it does, or it accepts nothing that it
	// can't prove to be current.
	By Instant
}

// patience is what a context says of how long a change waits for other nodes.
type patience struct {
	atMost time.Duration
	effect *Effect
}

type patienceKey struct{}

// WithEffect returns a context under which a change waits for other nodes no longer
// than atMost, and says in the effect how far it got. Without, a change returns when
// it holds everywhere. The effect is written while a change runs, and belongs to one
// goroutine.
func WithEffect(ctx context.Context, atMost time.Duration) (context.Context, *Effect) {
	effect := &Effect{}
	return context.WithValue(ctx, patienceKey{}, &patience{atMost, effect}), effect
}

// unawaited returns a context under which a change waits for no other node.
func unawaited(ctx context.Context) context.Context {
	ctx, _ = WithEffect(ctx, 0)
	return ctx
}

// patienceOf returns nil if the context does not say.
func patienceOf(ctx context.Context) *patience {
	p, _ := ctx.Value(patienceKey{}).(*patience)
	return p
}
