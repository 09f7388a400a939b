package keystore

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sync/singleflight"
)

// A Cache is a [Store] whose Lookup is answered from memory where possible, and
// which makes revocation certain: a Lookup that starts after an Update returned
// sees that change, whatever the cache holds and whoever fills it.
//
// The certainty does not come from deleting entries. Ristretto sets
// asynchronously, may drop or keep what it likes, and a reader that loaded a
// grant before a change may set it after a deletion. Instead every digest
// belongs to one of many shards, each with a generation:
//
//   - A fill reads the generation first and the store second, and stamps the
//     grant with that generation.
//   - An Update collects every digest whose grant it touches, and moves their
//     generations after the commit and before it returns, also when the commit
//     failed, for the outcome is then unknown.
//   - A grant whose stamp is not the shard's current generation is no entry.
//   - From before the commit until then, Lookups of those digests ask the store:
//     else one could still tell the old state after another told the new one.
//
// So presence is never needed for correctness and absence always asks the
// store. Nothing negative and no error is cached. Entries hold the whole
// digest: ristretto's own key is its first word only, and a collision merely
// evicts.
//
// What the store is known not to hold is asked for neither in ristretto, which would
// take it for in demand, nor in the store.
type Cache struct {
	store  Store
	known  known
	memory atomic.Pointer[memory]
	// generations are by shard.
	generations []atomic.Uint64
	fills       singleflight.Group
	misses      atomic.Uint64
	// node is nil unless the store is shared.
	node *node

	// size is the budget in bytes.
	size atomic.Int64
	// replacing is held while the memory is replaced, given another budget, or closed
	// for good.
	replacing sync.Mutex

	// asking keeps ristretto open while it is asked: its Get and Set panic beside
	// its Close. The locks are many, so that requests do not share one.
	asking [askingShards]askingLock
	closed atomic.Bool
}

// askingLock fills a cache line, so that neighbours do not slow each other down.
type askingLock struct {
	sync.RWMutex
	_ [64 - unsafe.Sizeof(sync.RWMutex{})%64]byte
}

const (
	// A cache has a shard for each two grants that it has room for, of 8 bytes, so
	// that a change makes few grants void that it does not touch.
	minShards = 1 << 16
	maxShards = 1 << 20

	askingShards = 64

	// askEvery is of how many look-ups one asks ristretto although the slot has the
	// answer, so that ristretto learns what is in use.
	askEvery = 64

	// A generation is a counter, and in its low bits how many changes to grants of
	// the shard have begun and not ended. Each value comes once.
	nextGeneration = 1 << 20
	changing       = nextGeneration - 1

	// DefaultCacheSize is the default budget of a cache, in bytes.
	DefaultCacheSize = 64 << 20
	// MinCacheSize and MaxCacheSize bound the budgets that make sense, in bytes.
	MinCacheSize = 64 << 10
	MaxCacheSize = 1 << 40

	// fillTimeout bounds a read of the store that several requests wait for.
	fillTimeout = 10 * time.Second
	// fillTries bounds how often a fill starts anew because its shard moved.
	// The answer is right even then: the read began after the call.
	fillTries = 8
)

// NewCache makes a cache of at most size bytes before a store. The cache owns
// the store from then on.
func NewCache(store Store, size int64) (*Cache, error) {
	first, err := newMemory(size, leastRoom)
	if err != nil {
		return nil, err
	}
	c := &Cache{store: store, known: known{grow: make(chan struct{}, 1)},
		generations: make([]atomic.Uint64, shardsFor(size))}
	c.size.Store(size)
	c.memory.Store(first)
	return c, nil
}

// shardsFor is the number of shards for a budget of size bytes.
func shardsFor(size int64) int64 { return min(max(roomFor(size)/2, minShards), maxShards) }

