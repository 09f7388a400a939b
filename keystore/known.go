package keystore

import (
	"context"
	"sync/atomic"
	"time"
)

// Exclusive is a [Store] that can tell which digests it holds. For those that no
// other process changes, a [Vault] keeps a filter of them in memory, so that unknown
// keys reach neither the cache nor the store.
type Exclusive interface {
	Store

	// Exclusive reports whether nothing but this Store changes what it holds, from
	// when it is opened until Close. Updates of such a store run one after the other:
	// one that is called while another's function runs returns after that other one is
	// committed, or was given up.
	Exclusive() bool

	// KeysAtMost is an upper bound for the number of keys, and not far from it.
	KeysAtMost(ctx context.Context) (int64, error)

	// EachDigest calls do with the digest of every key, also of those that are
	// revoked or whose owner is deleted, that was committed before the call. Those
	// that are committed meanwhile may be among them. Updates need not wait for it.
	// The errors are those of View.
	EachDigest(ctx context.Context, do func(Digest)) error
}

// known is what a cache knows of the digests that its store holds: nothing, or a
// filter of all of them.
//
// A filter is complete because every digest is in it before it is in the store:
//
//   - An Update adds the digests that it touches before its commit, to the filter
//     that is complete and to the one that is being built.
//   - A build begins to be told of them first. Then it waits for every Update that
//     began before. Only then it reads the store, which holds what those made.
//   - Nothing is ever taken out. The digests of revoked keys stay, as they do in
//     the store; those of an Update that failed are too many, which is no harm.
//
// Until a build is through, its filter denies nothing.
type known struct {
	complete, building atomic.Pointer[filter]
	// grow is told that the complete filter is full.
	grow chan struct{}
}

const (
	// leastKnown is for how many digests there is room at least.
	leastKnown = 1 << 16
	// rebuildAfter is when a build that failed is tried again.
	rebuildAfter = time.Minute
)

// lacks reports whether the store holds no such digest, for certain.
func (k *known) lacks(d *Digest) bool {
	f := k.complete.Load()
	return f != nil && !f.has(d)
}

// add is called before what it is told of is committed.
func (k *known) add(digests ...Digest) {
	// In this order, because the one becomes the other.
	building := k.building.Load()
	complete := k.complete.Load()
	for i := range digests {
		if building != nil {
			building.add(&digests[i])
		}
		if complete != nil {
			complete.add(&digests[i])
		}
	}
	if complete != nil && complete.full() {
		k.wantsRoom()
	}
}

// wantsRoom has a larger filter built.
func (k *known) wantsRoom() {
	select {
	case k.grow <- struct{}{}:
	default: // it is going to be
	}
}

// build makes a filter of what the store holds, with room for as much again. Where
// it fails, the last one stays.
func (k *known) build(ctx context.Context, store Exclusive) error {
	n, err := store.KeysAtMost(ctx)
	if err != nil {
		return err
	}
	f := newFilter(max(2*n, leastKnown))
	k.building.Store(f)
	defer k.building.Store(nil)
	// The Updates that could not see the filter any earlier come before this one.
	if err := store.Update(ctx, func(Tx) error { return nil }); err != nil {
		return err
	}
	if err := store.EachDigest(ctx, func(d Digest) { f.add(&d) }); err != nil {
		return err
	}
	k.complete.Store(f)
	return nil
}

// forget is for the time after which others may change the store.
func (k *known) forget() { k.complete.Store(nil) }

// run builds the filter, and builds it anew whenever it is full, until ctx ends.
// Report is told what keeps it from that.
func (k *known) run(ctx context.Context, store Exclusive, report func(problem string, err error)) {
	for {
		err := k.build(ctx, store)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			report("the filter of known keys could not be built; it is tried again", err)
		}
		if !k.wait(ctx, err != nil) {
			return
		}
	}
}

// wait reports whether it is time to build again, else ctx has ended.
func (k *known) wait(ctx context.Context, failed bool) bool {
	if failed {
		select {
		case <-time.After(rebuildAfter):
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		if f := k.complete.Load(); f != nil && f.full() {
			return true
		}
		select {
		case <-k.grow: // perhaps by one that was replaced meanwhile
		case <-ctx.Done():
			return false
		}
	}
}
