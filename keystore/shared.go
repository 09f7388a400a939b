package keystore

import (
	"context"
	"time"
)

// Shared is a [Store] that several processes share, such as the gateways of a
// cluster, each of which is a node. What one of them changes, the others learn from
// a feed: each change of a grant has an epoch, and epochs become visible in order.
//
// The feed is what a [Cache] is trusted by. A node may use what it holds in memory
// for as long as its lease lasts, and a lease comes with the epoch up to which the
// node has to know the feed. So a change that is committed is known to every node
// at the latest when the leases end that were taken before.
type Shared interface {
	Store

	// Exclusive is as in [Exclusive]: a store that is exclusive is not shared.
	Exclusive() bool

	// Join opens a connection of its own to the feed, for a node whose id is new.
	// The error is ErrUnavailable.
	Join(ctx context.Context, node string) (Membership, error)
}

// Membership is a node's connection to the feed. Its methods are called by one
// goroutine at a time. After any error it is closed, and the node joins anew, with
// the same id if it has not left.
type Membership interface {
	// Beat stores what the node reports, durably, and then reads the feed: every
	// change that was committed before Beat was called is in the answer. When
	// Confirmed is more than at the last beat, the other nodes are notified.
	Beat(ctx context.Context, report NodeReport) (FeedState, error)

	// Wait returns when the feed may have something new, which is changed, or when
	// another node may have confirmed something. It is a hint, which may come late,
	// for nothing, or not at all. The error is that of ctx, after which the
	// membership is as good as before, or ErrUnavailable.
	Wait(ctx context.Context) (changed bool, err error)

	// Leave removes the node: nobody waits for it any more. It is called once the
	// node accepts nothing.
	Leave(ctx context.Context) error

	// Forget removes another node, which has ended without leaving, unless it beat
	// since it was seen with that beat.
	Forget(ctx context.Context, node NodeState) error

	// Close closes the connection. The node stays one until it leaves or is forgotten.
	Close() error
}

// NodeReport is what a node says of itself.
type NodeReport struct {
	// Beat numbers the beats of the node, from 1 on, also those that failed: the store
	// keeps the greatest. A number that does not move says that there was no beat,
	// also if the node was forgotten in between.
	Beat int64
	// Confirmed is the epoch up to which the node acts by the feed. Zero asks for no
	// changes: the node holds nothing yet.
	Confirmed Epoch
	// Bound is for how long after the call of Beat the node accepts at most what it
	// then knew.
	Bound time.Duration
}

// FeedState is what a beat read.
type FeedState struct {
	// Epoch is that of the latest change.
	Epoch Epoch
	// Changed are the digests of the grants that changed after the epoch that was
	// confirmed. If Lost, they can't be told any more: every grant may have.
	Changed []Digest
	Lost    bool
	// Nodes are all nodes, this one included.
	Nodes []NodeState
}

// NodeState is what is known of a node.
type NodeState struct {
	ID string
	NodeReport
}

// Epoch numbers the changes of a shared store, upwards from 1, which is that of a new
// store.
type Epoch int64

// Announcement is what a transaction has to be waited for.
type Announcement struct {
	// Epoch is that of the change, zero if there is nobody to tell.
	Epoch Epoch
	// Bound is the longest that any node says in a report that is stored before the
	// commit, whenever the transaction began. That long after the commit, no node acts
	// by what was before.
	Bound time.Duration
}
