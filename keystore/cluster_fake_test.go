package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// cluster is a store that several nodes share: a real one, with a feed in memory.
type cluster struct {
	keystore.Store
	t *testing.T
	// eager and short are lies, for controls: that a node has confirmed what its beat
	// is only being told, and that nodes go by memory for less long than they say.
	eager, short bool
	// deaf loses all notifications.
	deaf atomic.Bool
	// delay is how long a message takes to nodes that are made from now on.
	delay func() time.Duration
	// cut makes nodes that begin without the feed.
	cut bool
	// twice runs the function of each update twice.
	twice atomic.Bool

	writing sync.Mutex
	mu      sync.Mutex
	epoch   keystore.Epoch
	changes []announced
	pruned  keystore.Epoch // the changes up to there are gone
	nodes   map[string]keystore.NodeState
	members map[*member]bool
	beats   atomic.Int64
	joins   atomic.Int64
}

type announced struct {
	epoch  keystore.Epoch
	digest keystore.Digest
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	store, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "store", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	delay := func() time.Duration { return time.Millisecond + rand.N(time.Millisecond) }
	return &cluster{Store: store, t: t, delay: delay, nodes: map[string]keystore.NodeState{}, members: map[*member]bool{}}
}

// gateway is a node of the cluster: a keyring, and the network between it and the
// store.
type gateway struct {
	*ring
	*link
}

func (c *cluster) gateway(options ...keystore.VaultOption) *gateway {
	c.t.Helper()
	l := &link{cluster: c, changed: make(chan struct{})}
	l.slow(c.delay)
	l.feed.Store(c.cut)
	vault, err := keystore.OpenVault(c.t.Context(), l, keystore.DefaultCacheSize, l.note, options...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = vault.Close() })
	kr, err := keystore.NewKeyring(c.t.Context(), vault, keystore.Config{})
	if err != nil {
		c.t.Fatal(err)
	}
	return &gateway{&ring{kr, c.t, vault}, l}
}

// gateways returns nodes that have a lease.
func (c *cluster) gateways(n int, options ...keystore.VaultOption) (nodes []*gateway) {
	c.t.Helper()
	for range n {
		nodes = append(nodes, c.gateway(options...))
	}
	time.Sleep(time.Second)
	for _, g := range nodes {
		if !g.leased() {
			c.t.Fatal("a node has no lease after a second")
		}
	}
	return nodes
}

func (g *gateway) leased() bool {
	info, ok := g.vault.Cluster()
	return ok && info.Leased
}

// try presents the key as a request would; the store may be away.
func (g *gateway) try(text string) keystore.Verdict {
	_, v, _ := g.Accept(context.Background(), text, keystore.Request{Requirement: &keystore.Requirement{}})
	return v
}

// remember has memory hold the key.
func (g *gateway) remember(text string) {
	g.t.Helper()
	if v := g.try(text); v != keystore.OK {
		g.t.Fatalf("a key that works is %v", v)
	}
	g.vault.Decided()
}

func (g *gateway) revoke(ctx context.Context, k *keystore.Issued) {
	g.t.Helper()
	if _, err := g.RevokeKey(ctx, k.Key.ID, ""); err != nil {
		g.t.Error(err)
	}
}

// condition is that of a link.
type condition int

const (
	up      condition = iota
	refuses           // what is sent is answered by an error at once
	hangs             // what is sent stays under way
)

// link is the network between a node and the store, which it is a store to.
type link struct {
	*cluster
	delay   atomic.Pointer[func() time.Duration]
	feed    atomic.Bool // only the feed is cut off, not the records
	reads   atomic.Int64
	called  atomic.Pointer[time.Time] // when the last beat was called that succeeded
	looking atomic.Pointer[func()]    // runs between a read of the store and its answer

	state    sync.Mutex
	is       condition
	changed  chan struct{} // closed when the condition changes
	problems []string
	wells    int
}

func (l *link) slow(delay func() time.Duration) { l.delay.Store(&delay) }

// note takes the place of the log.
func (l *link) note(problem string, err error) {
	l.state.Lock()
	defer l.state.Unlock()
	if err == nil {
		l.wells++
		return
	}
	l.problems = append(l.problems, problem)
}

func (l *link) while(looking func()) { l.looking.Store(&looking) }

// noted returns what was reported: how often that the lease is over, and that all is
// well.
func (l *link) noted() (lost, wells int) {
	l.state.Lock()
	defer l.state.Unlock()
	for _, p := range l.problems {
		if strings.Contains(p, "lease") {
			lost++
		}
	}
	return lost, l.wells
}

func (l *link) becomes(c condition) {
	l.state.Lock()
	defer l.state.Unlock()
	l.is = c
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) condition() (condition, <-chan struct{}) {
	l.state.Lock()
	defer l.state.Unlock()
	return l.is, l.changed
}

func gone(cause error) error { return fmt.Errorf("%w: %w", keystore.ErrUnavailable, cause) }