// Resize changes the budget, in bytes. Shards stay as many as they are.
func (c *Cache) Resize(size int64) {
	c.replacing.Lock()
	defer c.replacing.Unlock()
	c.size.Store(size)
	c.memory.Load().entries.UpdateMaxCost(size)
}

// grow replaces a memory that is too small, unless that is being done.
func (c *Cache) grow() {
	if !c.replacing.TryLock() {
		return
	}
	defer c.replacing.Unlock()
	old := c.memory.Load()
	size := c.size.Load()
	if c.closed.Load() || !old.outgrown(size) {
		return
	}
	larger, err := newMemory(size, roomGrowth*old.room)
	if err != nil {
		return // the old one serves, too
	}
	old.moveTo(larger)
	c.memory.Store(larger)
	c.waitForAskers()
	old.entries.Close()
}

// waitForAskers returns when all who saw what was there before have asked.
func (c *Cache) waitForAskers() {
	for i := range c.asking {
		c.asking[i].Lock()
		//lint:ignore SA2001 the lock is only waited for
		c.asking[i].Unlock()
	}
}

// Misses is how many look-ups asked the store, since the cache was made.
func (c *Cache) Misses() uint64 { return c.misses.Load() }

// Lookup returns the grant of a digest as the store holds it now. The errors
// are those of [Store].
func (c *Cache) Lookup(ctx context.Context, digest Digest) (*Grant, error) {
	g, err := c.recall(ctx, digest)
	if err == nil && c.node != nil && !c.vouches(g) {
		return c.prove(ctx, digest)
	}
	return g, err
}

// recall is Lookup of a store that is not shared. Else the grant is as the store holds
// it now if the cache vouches for it afterwards.
func (c *Cache) recall(ctx context.Context, digest Digest) (*Grant, error) {
	g, absent := c.cached(&digest)
	switch {
	case g != nil:
		return g, nil
	case absent:
		return nil, ErrNotFound
	}
	return c.fill(ctx, digest)
}

// cached returns the current grant of a digest if the cache holds it, and whether
// the store is known not to hold it.
func (c *Cache) cached(digest *Digest) (g *Grant, absent bool) {
	if g = c.recent(digest); g != nil {
		return g, false
	}
	if c.known.lacks(digest) {
		return nil, true
	}
	generation := c.generation(digest).Load()
	g = c.entry(digest)
	if g == nil || g.generation != generation || !g.Digest.equal(digest) || c.closed.Load() {
		return nil, false
	}
	c.memory.Load().slot(digest).Store(g)
	return g, false
}

// recent returns the current grant of a digest if its slot holds it, which it mostly
// does of a key that is in use.
func (c *Cache) recent(digest *Digest) *Grant {
	generation := c.generation(digest).Load()
	g := c.memory.Load().slot(digest).Load()
	if g == nil || g.generation != generation || !g.Digest.equal(digest) || c.closed.Load() {
		return nil
	}
	if rand.Uint32()%askEvery == 0 {
		c.entry(digest)
	}
	return g
}

// entry asks ristretto, if it is still open.
func (c *Cache) entry(digest *Digest) *Grant {
	lock := &c.asking[digest[12]%askingShards]
	lock.RLock()
	defer lock.RUnlock()
	if c.closed.Load() {
		return nil
	}
	return c.memory.Load().entry(digest)
}

// keep hands a grant to the memory, if it is still open.
func (c *Cache) keep(g *Grant) {
	lock := &c.asking[g.Digest[12]%askingShards]
	lock.RLock()
	defer lock.RUnlock()
	if c.closed.Load() {
		return
	}
	m := c.memory.Load()
	if m.keep(g); m.outgrown(c.size.Load()) {
		go c.grow() // which waits for this lock
	}
}

// Current reports whether nothing that g joins has changed since it was read.
func (c *Cache) Current(g *Grant) bool { return g.generation == c.generation(&g.Digest).Load() }

