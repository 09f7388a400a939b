package keystore

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// uses collects when keys were used, for one write a while instead of one a
// request.
type uses struct {
	mu      sync.Mutex
	pending map[string]Use // by key id
}

const (
	// useGranularity is how often one key's use is noted at most, in seconds, so that
	// a busy key takes the lock once a minute.
	useGranularity = 60
	// maxPendingUses bounds what is kept while the store can't be written.
	maxPendingUses = 1 << 17
	// useBatch is how many are written at a time, so that changes need not wait
	// for all of them.
	useBatch = 1000
)

// note records that the key was accepted at now.
func (u *uses) note(g *Grant, now Instant) {
	last, second := g.noted.Load(), uint32(now/1000)
	if second-last < useGranularity || !g.noted.CompareAndSwap(last, second) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.merge(Use{g.KeyID, now, now})
}

// merge adds a use to those pending. The caller holds the lock.
func (u *uses) merge(use Use) {
	old, ok := u.pending[use.KeyID]
	switch {
	case ok:
		use = Use{use.KeyID, min(old.First, use.First), max(old.Last, use.Last)}
	case len(u.pending) >= maxPendingUses:
		return
	case u.pending == nil:
		u.pending = map[string]Use{}
	}
	u.pending[use.KeyID] = use
}

// flush writes what is pending; what can't be written stays pending.
func (u *uses) flush(ctx context.Context, store Store) error {
	u.mu.Lock()
	batch := slices.Collect(maps.Values(u.pending))
	u.pending = nil
	u.mu.Unlock()
	for len(batch) > 0 {
		part := batch[:min(len(batch), useBatch)]
		err := store.Update(ctx, func(tx Tx) error { return tx.RecordUses(part) })
		if err != nil {
			u.restore(batch)
			return err
		}
		batch = batch[len(part):]
	}
	return nil
}

// restore puts back what could not be written.
func (u *uses) restore(batch []Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range batch {
		u.merge(use)
	}
}
