package keystore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// scriptedStore is a store of keys whose Lookup can be held after it has read
// and before it returns: the moment that the real parts pass too quickly.
type scriptedStore struct {
	Store
	mu      sync.Mutex
	revoked map[Digest]Instant // of the keys that exist
	lookups atomic.Int64
	// held, if set, runs between a Lookup's read and its return.
	held func()
	// committed, if set, runs between an Update's commit and its return.
	committed func()
	// fails, if set, is what Update answers after the change.
	fails error
}

func (s *scriptedStore) Lookup(_ context.Context, d Digest) (*Grant, error) {
	s.lookups.Add(1)
	s.mu.Lock()
	revoked, ok := s.revoked[d]
	held := s.held
	s.mu.Unlock()
	if held != nil {
		held()
	}
	if !ok {
		return nil, ErrNotFound
	}
	return &Grant{Digest: d, RevokedAt: revoked, AccountActive: true, CredentialActive: true}, nil
}

func (s *scriptedStore) Update(_ context.Context, change func(Tx) error) error {
	if err := change(scriptedTx{s: s}); err != nil {
		return err
	}
	if s.committed != nil {
		s.committed()
	}
	return s.fails
}

func (s *scriptedStore) Close() error { return nil }

type scriptedTx struct {
	Tx
	s *scriptedStore
}

func (tx scriptedTx) UpdateKey(k *Key) error {
	tx.s.mu.Lock()
	defer tx.s.mu.Unlock()
	tx.s.revoked[k.Digest] = k.RevokedAt
	return nil
}

func (tx scriptedTx) CreateKey(k *Key) error { return tx.UpdateKey(k) }

func newTestCache(t *testing.T, size int64) (*Cache, *scriptedStore) {
	t.Helper()
	store := &scriptedStore{revoked: map[Digest]Instant{}}
	c, err := NewCache(store, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, store
}

// TestStaleFillIsNeverServed forces, thousands of times, the order that leaves a
// revoked key in a cache that only deletes: a reader loads the grant, the key is
// revoked and the answer given, and only then the reader stores what it loaded.
func TestStaleFillIsNeverServed(t *testing.T) {
	c, store := newTestCache(t, DefaultCacheSize)
	ctx := context.Background()
	stale := 0
	for i := range 5000 {
		d := Digest{byte(i), byte(i >> 8), 1}
		store.revoked[d] = 0
		revoked := make(chan error, 1)
		var once sync.Once
		store.held = func() {
			if e, ok := c.memory.Load().entries.Get(word(&d)); ok && e.RevokedAt == 0 {
				stale++ // the read anew: ristretto does hold the grant from before the revocation
			}
			once.Do(func() {
				revoked <- c.Update(ctx, func(tx Tx) error { return tx.UpdateKey(&Key{Digest: d, RevokedAt: 1}) })
			})
		}
		got, err := c.Lookup(ctx, d) // starts before the revocation, and is told of it
		if err != nil || got.RevokedAt == 0 {
			t.Fatalf("round %d: the lookup that the revocation overtook returned %+v, %v", i, got, err)
		}
		if err := <-revoked; err != nil {
			t.Fatal(err)
		}
		if got, err := c.Lookup(ctx, d); err != nil || got.RevokedAt == 0 {
			t.Fatalf("round %d: a revoked key is accepted: %+v, %v", i, got, err)
		}
	}
	if stale == 0 {
		t.Error("the order was never forced: no stale grant lay in the cache")
	}
	t.Logf("%d of 5000 rounds left the stale grant in ristretto", stale)
}

func TestEntriesAreVoidAlsoWhenTheCommitFailed(t *testing.T) {
	c, store := newTestCache(t, DefaultCacheSize)
	ctx := context.Background()
	d := Digest{1}
	store.revoked[d] = 0
	if _, err := c.Lookup(ctx, d); err != nil {
		t.Fatal(err)
	}
	store.fails = ErrUnavailable // the change may be there all the same, and here it is
	err := c.Update(ctx, func(tx Tx) error { return tx.UpdateKey(&Key{Digest: d, RevokedAt: 1}) })
	if !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if got, _ := c.Lookup(ctx, d); got.RevokedAt == 0 {
		t.Error("a key is accepted whose revocation is in the store")
	}
}

// TestNoLookupGoesBackBehindACommit looks up while a change is committed and not
// answered: whoever is not in the cache is told of it, so nobody is told otherwise.
func TestNoLookupGoesBackBehindACommit(t *testing.T) {
	c, store := newTestCache(t, DefaultCacheSize)
	ctx := context.Background()
	d := Digest{1}
	store.revoked[d] = 0
	if _, err := c.Lookup(ctx, d); err != nil {
		t.Fatal(err)
	}
	c.memory.Load().entries.Wait()
	store.committed = func() {
		if got, err := c.Lookup(ctx, d); err != nil || got.RevokedAt == 0 {
			t.Errorf("after the commit the cache still tells %+v, %v", got, err)
		}
	}
	for at := range Instant(3) {
		if err := c.Update(ctx, func(tx Tx) error { return tx.UpdateKey(&Key{Digest: d, RevokedAt: at + 1}) }); err != nil {
			t.Fatal(err)
		}
	}
	before := store.lookups.Load()
	for range 3 {
		if _, err := c.Lookup(ctx, d); err != nil {
			t.Fatal(err)
		}
		c.memory.Load().entries.Wait()
	}
	if n := store.lookups.Load() - before; n != 1 {
		t.Errorf("%d reads of the store after the changes, want 1", n)
	}
}

func TestACreatedKeyWorksAfterItWasRefused(t *testing.T) {
	c, _ := newTestCache(t, DefaultCacheSize)
	ctx := context.Background()
	for i := range 1000 {
		d := Digest{byte(i), byte(i >> 8)}
		if _, err := c.Lookup(ctx, d); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if err := c.Update(ctx, func(tx Tx) error { return tx.CreateKey(&Key{Digest: d}) }); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Lookup(ctx, d); err != nil {
			t.Fatalf("round %d: a created key is refused: %v", i, err)
		}
	}
}

func TestConcurrentMissesShareOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{revoked: map[Digest]Instant{{1}: 0}}
		c, err := NewCache(store, DefaultCacheSize)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		release := make(chan struct{})
		store.held = func() { <-release }
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if _, err := c.Lookup(t.Context(), Digest{1}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all of them wait for the one read
		close(release)
		wg.Wait()
		if n := store.lookups.Load(); n != 1 {
			t.Errorf("%d reads of the store, want 1", n)
		}
	})
}

