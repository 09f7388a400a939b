package keystore_test

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const bound = keystore.DefaultLease

// wantVerdicts says which key each node accepts.
func wantVerdicts(t *testing.T, what string, nodes []*gateway, text string, want keystore.Verdict) {
	t.Helper()
	for i, g := range nodes {
		if got := g.try(text); got != want {
			t.Errorf("%s, on node %d: %v, want %v", what, i, got, want)
		}
	}
}

func rememberAll(nodes []*gateway, text string) {
	for _, g := range nodes {
		g.remember(text)
	}
}

func TestAChangeIsAnsweredWhenEveryNodeActsByIt(t *testing.T) {
	changes := map[string]func(g *gateway, k *keystore.Issued) error{
		"revocation": func(g *gateway, k *keystore.Issued) error {
			_, err := g.RevokeKey(g.t.Context(), k.Key.ID, "")
			return err
		},
		"rotation": func(g *gateway, k *keystore.Issued) error {
			_, err := g.Rotate(g.t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: k.Credential.ID})
			return err
		},
		"deactivation of the credential": func(g *gateway, k *keystore.Issued) error {
			_, err := g.UpdateCredential(g.t.Context(), keystore.Operator(), k.Credential.ID, func(c *keystore.Credential) error {
				c.Active = false
				return nil
			})
			return err
		},
		"deactivation of the account": func(g *gateway, k *keystore.Issued) error {
			_, err := g.UpdateAccount(g.t.Context(), k.Credential.AccountID, func(a *keystore.Account) error {
				a.Active = false
				return nil
			})
			return err
		},
		"deletion of the account": func(g *gateway, k *keystore.Issued) error {
			return g.DeleteAccount(g.t.Context(), k.Credential.AccountID)
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := newCluster(t).gateways(3)
				key := nodes[0].issue(keystore.Credential{})
				rememberAll(nodes, key.Text)
				reads := nodes[2].reads.Load()
				wantVerdicts(t, "from memory", nodes, key.Text, keystore.OK)
				if nodes[2].reads.Load() != reads {
					t.Error("a key in memory was read from the store")
				}
				began := time.Now()
				if err := change(nodes[1], key); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 100*time.Millisecond {
					t.Errorf("among healthy nodes it took %v", took)
				}
				for i, g := range nodes {
					if g.try(key.Text) == keystore.OK {
						t.Errorf("node %d accepts the key afterwards", i)
					}
				}
			})
		})
	}
}

// TestACutOffNodeAcceptsNothingAfterTheAnsweredTime asks each millisecond, whatever
// way the node is cut off.
func TestACutOffNodeAcceptsNothingAfterTheAnsweredTime(t *testing.T) {
	for name, is := range map[string]condition{"refused": refuses, "black-holed": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := newCluster(t).gateways(3)
				key := nodes[0].issue(keystore.Credential{})
				rememberAll(nodes, key.Text)
				nodes[2].becomes(is)
				ctx, effect := keystore.WithEffect(t.Context(), 200*time.Millisecond)
				began := time.Now()
				nodes[0].revoke(ctx, key)
				if took := time.Since(began); took < 200*time.Millisecond || took > 250*time.Millisecond {
					t.Errorf("a patience of 200ms lasted %v", took)
				}
				left := time.Duration(effect.By-nodes[0].Now()) * time.Millisecond
				if !effect.Cluster || left <= 0 || left > bound {
					t.Fatalf("effect %+v, in %v", effect, left)
				}
				wantVerdicts(t, "at once", nodes[:2], key.Text, keystore.RevokedKey)
				accepted := 0
				for nodes[0].Now() < effect.By {
					if nodes[2].try(key.Text) == keystore.OK {
						accepted++
					}
					time.Sleep(time.Millisecond)
				}
				if accepted == 0 {
					t.Error("the cut-off node did not go by its memory at all: nothing was tested")
				}
				wantVerdicts(t, "at the answered time", nodes[2:], key.Text, keystore.StoreUnavailable)
				nodes[2].becomes(up)
				time.Sleep(5 * time.Second)
				wantVerdicts(t, "when the store is back", nodes, key.Text, keystore.RevokedKey)
				if !nodes[2].leased() {
					t.Error("no lease 5 s after the store is back")
				}
			})
		})
	}
}