// pass is the way of a message. It takes a while, or for ever.
func (l *link) pass(ctx context.Context) error {
	time.Sleep((*l.delay.Load())())
	for {
		if ctx.Err() != nil {
			return gone(context.Cause(ctx))
		}
		is, changed := l.condition()
		switch is {
		case up:
			return nil
		case refuses:
			return gone(errors.New("refused"))
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// ask runs what the store does between the ways there and back.
func (l *link) ask(ctx context.Context, do func() error) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	err := do()
	if lost := l.pass(ctx); lost != nil {
		return lost
	}
	return err
}

func (l *link) Exclusive() bool { return false }

func (l *link) Close() error { return nil }

func (l *link) Lookup(ctx context.Context, d keystore.Digest) (g *keystore.Grant, err error) {
	l.reads.Add(1)
	err = l.ask(ctx, func() (err error) {
		g, err = l.Store.Lookup(ctx, d)
		if during := l.looking.Load(); during != nil {
			(*during)()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (l *link) View(ctx context.Context, read func(keystore.Reader) error) error {
	return l.ask(ctx, func() error { return l.Store.View(ctx, read) })
}

// Update commits also when the answer is lost.
func (l *link) Update(ctx context.Context, change func(keystore.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return l.ask(ctx, func() error {
		l.writing.Lock()
		defer l.writing.Unlock()
		var digests []keystore.Digest
		err := l.Store.Update(context.WithoutCancel(ctx), func(tx keystore.Tx) error {
			if l.twice.Load() {
				_ = change(&announcing{tx, l.cluster, new([]keystore.Digest)})
			}
			return change(&announcing{tx, l.cluster, &digests})
		})
		if err == nil && len(digests) > 0 {
			l.publish(digests)
		}
		return err
	})
}

// announcing is a transaction; one runs at a time.
type announcing struct {
	keystore.Tx
	c       *cluster
	digests *[]keystore.Digest
}

func (tx *announcing) Announce(digests ...keystore.Digest) (keystore.Announcement, error) {
	tx.c.mu.Lock()
	defer tx.c.mu.Unlock()
	*tx.digests = digests
	a := keystore.Announcement{Epoch: tx.c.epoch + 1}
	for _, n := range tx.c.nodes {
		a.Bound = max(a.Bound, n.Bound)
	}
	if tx.c.short {
		a.Bound /= 2
	}
	return a, nil
}

func (c *cluster) publish(digests []keystore.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	for _, d := range digests {
		c.changes = append(c.changes, announced{c.epoch, d})
	}
	c.notify(true)
}

func (c *cluster) notify(changed bool) {
	for m := range c.members {
		if !c.deaf.Load() {
			select {
			case m.hints <- changed:
			default:
			}
		}
	}
}

// prune loses all changes that are in the feed.
func (c *cluster) prune() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes, c.pruned = nil, c.epoch
}

func (c *cluster) known() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.nodes)
}

// member is a connection to the feed.
type member struct {
	*link
	id     string
	hints  chan bool
	busy   atomic.Bool
	failed atomic.Bool
}

func (l *link) Join(ctx context.Context, node string) (keystore.Membership, error) {
	l.joins.Add(1)
	if err := l.pass(ctx); err != nil || l.feed.Load() {
		return nil, gone(errors.New("no connection"))
	}
	m := &member{link: l, id: node, hints: make(chan bool, 64)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members[m] = true
	return m, nil
}

// one calls do alone, and never after an error.
func (m *member) one(do func() error) error {
	if !m.busy.CompareAndSwap(false, true) {
		m.t.Error("a membership is used by two goroutines")
	}
	defer m.busy.Store(false)
	if m.failed.Load() {
		m.t.Error("a membership is used after an error")
	}
	if m.feed.Load() {
		m.failed.Store(true)
		return gone(errors.New("cut off"))
	}
	err := do()
	if err != nil {
		m.failed.Store(true)
	}
	return err
}

func (m *member) Beat(ctx context.Context, report keystore.NodeReport) (state keystore.FeedState, err error) {
	call := time.Now()
	err = m.one(func() error {
		return m.ask(ctx, func() error {
			state = m.cluster.beat(m.id, report)
			return nil
		})
	})
	if err == nil {
		m.called.Store(&call)
	}
	return state, err
}

func (c *cluster) beat(id string, report keystore.NodeReport) keystore.FeedState {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beats.Add(1)
	state := keystore.FeedState{Epoch: c.epoch}
	stored := report
	if c.eager {
		stored.Confirmed = c.epoch
	}
	before, there := c.nodes[id]
	stored.Beat = max(stored.Beat, before.Beat)
	c.nodes[id] = keystore.NodeState{ID: id, NodeReport: stored}
	if there && stored.Confirmed > before.Confirmed {
		c.notify(false)
	}
	if report.Confirmed > 0 {
		state.Lost = report.Confirmed < c.pruned
		for _, change := range c.changes {
			if change.epoch > report.Confirmed {
				state.Changed = append(state.Changed, change.digest)
			}
		}
	}
	for _, n := range c.nodes {
		state.Nodes = append(state.Nodes, n)
	}
	return state
}

func (m *member) Wait(ctx context.Context) (changed bool, err error) {
	err = m.one(func() error {
		for {
			is, turned := m.condition()
			var hints <-chan bool
			switch is {
			case refuses:
				return gone(errors.New("reset"))
			case up:
				hints = m.hints
			}
			select {
			case changed = <-hints:
				return nil
			case <-turned:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if ctx.Err() != nil {
		m.failed.Store(false)
	}
	return changed, err
}

func (m *member) Leave(ctx context.Context) error {
	return m.one(func() error {
		return m.ask(ctx, func() error {
			m.mu.Lock()
			defer m.mu.Unlock()
			delete(m.nodes, m.id)
			return nil
		})
	})
}

func (m *member) Forget(ctx context.Context, node keystore.NodeState) error {
	return m.one(func() error {
		return m.ask(ctx, func() error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.nodes[node.ID].Beat == node.Beat {
				delete(m.nodes, node.ID)
			}
			return nil
		})
	})
}

func (m *member) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.members, m)
	return nil
}
