package keystore

import (
	"context"
	"time"
)

// This file is how a change waits until it holds on every node. A node acts by the
// change once it has confirmed its epoch. One that has not goes by memory until the
// lease is over that it had from a beat before the change: at the latest its Bound
// after that beat was seen, or after the change was committed.
//
// Only this node's monotonic clock counts, and only moments that it saw itself. What
// it saw of another node happened there before; so it never waits too short.

// sighting is when a beat of another node was first seen.
type sighting struct {
	beat int64
	at   time.Duration
}

// view is what a beat showed of the other nodes.
type view struct {
	// beat is this node's number of it.
	beat   int64
	others []sightedNode
}

type sightedNode struct {
	NodeState
	// at is when its last beat was first seen, which is after it was called.
	at time.Duration
}

// look notes what the beats of the other nodes are, for those who wait.
func (n *node) look(beat int64, nodes []NodeState) {
	now := n.lease.read().monotonic
	seen := make(map[string]sighting, len(nodes))
	var others []sightedNode
	for _, other := range nodes {
		if other.ID == n.id {
			continue
		}
		last, ok := n.seen[other.ID]
		if !ok || last.beat != other.Beat {
			last = sighting{other.Beat, now}
		}
		seen[other.ID] = last
		others = append(others, sightedNode{other, last.at})
	}
	n.seen = seen
	n.mu.Lock()
	defer n.mu.Unlock()
	n.view = view{beat, others}
	close(n.news)
	n.news = make(chan struct{})
}

// awaited reports whether anyone waits for other nodes.
func (n *node) awaited() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.waiting > 0
}

// await returns when the change holds on all nodes, as far as ctx is patient. It is
// called when the change has been committed.
func (n *node) await(ctx context.Context, change Announcement) {
	committed := n.lease.read().monotonic
	until, p := committed+change.Bound, patienceOf(ctx)
	if p != nil {
		p.effect.Cluster = true
		until = committed + min(p.atMost, change.Bound)
	}
	if change.Epoch == 0 {
		return
	}
	end := committed + change.Bound
	if until > committed {
		end = n.waitUntil(ctx, until, change, committed)
	}
	if left := end - n.lease.read().monotonic; left > 0 && p != nil {
		p.effect.By = max(p.effect.By, n.now().Add(left+time.Millisecond))
	}
}

// waitUntil waits until the change holds on all nodes, but not beyond until, nor longer
// than ctx. It returns when the change does, as far as is known.
func (n *node) waitUntil(ctx context.Context, until time.Duration, change Announcement, committed time.Duration) time.Duration {
	before := n.startWaiting()
	defer n.stopWaiting()
	end := committed + change.Bound
	for {
		n.mu.Lock()
		view, news := n.view, n.news
		n.mu.Unlock()
		if view.beat > before { // else it may be of before the commit
			end = view.effective(change.Epoch, committed)
		}
		left := min(end, until) - n.lease.read().monotonic
		if left <= 0 || ctx.Err() != nil {
			return end
		}
		timer := time.NewTimer(left)
		select {
		case <-news:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// startWaiting has a beat begin, and returns the number of the last that began before.
func (n *node) startWaiting() (before int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting++
	n.kicked = true
	if n.wake != nil {
		n.wake()
	}
	return n.beats
}

func (n *node) stopWaiting() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting--
}

// effective is when, as far as the view shows, every node acts by the change of an
// epoch, which was committed then.
func (v *view) effective(epoch Epoch, committed time.Duration) (end time.Duration) {
	for i := range v.others {
		if other := &v.others[i]; other.Confirmed < epoch {
			end = max(end, min(other.at, committed)+other.Bound)
		}
	}
	return end
}