func TestWithoutPatienceAChangeWaitsForTheBoundAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newCluster(t).gateways(3, keystore.WithLease(4*time.Second, 2*time.Second))
		key := nodes[0].issue(keystore.Credential{})
		rememberAll(nodes, key.Text)
		nodes[2].becomes(hangs)
		began := time.Now()
		nodes[0].revoke(t.Context(), key)
		if took := time.Since(began); took < 3*time.Second || took > 6*time.Second+10*time.Millisecond {
			t.Errorf("it took %v, want at most the bound", took)
		}
		wantVerdicts(t, "afterwards", nodes[2:], key.Text, keystore.StoreUnavailable)
	})
}

func TestANodeThatEnded(t *testing.T) {
	t.Run("in order is not waited for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			nodes := c.gateways(2)
			key := nodes[0].issue(keystore.Credential{})
			if err := nodes[1].vault.Close(); err != nil {
				t.Fatal(err)
			}
			if n := c.known(); n != 1 {
				t.Errorf("%d nodes are known", n)
			}
			began := time.Now()
			nodes[0].revoke(t.Context(), key)
			if took := time.Since(began); took > 50*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		})
	})
	t.Run("without a word is waited for at most its bound, and then forgotten", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			nodes := c.gateways(2)
			nodes[1].becomes(refuses)
			for _, wait := range []struct{ after, atMost time.Duration }{
				{4 * time.Second, bound - 4*time.Second + bound/4 + 100*time.Millisecond}, {bound, 50 * time.Millisecond},
			} {
				time.Sleep(wait.after)
				key := nodes[0].issue(keystore.Credential{})
				began := time.Now()
				nodes[0].revoke(t.Context(), key)
				if took := time.Since(began); took > wait.atMost {
					t.Errorf("%v later it took %v", wait.after, took)
				}
			}
			if info, _ := nodes[0].vault.Cluster(); info.Nodes != 1 {
				t.Errorf("%d nodes count", info.Nodes)
			}
			if n := c.known(); n != 2 {
				t.Errorf("%d nodes are known, of which one may be back", n)
			}
			time.Sleep(10 * bound)
			if n := c.known(); n != 1 {
				t.Errorf("%d nodes are known", n)
			}
			nodes[1].becomes(up)
			time.Sleep(5 * time.Second)
			if n := c.known(); n != 2 || !nodes[1].leased() {
				t.Errorf("a node that was forgotten is not back: %d nodes", n)
			}
		})
	})
}

func TestLostNotificationsDelayAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		nodes := c.gateways(3)
		c.deaf.Store(true)
		key := nodes[0].issue(keystore.Credential{})
		rememberAll(nodes, key.Text)
		began := time.Now()
		nodes[1].revoke(t.Context(), key)
		if took := time.Since(began); took > bound {
			t.Errorf("it took %v", took)
		}
		wantVerdicts(t, "afterwards", nodes, key.Text, keystore.RevokedKey)
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		alone := c.gateways(1)[0]
		c.deaf.Store(true)
		key := alone.issue(keystore.Credential{})
		began := time.Now()
		alone.revoke(t.Context(), key)
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("a node that is alone waited %v", took)
		}
	})
}

func TestAKeyMadeElsewhereWorksAtOnceAlsoWhereItWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		nodes := c.gateways(2)
		c.deaf.Store(true)
		account := nodes[0].account(keystore.Account{ID: "acme"})
		record, err := nodes[0].GrantRecord(keystore.Account{ID: account.ID}, keystore.Credential{}, keystore.Key{},
			keystore.Material{Text: "imported"})
		if err != nil {
			t.Fatal(err)
		}
		// A read that does not find it yet is under way all the time.
		nodes[1].slow(func() time.Duration { return 1200 * time.Millisecond })
		var early sync.WaitGroup
		early.Go(func() { wantVerdicts(t, "before", nodes[1:], "imported", keystore.InvalidKey) })
		time.Sleep(1500 * time.Millisecond) // it has read, and its answer is under way
		if _, _, err := nodes[0].Import(t.Context(), []keystore.Record{record}); err != nil {
			t.Fatal(err)
		}
		nodes[1].slow(func() time.Duration { return time.Millisecond })
		time.Sleep(500 * time.Millisecond)
		wantVerdicts(t, "half a second later", nodes, "imported", keystore.OK)
		early.Wait()
	})
}

