package keystore

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// hold has the cache look up keys from first up to but not including end.
func hold(t *testing.T, c *Cache, store *scriptedStore, first, end uint32) {
	t.Helper()
	for i := first; i < end; i++ {
		d := numbered(i)
		store.mu.Lock()
		store.revoked[d] = 0
		store.mu.Unlock()
		if _, err := c.Lookup(context.Background(), d); err != nil {
			t.Error(err) // not Fatal: it runs beside the test, too
			return
		}
	}
}

func numbered(i uint32) (d Digest) {
	binary.LittleEndian.PutUint32(d[:], i)
	binary.LittleEndian.PutUint32(d[8:], i*2654435761) // evenly over slots and shards
	return d
}

// awaitRoom waits until the memory is made for that many grants.
func awaitRoom(t *testing.T, c *Cache, room int64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); c.memory.Load().room != room; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the memory is made for %d grants and holds %d, want room for %d", c.memory.Load().room, c.memory.Load().held.Load(), room)
		}
	}
}

func TestAMemoryIsMadeForWhatItHolds(t *testing.T) {
	before := goleak.IgnoreCurrent()
	c, store := newTestCache(t, DefaultCacheSize)
	hold(t, c, store, 0, leastRoom)
	c.memory.Load().entries.Wait()
	awaitRoom(t, c, leastRoom)
	hold(t, c, store, leastRoom, leastRoom+1000)
	awaitRoom(t, c, roomGrowth*leastRoom)
	c.memory.Load().entries.Wait()

	reads := store.lookups.Load()
	hold(t, c, store, 0, leastRoom)
	if n := store.lookups.Load() - reads; n > leastRoom/10 {
		t.Errorf("%d of %d keys were read anew after the memory grew", n, leastRoom)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

func TestAMemoryIsMadeForNoMoreThanTheBudgetHolds(t *testing.T) {
	const room = 100
	c, store := newTestCache(t, room*typicalCost)
	hold(t, c, store, 0, 20*room)
	if got := c.memory.Load().room; got != room {
		t.Errorf("a budget for %d grants, and a memory made for %d", room, got)
	}
}

func TestALargerBudgetGivesTheMemoryRoomToGrow(t *testing.T) {
	const room = 100
	c, store := newTestCache(t, room*typicalCost)
	hold(t, c, store, 0, 2*room)
	c.Resize(DefaultCacheSize)
	hold(t, c, store, 2*room, 4*room)
	awaitRoom(t, c, roomGrowth*room)
	c.memory.Load().entries.Wait()
	hold(t, c, store, 0, 4*room)
	c.memory.Load().entries.Wait()
	reads := store.lookups.Load()
	hold(t, c, store, 0, 4*room)
	if n := store.lookups.Load() - reads; n > room {
		t.Errorf("%d of %d keys are not held by the larger memory", n, 4*room)
	}
}

// TestAMemoryGrowsBesideEverything is for the race detector, and for panics of
// ristretto's, which bears no call beside its Close.
func TestAMemoryGrowsBesideEverything(t *testing.T) {
	for range 5 {
		c, store := newTestCache(t, DefaultCacheSize)
		var work sync.WaitGroup
		for worker := range uint32(4) {
			work.Go(func() { hold(t, c, store, worker*leastRoom/2, (worker+1)*leastRoom/2) })
		}
		work.Go(func() {
			for i := range uint32(leastRoom) {
				c.Invalidate(numbered(i))
			}
		})
		work.Go(func() {
			for size := range int64(100) {
				c.Resize(DefaultCacheSize + size)
			}
		})
		work.Go(func() {
			for c.memory.Load().held.Load() < leastRoom {
				time.Sleep(time.Millisecond)
			}
			_ = c.Close() // while it grows
		})
		work.Wait()
	}
}

// TestARevokedKeyStaysRevokedWhenTheMemoryGrows revokes keys while their grants are
// moved.
func TestARevokedKeyStaysRevokedWhenTheMemoryGrows(t *testing.T) {
	c, store := newTestCache(t, DefaultCacheSize)
	hold(t, c, store, 0, leastRoom)
	ctx := context.Background()
	var growing sync.WaitGroup
	growing.Go(func() { hold(t, c, store, leastRoom, leastRoom+1000) })
	for i := range uint32(leastRoom) {
		d := numbered(i)
		if err := c.Update(ctx, func(tx Tx) error { return tx.UpdateKey(&Key{Digest: d, RevokedAt: 1}) }); err != nil {
			t.Fatal(err)
		}
		if g, err := c.Lookup(ctx, d); err != nil || g.RevokedAt == 0 {
			t.Fatalf("key %d is accepted after its revocation: %+v, %v", i, g, err)
		}
	}
	growing.Wait()
	awaitRoom(t, c, roomGrowth*leastRoom)
	for i := range uint32(leastRoom) {
		if g, err := c.Lookup(ctx, numbered(i)); err != nil || g.RevokedAt == 0 {
			t.Fatalf("key %d is accepted in the larger memory: %+v, %v", i, g, err)
		}
	}
}
