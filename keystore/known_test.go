package keystore

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// exclusiveStore is a scriptedStore that tells its digests, with the moments at
// which a filter could go wrong held open.
type exclusiveStore struct {
	scriptedStore
	// turn is held by the Update that runs.
	turn chan struct{}
	// unordered lets Updates that change nothing pass those that run: a store that
	// breaks the contract, and so a build without its barrier.
	unordered bool
	// scanned, if set, runs after the digests were told.
	scanned func()
	// unreadable, if set, is what EachDigest answers.
	unreadable error
	scans      int
}

func newExclusiveStore() *exclusiveStore {
	return &exclusiveStore{scriptedStore: scriptedStore{revoked: map[Digest]Instant{}}, turn: make(chan struct{}, 1)}
}

func (s *exclusiveStore) Update(ctx context.Context, change func(Tx) error) error {
	if !s.unordered {
		s.turn <- struct{}{}
		defer func() { <-s.turn }()
	}
	return s.scriptedStore.Update(ctx, change)
}

func (s *exclusiveStore) View(_ context.Context, read func(Reader) error) error {
	return read(emptyReader{})
}

func (s *exclusiveStore) Backup(context.Context, io.Writer) error { return nil }

func (s *exclusiveStore) Exclusive() bool { return true }

func (s *exclusiveStore) KeysAtMost(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.revoked)), nil
}

func (s *exclusiveStore) EachDigest(ctx context.Context, do func(Digest)) error {
	s.mu.Lock()
	s.scans++
	for d := range s.revoked {
		do(d)
	}
	unreadable := s.unreadable
	s.mu.Unlock()
	if s.scanned != nil {
		s.scanned()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return unreadable
}

type emptyReader struct{ Reader }

func (emptyReader) Setting(string) ([]byte, error) { return nil, nil }

func (tx scriptedTx) Prune(Instant) error { return nil }

func (tx scriptedTx) SetSetting(string, []byte) error { return nil }

func (tx scriptedTx) Setting(string) ([]byte, error) { return nil, nil }

// openKnown opens a vault over a store, whose background work has come to rest.
func openKnown(t *testing.T, store Store) (v *Vault, problems *[]error) {
	t.Helper()
	problems = new([]error)
	v, err := OpenVault(t.Context(), store, MinCacheSize, func(_ string, err error) { *problems = append(*problems, err) })
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return v, problems
}

func creates(d Digest) func(Tx) error {
	return func(tx Tx) error { return tx.CreateKey(&Key{Digest: d}) }
}

var digests = rand.New(rand.NewPCG(7, 7))

func TestUnknownKeysReachNeitherCacheNorStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newExclusiveStore()
		there := randomDigest(digests)
		store.revoked[there] = 1 // revoked keys stay known
		v, _ := openKnown(t, store)
		defer v.Close()
		for range 1000 {
			if _, err := v.Lookup(t.Context(), randomDigest(digests)); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
		}
		if n := store.lookups.Load(); n != 0 || v.Misses() != 0 {
			t.Errorf("%d reads of the store, %d misses", n, v.Misses())
		}
		if g, err := v.Lookup(t.Context(), there); err != nil || g.RevokedAt != 1 {
			t.Errorf("a revoked key answers %+v, %v", g, err)
		}
	})
}

// TestAStoreThatOthersChangeIsAlwaysAsked: it does not say that it is exclusive.
func TestAStoreThatOthersChangeIsAlwaysAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newExclusiveStore()
		v, _ := openKnown(t, struct{ Store }{store})
		defer v.Close()
		if _, err := v.Lookup(t.Context(), randomDigest(digests)); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		if store.lookups.Load() != 1 || store.scans != 0 {
			t.Error("the store was not asked")
		}
	})
}

func TestAFilterThatIsBeingBuiltDeniesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newExclusiveStore()
		release := make(chan struct{})
		store.scanned = func() { <-release }
		v, _ := openKnown(t, store)
		defer v.Close()
		late := randomDigest(digests)
		store.revoked[late] = 0 // not even what the scan can't have seen
		if _, err := v.Lookup(t.Context(), late); err != nil {
			t.Error(err)
		}
		// What is created now is known to the filter when it is complete.
		made := randomDigest(digests)
		if err := v.Update(t.Context(), creates(made)); err != nil {
			t.Fatal(err)
		}
		close(release)
		synctest.Wait()
		if _, err := v.Lookup(t.Context(), made); err != nil {
			t.Error(err)
		}
		if !v.known.lacks(&late) {
			t.Error("the filter is not complete: nothing was tested")
		}
	})
}