func TestBeforeItsFirstLeaseANodeAsksTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.cut = true
		g := c.gateway()
		key := g.issue(keystore.Credential{})
		for range 3 {
			reads := g.reads.Load()
			g.remember(key.Text)
			if g.reads.Load() == reads {
				t.Error("a key was accepted from memory")
			}
		}
		g.becomes(refuses)
		wantVerdicts(t, "without the store", []*gateway{g}, key.Text, keystore.StoreUnavailable)
		g.becomes(up)
		g.feed.Store(false)
		time.Sleep(2 * time.Second)
		if !g.leased() {
			t.Fatal("no lease")
		}
		g.remember(key.Text) // the first beat left nothing in memory that was there before
		g.becomes(refuses)
		wantVerdicts(t, "with a lease", []*gateway{g}, key.Text, keystore.OK)
	})
}

// TestDrift lets nothing but the wall clock move, as it does when a machine was
// suspended.
func TestDrift(t *testing.T) {
	for name, test := range map[string]struct {
		ahead time.Duration
		want  keystore.Verdict
	}{
		"of less than a second is borne":         {900 * time.Millisecond, keystore.OK},
		"of more than a second ends the lease":   {1001 * time.Millisecond, keystore.StoreUnavailable},
		"after a suspension ends the lease":      {time.Hour, keystore.StoreUnavailable},
		"of a clock that was set back ends it":   {-time.Hour, keystore.StoreUnavailable},
		"of half a second, set back, is borne":   {-500 * time.Millisecond, keystore.OK},
		"of nothing changes nothing":             {0, keystore.OK},
		"by a minute, as a check of these tests": {time.Minute, keystore.StoreUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64
				nodes := newCluster(t).gateways(1, keystore.WithWall(func() time.Duration { return time.Duration(ahead.Load()) }))
				key := nodes[0].issue(keystore.Credential{})
				nodes[0].remember(key.Text)
				nodes[0].becomes(hangs)
				ahead.Store(int64(test.ahead))
				wantVerdicts(t, "without the store", nodes, key.Text, test.want)
				nodes[0].becomes(up)
				time.Sleep(bound)
				if !nodes[0].leased() {
					t.Error("no lease after the next beats")
				}
			})
		})
	}
}

// TestWhatTheStoreSaidIsNotTakenBack is about a node that reads the store because its
// clock drifted, and whose clock drifts back while its memory is older than that read.
func TestWhatTheStoreSaidIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		c := newCluster(t)
		other := c.gateway()
		g := c.gateways(1, keystore.WithWall(func() time.Duration { return time.Duration(ahead.Load()) }))[0]
		key := g.issue(keystore.Credential{})
		g.remember(key.Text)
		g.feed.Store(true)
		ahead.Store(int64(time.Minute))
		ctx, _ := keystore.WithEffect(t.Context(), 0)
		other.revoke(ctx, key)
		if v := g.try(key.Text); v != keystore.RevokedKey {
			t.Fatalf("by the store it is %v", v)
		}
		ahead.Store(0)
		if v := g.try(key.Text); g.leased() && v != keystore.RevokedKey {
			t.Errorf("by memory it is %v again", v)
		}
		if !g.leased() {
			t.Error("there is no lease to be misled by: nothing was tested")
		}
	})
}

// outlasted waits for the end of the lease, and returns how long ago the last beat was
// called.
func (g *gateway) outlasted() time.Duration {
	for g.leased() {
		time.Sleep(time.Millisecond)
	}
	return time.Since(*g.called.Load())
}

func TestALeaseCountsFromBeforeTheBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newCluster(t).gateways(1)[0]
		g.slow(func() time.Duration { return time.Second })
		time.Sleep(bound)
		g.becomes(hangs)
		if took := g.outlasted(); took > bound || took < bound-bound/50 {
			t.Errorf("it ended %v after the call of the beat", took)
		}
	})
}

