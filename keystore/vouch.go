package keystore

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// This file is what a verdict may go by where the store is shared.
//
// Memory is vouched for while two things hold, asked in this order: the lease, and
// that the generation with which a grant is stamped is the current one. The lease says
// that of every change that was committed before the last beat was called, the
// generation has moved: the beat had it in its answer, and the lease was taken after.
// The stamp says that the store was read after the generation moved last. So the grant
// shows every change but those that were committed after that beat, and they hold at
// the latest when the lease is over.
//
// It follows that it does not matter how a grant came into memory, nor whether there
// was a lease: also a read that began before a lease was lost, and ended after there
// was another, is good for as long as its stamp is.

// vouches reports whether g is as the store holds it, as far as a change that it does
// not show can't hold yet. It is asked last in a verdict.
func (c *Cache) vouches(g *Grant) bool {
	return (c.node == nil || c.node.lease.holds()) && c.Current(g)
}

// vouched is vouches for the verdicts of one request. Where the store is not shared,
// what was found stands for as long as they take.
func (c *Cache) vouched(g *Grant) bool { return c.node == nil || c.vouches(g) }

// prove reads the grant from a store that is shared, for this caller only, and in a
// bounded time. Memory does not get it, and what that holds of it is void: it may be
// older, and a beat that was under way could have it vouched for once more. It fills
// itself anew, one read after the other, so that nobody is told again what was before.
func (c *Cache) prove(ctx context.Context, digest Digest) (*Grant, error) {
	c.misses.Add(1)
	ctx, cancel := context.WithTimeout(ctx, c.node.proofTimeout())
	defer cancel()
	began := c.node.lease.read()
	g, err := c.read(ctx, digest, c.generation(&digest).Load())
	c.Invalidate(digest)
	if err == nil && !c.node.lease.covered(began) {
		return nil, fmt.Errorf("%w: its answer is too old", ErrUnavailable)
	}
	return g, err
}

// proofTimeout bounds a read of the store that a verdict waits for.
func (n *node) proofTimeout() time.Duration { return min(proofTimeout, n.bound/2) }

// period changes so often that a read is shared by nobody who comes much later: what
// it does not find may have been made by another node meanwhile.
func (n *node) period() string {
	return "/" + strconv.FormatInt(int64(n.lease.read().monotonic/flightPeriod), 36)
}

// voidAll makes all that the cache holds void.
func (c *Cache) voidAll() {
	for i := range c.generations {
		c.generations[i].Add(nextGeneration)
	}
}

// Cluster returns what is known of the cluster, false if the store is not shared.
func (v *Vault) Cluster() (ClusterInfo, bool) {
	if v.node == nil {
		return ClusterInfo{}, false
	}
	return v.node.info(), true
}
