package keystore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// This file is what a gateway does as a node of a cluster, whose store is [Shared].
//
// It beats: it reads the feed of changes, voids what it holds in memory of each, and
// only then takes a lease, which counts from before the feed was asked for. By the
// lease it may go by memory. At its next beat it reports up to where it is, and who
// made a change waits for that report, or until the lease is over that the node had
// at the most.
//
// So a change that was committed at c, and is missing in the memory of a node, was
// missing in what that node's last beat read. That beat was called before c, and the
// lease that came of it ends before c and the node's Bound.

const (
	// DefaultLease is for how long after it last reached the store a node goes by
	// memory.
	DefaultLease = 10 * time.Second
	// MinLease keeps beats apart, and MaxLease changes from waiting for ever.
	MinLease = time.Second
	MaxLease = time.Hour

	// A node beats that often in a lease.
	beatsPerLease = 4
	// leaveTimeout bounds how long a node takes leave.
	leaveTimeout = 2 * time.Second
	// After forgetAfter times its Bound, a node that was not heard of is forgotten.
	forgetAfter = 10
	// proofTimeout bounds a read of a shared store for one verdict.
	proofTimeout = 3 * time.Second
	// flightPeriod bounds how old a read is that a verdict joins.
	flightPeriod = 500 * time.Millisecond

	// A node joins anew after firstPause, then after twice that, until mostPause.
	firstPause = 50 * time.Millisecond
	mostPause  = time.Second
)

// ClusterInfo is what a node knows of its cluster.
type ClusterInfo struct {
	// Nodes is how many nodes there are that may accept keys from memory, this one
	// included, as far as it knows.
	Nodes int
	// Leased says that this node may.
	Leased bool
}

// node is this process among those that share a store.
type node struct {
	id     string
	store  Shared
	memory *Cache
	lease  lease
	bound  time.Duration
	// interval is from one beat to the next, and how long one may take.
	interval time.Duration
	now      func() Instant
	report   func(problem string, err error)

	// What follows belongs to the goroutine that beats.
	confirmed Epoch
	due       time.Duration // when to beat next
	seen      map[string]sighting
	failures  int  // since a beat succeeded
	lost      bool // it was reported that the lease is over

	mu      sync.Mutex
	beats   int64 // how many have begun
	view    view
	news    chan struct{} // closed when the view is replaced
	waiting int           // how many changes wait
	kicked  bool          // a beat is wanted that has not begun
	wake    context.CancelFunc
}

// VaultOption is how a vault differs from what is usual.
type VaultOption func(*vaultOptions)

type vaultOptions struct {
	lease, stale time.Duration
	read         func() reading
}

func newVaultOptions(options []VaultOption) (o vaultOptions) {
	o.lease, o.read = DefaultLease, clocksSince(time.Now())
	for _, option := range options {
		option(&o)
	}
	return o
}

// WithLease sets for how long after it last reached a shared store a node goes by
// memory: for the lease, DefaultLease unless set, and that much longer for which the
// operator accepts that it is stale. A store that is not shared takes no notice.
func WithLease(lease, stale time.Duration) VaultOption {
	return func(o *vaultOptions) { o.lease, o.stale = lease, stale }
}

// shared returns the store if other processes change it, too.
func shared(store Store) (Shared, bool) {
	s, ok := store.(Shared)
	return s, ok && !s.Exclusive()
}

func newNode(store Shared, v *Vault, o vaultOptions) (*node, error) {
	if o.lease < MinLease || o.lease > MaxLease {
		return nil, fmt.Errorf("lease %v: must be from %v to %v", o.lease, MinLease, MaxLease)
	}
	if o.stale < 0 || o.stale > MaxLease {
		return nil, fmt.Errorf("stale_if_unavailable %v: must be from 0s to %v", o.stale, MaxLease)
	}
	n := &node{
		id: newID(), store: store, memory: v.Cache,
		bound: o.lease + o.stale, interval: o.lease / beatsPerLease,
		now: v.Now, report: v.report, news: make(chan struct{}),
	}
	n.lease.read, n.lease.length = o.read, n.bound-n.bound/clockMargin
	return n, nil
}