// TestASuspensionCountsAgainstTheLease: half a second of it is borne, and makes the
// lease end that much sooner.
func TestASuspensionCountsAgainstTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		g := newCluster(t).gateways(1, keystore.WithWall(func() time.Duration { return time.Duration(ahead.Load()) }))[0]
		g.becomes(hangs)
		ahead.Add(int64(500 * time.Millisecond))
		if took := g.outlasted(); took > bound-500*time.Millisecond {
			t.Errorf("it ended %v after the call of the beat, and half a second unseen", took)
		}
	})
}

func TestALostFeedVoidsAllMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		nodes := c.gateways(2)
		key, other := nodes[0].issue(keystore.Credential{}), nodes[0].issue(keystore.Credential{})
		nodes[0].revoke(t.Context(), nodes[0].issue(keystore.Credential{})) // the feed is not empty
		rememberAll(nodes, key.Text)
		rememberAll(nodes, other.Text)
		nodes[1].becomes(refuses)
		nodes[0].revoke(t.Context(), key)
		c.prune()
		reads := nodes[1].reads.Load()
		nodes[1].becomes(up)
		time.Sleep(2 * time.Second)
		if !nodes[1].leased() {
			t.Fatal("no lease")
		}
		wantVerdicts(t, "of the change that it could not be told", nodes[1:], key.Text, keystore.RevokedKey)
		wantVerdicts(t, "of the others", nodes[1:], other.Text, keystore.OK)
		if n := nodes[1].reads.Load() - reads; n != 2 {
			t.Errorf("%d keys were read anew, want both", n)
		}
	})
}

// TestAStoreThatWasSetBackVoidsAllMemory: what was confirmed means nothing to it.
func TestAStoreThatWasSetBackVoidsAllMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		nodes := c.gateways(1)
		for range 3 {
			nodes[0].revoke(t.Context(), nodes[0].issue(keystore.Credential{}))
		}
		key := nodes[0].issue(keystore.Credential{})
		nodes[0].remember(key.Text)
		time.Sleep(bound)
		reads := nodes[0].reads.Load()
		c.mu.Lock()
		c.epoch, c.changes = 1, nil
		c.mu.Unlock()
		time.Sleep(bound)
		nodes[0].remember(key.Text)
		if nodes[0].reads.Load() == reads {
			t.Error("a key was accepted from memory")
		}
	})
}

// TestReadsThatOutliveALeaseAreNoProof holds a read that began under one lease until
// there is another, or none, while the key is revoked by another node.
func TestReadsThatOutliveALeaseAreNoProof(t *testing.T) {
	for name, regained := range map[string]bool{"the lease is lost": false, "there is another lease": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64
				c := newCluster(t)
				nodes := c.gateways(1)
				nodes = append(nodes, c.gateways(1, keystore.WithWall(func() time.Duration { return time.Duration(ahead.Load()) }))...)
				key := nodes[0].issue(keystore.Credential{})
				held, release := make(chan struct{}), make(chan struct{})
				var once sync.Once
				nodes[1].while(func() { once.Do(func() { close(held); <-release }) })
				asked := make(chan keystore.Verdict)
				go func() { asked <- nodes[1].try(key.Text) }()
				<-held
				nodes[1].feed.Store(true)
				ahead.Store(int64(time.Minute)) // the machine was suspended
				ctx, _ := keystore.WithEffect(t.Context(), 0)
				nodes[0].revoke(ctx, key)
				if regained {
					nodes[1].feed.Store(false)
					time.Sleep(2900 * time.Millisecond)
				}
				if nodes[1].leased() != regained {
					t.Error("the lease is not as this test needs it")
				}
				close(release)
				if v := <-asked; v != keystore.RevokedKey {
					t.Errorf("the request is answered by what was read before: %v", v)
				}
				wantVerdicts(t, "later", nodes, key.Text, keystore.RevokedKey)
			})
		})
	}
}