func TestACallerThatLeavesDoesNotBreakTheReadOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &scriptedStore{revoked: map[Digest]Instant{{1}: 0}}
		c, err := NewCache(store, DefaultCacheSize)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		release := make(chan struct{})
		store.held = func() { <-release }
		leaving, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Lookup(leaving, Digest{1}); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that left got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := c.Lookup(t.Context(), Digest{1}); err != nil {
				t.Errorf("the caller that stayed got %v", err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		wg.Wait()
	})
}

func TestErrorsAreNotCached(t *testing.T) {
	c, store := newTestCache(t, DefaultCacheSize)
	for range 3 {
		if _, err := c.Lookup(context.Background(), Digest{1}); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := store.lookups.Load(); n != 3 {
		t.Errorf("%d reads of the store, want 3", n)
	}
}

func TestAFillBesideCloseDoesNotPanic(t *testing.T) {
	for range 200 {
		store := &scriptedStore{revoked: map[Digest]Instant{{1}: 0}}
		c, err := NewCache(store, MinCacheSize)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { _, _ = c.Lookup(context.Background(), Digest{1}) })
		}
		wg.Go(func() { _ = c.Close() })
		wg.Wait()
	}
}

func TestUsesAreWrittenInBatches(t *testing.T) {
	var u uses
	g := &Grant{KeyID: "k"}
	start := InstantOf(time.Unix(1_000_000, 0))
	for i := range 600 {
		u.note(g, start.Add(time.Duration(i)*time.Second))
	}
	if got, want := u.pending["k"].Use, (Use{"k", start, start.Add(9 * time.Minute)}); got != want {
		t.Errorf("pending %+v, want %+v", got, want)
	}
}

// usesStore keeps the uses that it is told of.
type usesStore struct {
	Store
	Tx
	told []Use
}

func (s *usesStore) Update(_ context.Context, change func(Tx) error) error { return change(s) }

func (s *usesStore) RecordUses(uses []Use) error {
	s.told = append(s.told, uses...)
	return nil
}

func TestUsesAreWrittenInTheOrderOfTheirCredentials(t *testing.T) {
	const keys = 3*useBatch + 1
	var u uses
	var want []Use
	for i := range keys {
		want = append(want, Use{fmt.Sprintf("key-%d", keys-i), Instant(i + 1), Instant(i + 1)})
	}
	for _, i := range rand.Perm(keys) {
		u.merge(pendingUse{want[i], fmt.Sprintf("credential-%05d", i)})
	}
	var store usesStore
	if err := u.flush(t.Context(), &store); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(store.told, want) {
		t.Errorf("%d uses of %d were written, or in another order", len(store.told), keys)
	}
}

// TestLookupsBesideCloseDoNotPanic: requests of an old configuration look keys
// up while its cache is closed, and so does the goroutine that judges streams.
func TestLookupsBesideCloseDoNotPanic(t *testing.T) {
	for range 200 {
		store := &scriptedStore{revoked: map[Digest]Instant{}}
		c, err := NewCache(store, MinCacheSize)
		if err != nil {
			t.Fatal(err)
		}
		var d Digest
		binary.LittleEndian.PutUint64(d[:], 7)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _ = c.cached(&d)
					}
				}
			})
		}
		_ = c.Close()
		close(stop)
		wg.Wait()
	}
}