// run keeps the node in its cluster until ctx ends, and then takes it out.
func (n *node) run(ctx context.Context) {
	defer n.lease.end()
	for ctx.Err() == nil {
		err := n.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		n.missLease(err)
		n.pause(ctx)
	}
}

// missLease reports, once, that the lease is over.
func (n *node) missLease(err error) {
	if !n.lost && !n.lease.holds() {
		n.lost = true
		n.report("the shared store can't be reached and the lease is over: only keys that it can be asked about are accepted", err)
	}
}

// pause waits before the node joins anew. Nodes differ, so that a store that comes
// back does not meet all of them at once.
func (n *node) pause(ctx context.Context) {
	d := min(firstPause<<min(n.failures, 10), mostPause)
	n.failures++
	select {
	case <-time.After(d/2 + rand.N(d/2)):
	case <-ctx.Done():
	}
}

// follow joins and beats until something fails, or ctx ends.
func (n *node) follow(ctx context.Context) error {
	m, err := n.join(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	for ctx.Err() == nil {
		behind, err := n.beat(m)
		if err != nil {
			return err
		}
		if behind {
			continue // the others are to learn at once that it is not any more
		}
		if err := n.idle(ctx, m); err != nil {
			return err
		}
	}
	// From now on it goes by nothing that it does not read itself.
	n.lease.end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	return m.Leave(ctx)
}

func (n *node) join(ctx context.Context) (Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, n.interval)
	defer cancel()
	return n.store.Join(ctx, n.id)
}

// beat reports, reads the feed, and takes the lease once memory is up to it. It
// returns whether the node was behind. A beat that has begun is not given up because
// the node is to leave: the connection to do so would be lost.
func (n *node) beat(m Membership) (behind bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), n.interval)
	defer cancel()
	report := NodeReport{Beat: n.nextBeat(), Confirmed: n.confirmed, Bound: n.bound}
	began := n.lease.read()
	feed, err := m.Beat(ctx, report)
	if err != nil {
		return false, err
	}
	n.apply(&feed)
	n.lease.extend(began)
	n.failures = 0
	if n.lost && n.lease.holds() {
		n.lost = false
		n.report("the shared store can be reached again", nil)
	}
	n.due = began.monotonic + n.interval
	n.look(report.Beat, feed.Nodes)
	return n.confirmed != report.Confirmed, n.forget(ctx, m, feed.Nodes)
}

func (n *node) nextBeat() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.beats++
	n.kicked = false
	return n.beats
}

// apply makes void what changed. The first time, the feed does not tell what changed
// before; and an epoch behind the last one is that of a store that was set back.
func (n *node) apply(feed *FeedState) {
	first := n.confirmed == 0 && feed.Epoch != 0
	if feed.Lost || first || feed.Epoch < n.confirmed {
		n.memory.voidAll()
	} else {
		n.memory.Invalidate(feed.Changed...)
	}
	n.confirmed = feed.Epoch
}

// forget removes the nodes that ended without leaving.
func (n *node) forget(ctx context.Context, m Membership, nodes []NodeState) error {
	now := n.lease.read().monotonic
	for _, other := range nodes {
		if last, ok := n.seen[other.ID]; ok && now-last.at > forgetAfter*other.Bound {
			if err := m.Forget(ctx, other); err != nil {
				return err
			}
		}
	}
	return nil
}

// idle waits until the next beat is due or wanted, or ctx ends.
func (n *node) idle(ctx context.Context, m Membership) error {
	ctx, cancel := context.WithTimeout(ctx, n.due-n.lease.read().monotonic)
	defer cancel()
	for n.mayIdle(cancel) {
		changed, err := m.Wait(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case changed || n.awaited():
			return nil
		}
	}
	return nil
}

// mayIdle reports whether no beat is wanted now. From then on, wake is called when
// one is.
func (n *node) mayIdle(wake context.CancelFunc) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wake = wake
	return !n.kicked
}

// info is what the node knows of its cluster.
func (n *node) info() ClusterInfo {
	n.mu.Lock()
	view := n.view
	n.mu.Unlock()
	now := n.lease.read().monotonic
	info := ClusterInfo{Nodes: 1, Leased: n.lease.holds()}
	for _, other := range view.others {
		if now < other.at+other.Bound {
			info.Nodes++
		}
	}
	return info
}