// TestAnAnswerThatIsTooOldProvesNothing suspends the machine while the store is asked.
func TestAnAnswerThatIsTooOldProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		c := newCluster(t)
		c.cut = true
		g := c.gateway(keystore.WithWall(func() time.Duration { return time.Duration(ahead.Load()) }))
		key := g.issue(keystore.Credential{})
		g.remember(key.Text)
		g.while(func() { ahead.Add(int64(time.Minute)) })
		if _, v, err := g.Verify(t.Context(), key.Text); v != keystore.StoreUnavailable || !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%v, %v", v, err)
		}
	})
}

func TestStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newCluster(t).gateways(2)
		key := nodes[0].issue(keystore.Credential{})
		needs := keystore.Request{Requirement: &keystore.Requirement{}}
		begin := func() *keystore.Grant {
			grant, v, err := nodes[1].Accept(t.Context(), key.Text, needs)
			if v != keystore.OK {
				t.Fatal(v, err)
			}
			return grant
		}
		grant := begin()
		want := func(when string, want keystore.Verdict) {
			t.Helper()
			next, v := nodes[1].Recheck(t.Context(), grant, needs)
			if v != want {
				t.Errorf("%s: %v, want %v", when, v, want)
			}
			grant = next
		}
		reads := nodes[1].reads.Load()
		want("under a lease", keystore.OK)
		if nodes[1].reads.Load() != reads {
			t.Error("the store was asked under a lease")
		}
		ended, _, _ := nodes[1].Accept(t.Context(), nodes[0].issue(keystore.Credential{}).Text, needs)
		if _, err := nodes[0].RevokeKey(t.Context(), ended.KeyID, ""); err != nil {
			t.Fatal(err)
		}
		if _, v := nodes[1].Recheck(t.Context(), ended, needs); v != keystore.RevokedKey {
			t.Errorf("under a lease, of a key that another node revoked: %v", v)
		}
		want("under a lease, beside a change", keystore.OK)
		nodes[1].becomes(hangs)
		want("in an outage within the lease", keystore.OK)
		time.Sleep(bound)
		want("in an outage beyond the lease", keystore.StoreUnavailable)
		nodes[1].becomes(up)
		nodes[1].feed.Store(true)
		grant = begin()
		want("without a lease, from the store", keystore.OK)
		nodes[0].revoke(t.Context(), key)
		want("without a lease, of a key that was revoked", keystore.RevokedKey)
	})
}

func TestManyChangesShareBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const changes = 200
		c := newCluster(t)
		nodes := c.gateways(2)
		var keys []*keystore.Issued
		for range 2 * changes {
			keys = append(keys, nodes[0].issue(keystore.Credential{}))
		}
		before, began := c.beats.Load(), time.Now()
		var wg sync.WaitGroup
		for i, k := range keys {
			g := nodes[i%2]
			wg.Go(func() { g.revoke(t.Context(), k) })
		}
		wg.Wait()
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if n := c.beats.Load() - before; n > changes/2 {
			t.Errorf("%d beats for %d changes", n, 2*changes)
		}
		for _, k := range keys {
			wantVerdicts(t, "afterwards", nodes, k.Text, keystore.RevokedKey)
		}
	})
}

func TestACalmClusterBeatsAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.gateways(3)
		before := c.beats.Load()
		time.Sleep(bound)
		if n := c.beats.Load() - before; n < 3*3 || n > 3*5 {
			t.Errorf("%d beats of 3 nodes in a lease", n)
		}
	})
}

func TestAnOutageIsReportedOnceAndBroughtNoHerd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		nodes := c.gateways(3)
		joins := c.joins.Load()
		for _, g := range nodes {
			g.becomes(refuses)
		}
		time.Sleep(time.Minute)
		if n := c.joins.Load() - joins; n > 3*130 {
			t.Errorf("%d connections of 3 nodes in a minute", n)
		}
		for i, g := range nodes {
			if lost, wells := g.noted(); lost != 1 || wells != 0 {
				t.Errorf("node %d reported %d times that the lease is over, %d times that all is well", i, lost, wells)
			}
			g.becomes(up)
		}
		time.Sleep(5 * time.Second)
		for i, g := range nodes {
			if lost, wells := g.noted(); lost != 1 || wells != 1 || !g.leased() {
				t.Errorf("node %d reported %d times that the lease is over, %d times that all is well", i, lost, wells)
			}
		}
	})
}

func TestABriefOutageIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newCluster(t).gateways(1)
		nodes[0].feed.Store(true)
		time.Sleep(bound / 2)
		nodes[0].feed.Store(false)
		time.Sleep(bound)
		if lost, wells := nodes[0].noted(); lost != 0 || wells != 0 {
			t.Errorf("reported %d times that the lease is over, %d times that all is well", lost, wells)
		}
	})
}

func TestEffects(t *testing.T) {
	t.Run("of a store that is not shared are at once", func(t *testing.T) {
		r := newRing(t, keystore.Config{})
		ctx, effect := keystore.WithEffect(t.Context(), time.Second)
		if _, err := r.RevokeKey(ctx, r.issue(keystore.Credential{}).Key.ID, ""); err != nil || *effect != (keystore.Effect{}) {
			t.Errorf("%+v, %v", effect, err)
		}
		if _, ok := r.vault.Cluster(); ok {
			t.Error("it is said to be of a cluster")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		nodes := newCluster(t).gateways(2)
		first, second := nodes[0].issue(keystore.Credential{}), nodes[0].issue(keystore.Credential{})

		ctx, effect := keystore.WithEffect(t.Context(), time.Second)
		nodes[0].revoke(ctx, first)
		if !effect.Cluster || effect.By != 0 {
			t.Errorf("of healthy nodes: %+v", effect)
		}
		nodes[1].becomes(hangs)
		began := time.Now()
		ctx, effect = keystore.WithEffect(t.Context(), time.Second)
		if _, err := nodes[0].CreateAccount(ctx, keystore.Account{}); err != nil || effect.By != 0 || time.Since(began) > 100*time.Millisecond {
			t.Errorf("what is new waits for nobody, but: %+v, %v, %v", effect, time.Since(began), err)
		}
		nodes[0].revoke(ctx, second)
		by := effect.By
		if by == 0 {
			t.Error("a node that can't be reached is said to act by a change")
		}
		// Whoever says it again is not told that it holds.
		ctx, effect = keystore.WithEffect(t.Context(), 0)
		nodes[0].revoke(ctx, second)
		if effect.By == 0 {
			t.Error("a revocation that is repeated is said to hold")
		}
		ended, cancel := context.WithCancel(t.Context())
		third := nodes[0].issue(keystore.Credential{})
		time.AfterFunc(50*time.Millisecond, cancel)
		began = time.Now()
		if _, err := nodes[0].RevokeKey(ended, third.Key.ID, ""); err != nil || time.Since(began) > time.Second {
			t.Errorf("a caller that went away: %v after %v", err, time.Since(began))
		}
	})
}

func TestTakingAKeyIntoUseWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newCluster(t).gateways(3)
		old := nodes[0].issue(keystore.Credential{})
		rememberAll(nodes, old.Text)
		next := nodes[0].rotate(old.Credential.ID, keystore.UntilFirstUse)
		nodes[2].becomes(hangs)
		began := time.Now()
		nodes[1].remember(next.Text)
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		wantVerdicts(t, "on the node at once", nodes[1:2], old.Text, keystore.ExpiredKey)
		time.Sleep(100 * time.Millisecond)
		wantVerdicts(t, "on healthy nodes soon", nodes[:1], old.Text, keystore.ExpiredKey)
		time.Sleep(bound)
		wantVerdicts(t, "on the others within the lease", nodes[2:], old.Text, keystore.StoreUnavailable)
	})
}

// TestAnUpdateThatRunsTwiceAnnouncesOnce: what the first run touched may not have
// changed.
func TestAnUpdateThatRunsTwiceAnnouncesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		nodes := c.gateways(1)
		key := nodes[0].issue(keystore.Credential{})
		c.twice.Store(true)
		nodes[0].revoke(t.Context(), key)
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.changes) != 1 || c.changes[0].digest != key.Key.Digest {
			t.Errorf("announced %v", c.changes)
		}
	})
}

func TestTheStoredTimeOnlyMovesForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		stored := func() (value []byte) {
			err := c.Store.View(t.Context(), func(r keystore.Reader) (err error) {
				value, err = r.Setting(keystore.ClockSetting)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
		behind := c.gateway()
		// Another machine, whose clock is two seconds ahead.
		err := c.Store.Update(t.Context(), func(tx keystore.Tx) error {
			return tx.SetSetting(keystore.ClockSetting, binary.BigEndian.AppendUint64(nil, uint64(behind.Now().Add(2*time.Second))))
		})
		if err != nil {
			t.Fatal(err)
		}
		before := stored()
		behind.vault.WriteClock()
		if string(stored()) != string(before) {
			t.Error("the stored time went back")
		}
		time.Sleep(3 * time.Second)
		behind.vault.WriteClock()
		if string(stored()) == string(before) {
			t.Error("the stored time stands still")
		}
	})
}

func TestLeasesThatMakeNoSenseAreRefused(t *testing.T) {
	c := newCluster(t)
	for _, bad := range []struct{ lease, stale time.Duration }{
		{0, 0}, {999 * time.Millisecond, 0}, {-time.Second, 0}, {2 * time.Hour, 0}, {time.Minute, -1}, {time.Minute, 2 * time.Hour},
	} {
		l := &link{cluster: c, changed: make(chan struct{})}
		l.slow(c.delay)
		v, err := keystore.OpenVault(t.Context(), l, keystore.MinCacheSize, l.note, keystore.WithLease(bad.lease, bad.stale))
		if err == nil {
			_ = v.Close()
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestANodeLeavesNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("nodes", func(t *testing.T) {
		for _, is := range []condition{up, refuses} {
			c := newCluster(t)
			g := c.gateway()
			g.becomes(is)
			if err := g.vault.Close(); err != nil {
				t.Error(err)
			}
			if n := c.known(); is == up && n != 0 {
				t.Errorf("%d nodes are known", n)
			}
		}
	})
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

func TestClosingIsBoundedAlsoInABlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := newCluster(t).gateways(2)
		key := nodes[1].issue(keystore.Credential{})
		nodes[0].remember(key.Text)
		nodes[0].becomes(hangs)
		began := time.Now()
		if err := nodes[0].vault.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		wantVerdicts(t, "once closed", nodes[:1], key.Text, keystore.StoreUnavailable)
	})
}

// TestAVerdictOfASharedStoreAllocatesNothing: the lease is asked in passing.
func TestAVerdictOfASharedStoreAllocatesNothing(t *testing.T) {
	c := newCluster(t)
	g := c.gateway()
	key := g.issue(keystore.Credential{})
	eventually(t, g.leased)
	g.remember(key.Text)
	req := keystore.Request{Requirement: &keystore.Requirement{}}
	ctx := t.Context()
	n := testing.AllocsPerRun(1000, func() {
		if _, v, _ := g.Accept(ctx, key.Text, req); v != keystore.OK {
			t.Error(v)
		}
	})
	if n != 0 && !raceDetector {
		t.Errorf("%v allocations", n)
	}
}

// TestOneNodeSendsAMail has all nodes take the mails that are due, and one of them die
// with the mail that it took.
func TestOneNodeSendsAMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mails = 20
		nodes := newCluster(t).gateways(3)
		for i := range mails {
			address := string(rune('a'+i)) + "@example.com"
			nodes[0].account(keystore.Account{Email: address})
			if _, err := nodes[0].RequestMail(t.Context(), keystore.MailRequest{Address: address, Every: time.Minute}); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		taken := map[string]int{}
		take := func(g *gateway) {
			for {
				m, err := g.BeginMail(t.Context(), time.Minute)
				if errors.Is(err, keystore.ErrNotFound) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				taken[m.ID]++
				mu.Unlock()
			}
		}
		for round := 1; round <= 2; round++ {
			var wg sync.WaitGroup
			for _, g := range nodes {
				wg.Go(func() { take(g) })
			}
			wg.Wait()
			for id, n := range taken {
				if n != round {
					t.Errorf("mail %s was taken %d times, want %d", id, n, round)
				}
			}
			if len(taken) != mails {
				t.Errorf("%d mails were taken, want %d", len(taken), mails)
			}
			time.Sleep(time.Minute) // nobody ended them
		}
	})
}
