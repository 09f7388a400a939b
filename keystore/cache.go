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

	"github.com/dgraph-io/ristretto/v2"
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
// Which of ristretto's entries were asked for last is remembered in slots, which
// spares most requests ristretto's own look-up. What the store is
// known not to hold is asked for neither in ristretto, which would take it for in
// demand, nor in the store.
type Cache struct {
	store   Store
	known   known
	entries *ristretto.Cache[uint64, *Grant]
	// generations are by shard.
	generations []atomic.Uint64
	// slots hold entries of ristretto, or nil. One may have been evicted a moment ago,
	// or be void.
	slots  []atomic.Pointer[Grant]
	fills  singleflight.Group
	misses atomic.Uint64
	// node is nil unless the store is shared.
	node *node

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
	// that a change makes few grants void that it does not touch; and three slots for
	// each grant, of 8 bytes, for with fewer a slot is more often found to hold
	// another key's.
	minShards = 1 << 16
	maxShards = 1 << 20
	minSlots  = 1 << 16
	maxSlots  = 1 << 23

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

	// maxCounters bounds what ristretto allocates at once, to about 200 MiB.
	maxCounters = 1 << 26

	// entryOverhead is about what ristretto with its maps and counters, the shards and
	// the slots hold beside a grant.
	entryOverhead = 240

	// typicalCost is about the cost of a grant.
	typicalCost = int64(unsafe.Sizeof(Grant{})) + entryOverhead + 200

	// fillTimeout bounds a read of the store that several requests wait for.
	fillTimeout = 10 * time.Second
	// fillTries bounds how often a fill starts anew because its shard moved.
	// The answer is right even then: the read began after the call.
	fillTries = 8
)

// NewCache makes a cache of at most size bytes before a store. The cache owns
// the store from then on.
func NewCache(store Store, size int64) (*Cache, error) {
	c := &Cache{store: store, known: known{grow: make(chan struct{}, 1)},
		generations: make([]atomic.Uint64, shardsFor(size)), slots: make([]atomic.Pointer[Grant], slotsFor(size))}
	var err error
	c.entries, err = ristretto.NewCache(&ristretto.Config[uint64, *Grant]{
		NumCounters:        counters(size),
		MaxCost:            size,
		BufferItems:        64,
		IgnoreInternalCost: true, // our costs are bytes and include it
		KeyToHash:          func(word uint64) (uint64, uint64) { return word, 0 },
		// What ristretto gives up is not to be kept in memory by its slot.
		OnExit: func(g *Grant) {
			if g != nil {
				c.slot(&g.Digest).CompareAndSwap(g, nil)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// counters is eight for each grant that the budget holds, for about 40 bytes.
// Ristretto advises ten, but more do not make it choose better here. The counters are
// made at once, so that their number has a bound of its own.
func counters(size int64) int64 { return min(max(8*(size/typicalCost), 1000), maxCounters) }

// shardsFor and slotsFor are the numbers of them for a budget of size bytes.
func shardsFor(size int64) int64 { return min(max(size/typicalCost/2, minShards), maxShards) }

func slotsFor(size int64) int64 { return min(max(size/typicalCost*3, minSlots), maxSlots) }

// Resize changes the budget, in bytes. Shards, slots and counters stay as many as they are.
func (c *Cache) Resize(size int64) { c.entries.UpdateMaxCost(size) }

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
	c.slot(digest).Store(g)
	return g, false
}

// recent returns the current grant of a digest if its slot holds it, which it mostly
// does of a key that is in use.
func (c *Cache) recent(digest *Digest) *Grant {
	generation := c.generation(digest).Load()
	g := c.slot(digest).Load()
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
	g, _ := c.entries.Get(word(digest))
	return g
}

// keep hands a grant to ristretto, if it is still open. Its slot has it at once,
// so that those who ask before ristretto has decided on it do not read the store
// anew, and until ristretto decides against it.
func (c *Cache) keep(g *Grant) {
	lock := &c.asking[g.Digest[12]%askingShards]
	lock.RLock()
	defer lock.RUnlock()
	if c.closed.Load() {
		return
	}
	slot := c.slot(&g.Digest)
	slot.Store(g)
	if !c.entries.Set(word(&g.Digest), g, g.cost()) {
		slot.CompareAndSwap(g, nil)
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
	if c.closed.CompareAndSwap(false, true) {
		c.known.forget()
		for i := range c.asking {
			c.asking[i].Lock()
			//lint:ignore SA2001 the lock is only waited for: who saw the cache open has asked
			c.asking[i].Unlock()
		}
		c.entries.Close()
	}
	return c.store.Close()
}

// generation is that of the digest's shard.
func (c *Cache) generation(digest *Digest) *atomic.Uint64 {
	return &c.generations[scaled(digest, len(c.generations))]
}

func (c *Cache) slot(digest *Digest) *atomic.Pointer[Grant] {
	return &c.slots[scaled(digest, len(c.slots))]
}

// scaled turns some bytes of a digest into one of n numbers, of which there are less
// than 2^32.
func scaled(digest *Digest, n int) uint64 {
	return uint64(binary.LittleEndian.Uint32(digest[8:])) * uint64(n) >> 32
}

// word is ristretto's key for a digest.
func word(digest *Digest) uint64 { return binary.LittleEndian.Uint64(digest[:]) }

// cost is about how many bytes a cached grant holds.
func (g *Grant) cost() int64 {
	n := int(unsafe.Sizeof(*g)) + entryOverhead
	n += len(g.KeyID) + len(g.CredentialID) + len(g.AccountID) + len(g.AccountEmail) + len(g.Package)
	for _, r := range g.Roles {
		n += int(unsafe.Sizeof(r)) + len(r)
	}
	return int64(n + len(g.AllowedIPs)*int(unsafe.Sizeof(g.AllowedIPs)))
}
