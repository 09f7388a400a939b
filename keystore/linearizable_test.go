package keystore_test

import (
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/keyhistory"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// recorder is one client's part of the history.
type recorder struct {
	*ring
	*keyhistory.History
	client int
}

func (c *recorder) record(call time.Duration, kind keyhistory.Kind, key string, out keystore.Verdict) {
	c.Record(c.client, call, kind, key, out)
}

// step does something to the key in the slot.
func (c *recorder) step(slot *atomic.Pointer[keystore.Issued], toggles bool) {
	issued := slot.Load()
	call := c.Now()
	switch n := rand.N(20); {
	case n < 14:
		c.record(call, keyhistory.Judge, issued.Key.ID, c.verdict(issued.Text))
	case toggles:
		active := n%2 == 0
		_, err := c.UpdateCredential(c.t.Context(), keystore.Operator(), issued.Credential.ID, func(cr *keystore.Credential) error {
			cr.Active = active
			return nil
		})
		if err != nil {
			c.t.Error(err)
		}
		c.record(call, map[bool]keyhistory.Kind{true: keyhistory.Activate, false: keyhistory.Deactivate}[active], issued.Key.ID, keystore.OK)
	case n < 16:
		if _, err := c.RevokeKey(c.t.Context(), issued.Key.ID, ""); err != nil {
			c.t.Error(err)
		}
		c.record(call, keyhistory.Revoke, issued.Key.ID, keystore.OK)
	case n < 18:
		rotated := c.rotate(issued.Credential.ID, "0s")
		for _, old := range rotated.Previous {
			c.record(call, keyhistory.Revoke, old.ID, keystore.OK)
		}
		c.record(call, keyhistory.Make, rotated.Key.ID, keystore.OK)
		slot.Store(rotated)
	default:
		c.make(slot)
	}
}

func (c *recorder) make(slot *atomic.Pointer[keystore.Issued]) {
	call := c.Now()
	issued := c.issue(keystore.Credential{})
	c.record(call, keyhistory.Make, issued.Key.ID, keystore.OK)
	slot.Store(issued)
}

// TestHistoriesAreLinearizable runs verdicts beside revocations, rotations,
// creations and deactivations, with a cache that holds a part of the keys only,
// and has a checker look for an order of each key's operations that explains
// every answer. There is none if a revoked key is accepted once.
func TestHistoriesAreLinearizable(t *testing.T) {
	const clients, steps, slots = 8, 600, 200
	r := openRing(t, filepath.Join(t.TempDir(), "store", "keys.db"), keystore.Config{}, keystore.MinCacheSize)
	history := keyhistory.New()
	first := &recorder{r, history, clients}
	var shared [slots]atomic.Pointer[keystore.Issued]
	for i := range shared {
		first.make(&shared[i])
	}
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			c := &recorder{r, history, n}
			for range steps {
				// Most steps go to few slots, so that they meet.
				i := min(rand.N(slots), rand.N(slots), rand.N(slots))
				c.step(&shared[i], i%4 == 0)
			}
		})
	}
	wg.Wait()
	if story := history.Unexplained(); story != "" {
		t.Errorf("no order explains what happened to a key:\n%s", story)
	}
	t.Logf("%d operations, %d races, %d reads of the store", history.Len(), history.Races(), r.vault.Misses())
}

// TestTheCheckerFindsAStaleVerdict is the control: a history in which a key is
// accepted after its revocation was answered must be refused.
func TestTheCheckerFindsAStaleVerdict(t *testing.T) {
	history := keyhistory.New()
	history.Add(keyhistory.Make, "k", 0, 1, keystore.OK)
	history.Add(keyhistory.Judge, "k", 2, 6, keystore.OK)
	history.Add(keyhistory.Revoke, "k", 3, 5, keystore.OK)
	history.Add(keyhistory.Judge, "k", 4, 9, keystore.OK)
	if history.Unexplained() != "" {
		t.Error("verdicts that overlap the revocation may be either")
	}
	history.Add(keyhistory.Judge, "k", 6, 8, keystore.OK)
	if history.Unexplained() == "" {
		t.Error("an acceptance that starts after the revocation was answered goes unnoticed")
	}
}