// fill reads the store. Concurrent misses of one digest and generation share
// one read; if the generation moved meanwhile, the result is not used.
func (c *Cache) fill(ctx context.Context, digest Digest) (*Grant, error) {
	c.misses.Add(1)
	for try := 1; ; try++ {
		generation := c.generation(&digest).Load()
		g, err := c.sharedRead(ctx, digest, generation)
		if try == fillTries || c.generation(&digest).Load() == generation {
			return g, err
		}
	}
}

// sharedRead joins or starts the read of one digest at one generation. A caller
// that goes away leaves the read to the others.
func (c *Cache) sharedRead(ctx context.Context, digest Digest, generation uint64) (*Grant, error) {
	flight, timeout := string(digest[:])+strconv.FormatUint(generation, 36), fillTimeout
	if c.node != nil {
		flight, timeout = flight+c.node.period(), c.node.proofTimeout()
	}
	result := c.fills.DoChan(flight, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		g, err := c.read(ctx, digest, generation)
		if err == nil && generation&changing == 0 {
			c.keep(g)
		}
		return g, err
	})
	select {
	case r := <-result:
		g, _ := r.Val.(*Grant)
		return g, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Cache) read(ctx context.Context, digest Digest, generation uint64) (*Grant, error) {
	g, err := c.store.Lookup(ctx, digest)
	if err != nil {
		return nil, err
	}
	g.generation = generation
	g.prepare()
	return g, nil
}

// Update runs change in a transaction of the store, and makes every cached
// grant that it touches void before it returns. On a store that is shared it returns
// when the change holds on every node, unless the context is of [WithEffect], or ends.
// See [Store] for the rest.
func (c *Cache) Update(ctx context.Context, change func(Tx) error) error {
	var announced Announcement
	err := c.update(ctx, func(tx *watchedTx) (err error) {
		if err = change(tx); err == nil && c.node != nil {
			announced, err = tx.announce()
		}
		return err
	})
	if err == nil && c.node != nil {
		c.node.await(ctx, announced)
	}
	return err
}

// update is Update on this node.
func (c *Cache) update(ctx context.Context, change func(*watchedTx) error) error {
	var touched []Digest
	defer func() {
		for i := range touched {
			c.generation(&touched[i]).Add(nextGeneration - 1)
		}
	}()
	return c.store.Update(ctx, func(tx Tx) error {
		return change(&watchedTx{Tx: tx, touches: func(digests ...Digest) {
			for i := range digests {
				c.generation(&digests[i]).Add(1)
			}
			c.known.add(digests...)
			touched = append(touched, digests...)
		}})
	})
}

// Invalidate makes the cached grants of digests void.
func (c *Cache) Invalidate(digests ...Digest) {
	for i := range digests {
		c.generation(&digests[i]).Add(nextGeneration)
	}
}

// View runs read with a consistent snapshot of the store.
func (c *Cache) View(ctx context.Context, read func(Reader) error) error {
	return c.store.View(ctx, read)
}

// Backup writes a consistent snapshot of the store to w.
func (c *Cache) Backup(ctx context.Context, w io.Writer) error { return c.store.Backup(ctx, w) }

// Close closes the cache and its store.
func (c *Cache) Close() error {
	c.closeMemory()
	return c.store.Close()
}

// closeMemory has the cache hold nothing any more.
func (c *Cache) closeMemory() {
	if !c.closed.CompareAndSwap(false, true) {
		return
	}
	c.known.forget()
	c.replacing.Lock()
	defer c.replacing.Unlock()
	c.waitForAskers()
	c.memory.Load().entries.Close()
}

// generation is that of the digest's shard.
func (c *Cache) generation(digest *Digest) *atomic.Uint64 {
	return &c.generations[scaled(digest, len(c.generations))]
}

// scaled turns some bytes of a digest into one of n numbers, of which there are less
// than 2^32.
func scaled(digest *Digest, n int) uint64 {
	return uint64(binary.LittleEndian.Uint32(digest[8:])) * uint64(n) >> 32
}
