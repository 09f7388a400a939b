package keystore_test

import (
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// keyOp is an operation on one key, as its history records it.
type keyOp struct{ kind, key string }

// keyState is what a key's history amounts to.
type keyState struct{ made, revoked, inactive bool }

// keyModel says what a key may answer: a revocation is final, a deactivation is
// not, and a verdict tells how things stand at one moment between its call and
// its return.
var keyModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(keyOp).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return keyState{} },
	Step: func(state, input, output any) (bool, any) {
		s := state.(keyState)
		switch input.(keyOp).kind {
		case "make":
			s.made = true
		case "revoke":
			s.revoked = true
		case "deactivate":
			s.inactive = true
		case "activate":
			s.inactive = false
		default:
			return output.(keystore.Verdict) == s.verdict(), s
		}
		return true, s
	},
}

func (s keyState) verdict() keystore.Verdict {
	switch {
	case !s.made:
		return keystore.InvalidKey
	case s.revoked:
		return keystore.RevokedKey
	case s.inactive:
		return keystore.Inactive
	}
	return keystore.OK
}

// recorder is one client's part of the history.
type recorder struct {
	*ring
	client int
	start  time.Time
	ops    []porcupine.Operation
}

func (c *recorder) record(call time.Duration, kind, key string, out keystore.Verdict) {
	c.ops = append(c.ops, porcupine.Operation{
		ClientId: c.client, Input: keyOp{kind, key}, Call: int64(call), Output: out, Return: int64(time.Since(c.start)),
	})
}

// step does something to the key in the slot.
func (c *recorder) step(slot *atomic.Pointer[keystore.Issued], toggles bool) {
	issued := slot.Load()
	call := time.Since(c.start)
	switch n := rand.N(20); {
	case n < 14:
		c.record(call, "verify", issued.Key.ID, c.verdict(issued.Text))
	case toggles:
		active := n%2 == 0
		_, err := c.UpdateCredential(c.t.Context(), keystore.Operator(), issued.Credential.ID, func(cr *keystore.Credential) error {
			cr.Active = active
			return nil
		})
		if err != nil {
			c.t.Error(err)
		}
		c.record(call, map[bool]string{true: "activate", false: "deactivate"}[active], issued.Key.ID, keystore.OK)
	case n < 16:
		if _, err := c.RevokeKey(c.t.Context(), issued.Key.ID, ""); err != nil {
			c.t.Error(err)
		}
		c.record(call, "revoke", issued.Key.ID, keystore.OK)
	case n < 18:
		rotated := c.rotate(issued.Credential.ID, "0s")
		for _, old := range rotated.Previous {
			c.record(call, "revoke", old.ID, keystore.OK)
		}
		c.record(call, "make", rotated.Key.ID, keystore.OK)
		slot.Store(rotated)
	default:
		c.make(slot)
	}
}

func (c *recorder) make(slot *atomic.Pointer[keystore.Issued]) {
	call := time.Since(c.start)
	issued := c.issue(keystore.Credential{})
	c.record(call, "make", issued.Key.ID, keystore.OK)
	slot.Store(issued)
}

// TestHistoriesAreLinearizable runs verdicts beside revocations, rotations,
// creations and deactivations, with a cache that holds a part of the keys only,
// and has a checker look for an order of each key's operations that explains
// every answer. There is none if a revoked key is accepted once.
func TestHistoriesAreLinearizable(t *testing.T) {
	const clients, steps, slots = 8, 600, 200
	r := openRing(t, filepath.Join(t.TempDir(), "store", "keys.db"), keystore.Config{}, keystore.MinCacheSize)
	start := time.Now()
	first := &recorder{ring: r, client: clients, start: start}
	var shared [slots]atomic.Pointer[keystore.Issued]
	for i := range shared {
		first.make(&shared[i])
	}
	histories := make([][]porcupine.Operation, clients)
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			c := &recorder{ring: r, client: n, start: start}
			for range steps {
				// Most steps go to few slots, so that they meet.
				i := min(rand.N(slots), rand.N(slots), rand.N(slots))
				c.step(&shared[i], i%4 == 0)
			}
			histories[n] = c.ops
		})
	}
	wg.Wait()
	history := append(first.ops, slices.Concat(histories...)...)
	if result := porcupine.CheckOperationsTimeout(keyModel, history, time.Minute); result != porcupine.Ok {
		t.Errorf("the history of %d operations is %s", len(history), result)
	}
	t.Logf("%d operations, %d reads of the store", len(history), r.vault.Misses())
}

// TestTheCheckerFindsAStaleVerdict is the control: a history in which a key is
// accepted after its revocation was answered must be refused.
func TestTheCheckerFindsAStaleVerdict(t *testing.T) {
	op := func(kind string, call, ret int64, out keystore.Verdict) porcupine.Operation {
		return porcupine.Operation{Input: keyOp{kind, "k"}, Call: call, Return: ret, Output: out}
	}
	history := []porcupine.Operation{
		op("make", 0, 1, keystore.OK), op("verify", 2, 6, keystore.OK),
		op("revoke", 3, 5, keystore.OK), op("verify", 4, 9, keystore.OK),
	}
	if !porcupine.CheckOperations(keyModel, history) {
		t.Error("verdicts that overlap the revocation may be either")
	}
	if porcupine.CheckOperations(keyModel, append(history, op("verify", 6, 8, keystore.OK))) {
		t.Error("an acceptance that starts after the revocation was answered goes unnoticed")
	}
}
