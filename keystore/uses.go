package keystore

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
)

// uses collects when keys were used, for one write a while instead of one a
// request.
type uses struct {
	mu      sync.Mutex
	pending map[string]pendingUse // by key id
}

type pendingUse struct {
	Use
	credentialID string
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
	u.merge(pendingUse{Use{g.KeyID, now, now}, g.CredentialID})
}

// merge adds a use to those pending. The caller holds the lock.
func (u *uses) merge(use pendingUse) {
	old, ok := u.pending[use.KeyID]
	switch {
	case ok:
		use.First, use.Last = min(old.First, use.First), max(old.Last, use.Last)
	case len(u.pending) >= maxPendingUses:
		return
	case u.pending == nil:
		u.pending = map[string]pendingUse{}
	}
	u.pending[use.KeyID] = use
}

// flush writes what is pending; what can't be written stays pending.
//
// The ids of credentials are in the order in which they were made, and so, nearly, are
// the rows of their keys. In that order a batch changes few pages of the store, and in
// any other about as many as it has uses.
func (u *uses) flush(ctx context.Context, store Store) error {
	u.mu.Lock()
	pending := u.pending
	u.pending = nil
	u.mu.Unlock()
	sorted := slices.SortedFunc(maps.Values(pending), func(a, b pendingUse) int {
		return strings.Compare(a.credentialID, b.credentialID)
	})
	for len(sorted) > 0 {
		part := sorted[:min(len(sorted), useBatch)]
		err := store.Update(ctx, func(tx Tx) error { return tx.RecordUses(usesOf(part)) })
		if err != nil {
			u.restore(sorted)
			return err
		}
		sorted = sorted[len(part):]
	}
	return nil
}

func usesOf(pending []pendingUse) []Use {
	uses := make([]Use, len(pending))
	for i, p := range pending {
		uses[i] = p.Use
	}
	return uses
}

// restore puts back what could not be written.
func (u *uses) restore(batch []pendingUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range batch {
		u.merge(use)
	}
}