// TestAKeyIsKnownBeforeItIsCommitted looks a key up between its commit and the
// answer. The control tells the filter after the commit, and is found out.
func TestAKeyIsKnownBeforeItIsCommitted(t *testing.T) {
	for name, c := range map[string]struct {
		create func(*Vault, Digest) error
		want   error
	}{
		"before the commit": {func(v *Vault, d Digest) error { return v.Update(context.Background(), creates(d)) }, nil},
		"control: after the commit": {func(v *Vault, d Digest) error {
			err := v.store.Update(context.Background(), creates(d))
			v.known.add(d)
			return err
		}, ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newExclusiveStore()
				v, _ := openKnown(t, store)
				defer v.Close()
				d := randomDigest(digests)
				store.committed = func() {
					if _, err := v.Lookup(t.Context(), d); !errors.Is(err, c.want) {
						t.Errorf("got %v, want %v", err, c.want)
					}
				}
				if err := c.create(v, d); err != nil {
					t.Fatal(err)
				}
				store.committed = nil
			})
		})
	}
}

// TestABuildWaitsForTheUpdatesThatBeganBefore has an update name its key before the
// build begins, and commit it after. The control is a build that does not wait.
func TestABuildWaitsForTheUpdatesThatBeganBefore(t *testing.T) {
	for name, control := range map[string]bool{"waits": false, "control: does not wait": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newExclusiveStore()
				store.unordered = control
				c, err := NewCache(store, MinCacheSize)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				d := randomDigest(digests)
				release := make(chan struct{})
				var wg sync.WaitGroup
				wg.Go(func() {
					err := c.store.Update(t.Context(), func(tx Tx) error {
						c.known.add(d) // as Update does
						<-release
						return tx.CreateKey(&Key{Digest: d})
					})
					if err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				wg.Go(func() {
					if err := c.known.build(t.Context(), store); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				close(release)
				wg.Wait()
				if refused := c.known.lacks(&d); refused != control {
					t.Errorf("refused: %t, want %t", refused, control)
				}
			})
		})
	}
}

func TestAFullFilterIsBuiltAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newExclusiveStore()
		v, _ := openKnown(t, store)
		defer v.Close()
		made := make([]Digest, 5*leastKnown)
		for i := range made {
			made[i] = randomDigest(digests)
		}
		for batch := made; len(batch) > 0; batch = batch[1024:] {
			err := v.Update(t.Context(), func(tx Tx) error {
				for _, d := range batch[:1024] {
					if err := tx.CreateKey(&Key{Digest: d}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range batch[:1024] {
				if v.known.lacks(&batch[i]) {
					t.Fatal("a key that was created is denied")
				}
			}
		}
		synctest.Wait()
		f := v.known.complete.Load()
		if f.full() || f.capacity < int64(len(made)) || store.scans > 5 {
			t.Errorf("room for %d of %d, after %d builds", f.capacity, len(made), store.scans)
		}
		for i := range made {
			if !f.has(&made[i]) {
				t.Fatal("a key that was created is denied")
			}
		}
	})
}

func TestABuildThatFailsIsReportedAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newExclusiveStore()
		store.unreadable = ErrUnavailable
		v, problems := openKnown(t, store)
		defer v.Close()
		d := randomDigest(digests)
		if v.known.lacks(&d) || v.known.building.Load() != nil || len(*problems) != 1 {
			t.Errorf("a half filter is in use, or its failure was not reported: %v", *problems)
		}
		store.mu.Lock()
		store.unreadable = nil
		store.mu.Unlock()
		time.Sleep(rebuildAfter)
		synctest.Wait()
		if !v.known.lacks(&d) || len(*problems) != 1 {
			t.Errorf("it was not tried again: %v", *problems)
		}
	})
}

// TestCloseEndsABuild: the test ends only if its goroutine does. After Close nothing
// is denied any more, since others may change the store then.
func TestCloseEndsABuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newExclusiveStore()
		var v *Vault
		opened := make(chan struct{})
		store.scanned = func() {
			<-opened
			<-v.quit
			time.Sleep(time.Millisecond)
		}
		v, problems := openKnown(t, store)
		close(opened)
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		d := randomDigest(digests)
		if v.known.lacks(&d) || len(*problems) != 0 {
			t.Errorf("after Close: lacks %t, problems %v", v.known.lacks(&d), *problems)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		v, _ := openKnown(t, newExclusiveStore())
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		if d := randomDigest(digests); v.known.lacks(&d) {
			t.Error("a closed cache denies what it can't know")
		}
	})
}
