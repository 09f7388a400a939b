package keystore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/keyhistory"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// trial has keys revoked while the networks of the nodes come and go, and every node
// asked about them all the time.
type trial struct {
	t       *testing.T
	cluster *cluster
	nodes   []*gateway

	mu      sync.Mutex
	history *keyhistory.History
	began   time.Time
	late    []string // acceptances that began at or after the answered time
	worst   time.Duration
	// What happened, so that a trial in which nothing did is noticed.
	answered, later, accepted, refused, unavailable int
}

func newTrial(t *testing.T, c *cluster) *trial {
	c.delay = func() time.Duration {
		if rand.N(20) == 0 {
			return rand.N(60 * time.Millisecond)
		}
		return rand.N(2 * time.Millisecond)
	}
	return &trial{
		t: t, cluster: c, nodes: c.gateways(3, keystore.WithLease(2*time.Second, 0)),
		history: keyhistory.New(), began: time.Now(),
	}
}

// record adds to the history of a key on each of the nodes. Between a change and its
// answer they may differ; each by itself never goes back.
func (tr *trial) record(kind keyhistory.Kind, k *keystore.Issued, call, end time.Time) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for i := range tr.nodes {
		tr.history.Add(kind, tr.name(i, k), call.Sub(tr.began), end.Sub(tr.began), keystore.OK)
	}
}

func (tr *trial) name(node int, k *keystore.Issued) string {
	return fmt.Sprint(k.Key.ID, " on node ", node)
}

// ask presents the key to a node until the trial of it is over.
func (tr *trial) ask(node int, k *keystore.Issued, stops *time.Time, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		default:
		}
		call := time.Now()
		v := tr.nodes[node].try(k.Text)
		tr.judged(node, k, call, v, stops)
		time.Sleep(rand.N(60 * time.Millisecond))
	}
}

func (tr *trial) judged(node int, k *keystore.Issued, call time.Time, v keystore.Verdict, stops *time.Time) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch v {
	case keystore.StoreUnavailable:
		tr.unavailable++
		return
	case keystore.OK:
		tr.accepted++
		if !stops.IsZero() && !call.Before(*stops) {
			tr.late = append(tr.late, fmt.Sprintf("key %s: accepted in a request that began %v after the answered time", tr.name(node, k), call.Sub(*stops)))
		}
	default:
		tr.refused++
	}
	tr.history.Add(keyhistory.Judge, tr.name(node, k), call.Sub(tr.began), time.Since(tr.began), v)
}

// revoke revokes the key through a node, and says from when on it must not be
// accepted: then this ends.
func (tr *trial) revoke(g *gateway, k *keystore.Issued, stops *time.Time) {
	call := time.Now()
	for {
		ctx, effect := keystore.WithEffect(context.Background(), rand.N(300*time.Millisecond))
		_, err := g.RevokeKey(ctx, k.Key.ID, "")
		if err != nil {
			continue // nobody knows; it is done again
		}
		left := time.Duration(0)
		if effect.By != 0 {
			left = time.Duration(effect.By-g.Now()) * time.Millisecond
		}
		tr.mu.Lock()
		*stops = time.Now().Add(left)
		tr.worst = max(tr.worst, time.Since(call))
		if tr.answered++; left > 0 {
			tr.later++
		}
		tr.mu.Unlock()
		tr.record(keyhistory.Revoke, k, call, *stops)
		time.Sleep(left)
		return
	}
}

// round is the life of some keys at once.
func (tr *trial) round(keys int) {
	over := make(chan struct{})
	var asking, revoking sync.WaitGroup
	for range keys {
		call := time.Now()
		k := tr.nodes[0].issue(keystore.Credential{})
		tr.record(keyhistory.Make, k, call, time.Now())
		var stops time.Time
		for node := range tr.nodes {
			asking.Go(func() { tr.ask(node, k, &stops, over) })
		}
		by := tr.nodes[rand.N(len(tr.nodes))]
		wait := rand.N(400 * time.Millisecond)
		revoking.Go(func() {
			time.Sleep(wait)
			tr.revoke(by, k, &stops)
			time.Sleep(300 * time.Millisecond) // it is asked about afterwards, too
		})
	}
	time.Sleep(150 * time.Millisecond)
	for _, g := range tr.nodes {
		tr.spoil(g)
	}
	mended := time.AfterFunc(rand.N(4*time.Second), func() {
		for _, g := range tr.nodes {
			g.becomes(up)
			g.feed.Store(false)
		}
	})
	revoking.Wait()
	close(over)
	asking.Wait()
	if mended.Stop() {
		for _, g := range tr.nodes {
			g.becomes(up)
			g.feed.Store(false)
		}
	}
	time.Sleep(time.Second)
}

// spoil has the network of a node be bad, or not.
func (tr *trial) spoil(g *gateway) {
	switch rand.N(6) {
	case 0:
		g.becomes(refuses)
	case 1:
		g.becomes(hangs)
	case 2:
		g.feed.Store(true)
	}
}

// run tries that many rounds.
func (tr *trial) run(rounds, keys int) {
	for range rounds {
		tr.cluster.deaf.Store(rand.N(4) == 0)
		if rand.N(10) == 0 {
			tr.cluster.prune()
		}
		tr.round(keys)
	}
}

// enough reports whether all happened that a trial is about.
func (tr *trial) enough() bool {
	return min(tr.later, tr.answered-tr.later, tr.unavailable) >= tr.answered/20
}

// TestNoNodeAcceptsAKeyAfterTheAnsweredTime is a thousand revocations on three nodes,
// under random partitions, pruned feeds and lost notifications.
func TestNoNodeAcceptsAKeyAfterTheAnsweredTime(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	synctest.Test(t, func(t *testing.T) {
		tr := newTrial(t, newCluster(t))
		tr.run(rounds, 20)
		for more := 0; !tr.enough() && more < 50; more++ { // chance may leave something out of a few rounds
			tr.run(1, 20)
		}
		for _, story := range tr.late[:min(len(tr.late), 5)] {
			t.Error(story)
		}
		if story := tr.history.Unexplained(); story != "" {
			t.Errorf("no order explains what happened to a key:\n%s", story)
		}
		t.Logf("%d revocations, %d of them answered by a later time, after %v at the most; %d accepted, %d refused, %d unavailable; %d races",
			tr.answered, tr.later, tr.worst, tr.accepted, tr.refused, tr.unavailable, tr.history.Races())
		if !tr.enough() {
			t.Error("too little happened: nothing was tested")
		}
	})
}

// TestTheTrialFindsLies is the control: where the store takes a node's word before it
// was given, or nodes go by memory for longer than they say, keys are accepted after
// the answered time.
func TestTheTrialFindsLies(t *testing.T) {
	for name, lie := range map[string]func(*cluster){
		"a node has confirmed what it is only being told": func(c *cluster) { c.eager = true },
		"a lease lasts longer than was said":              func(c *cluster) { c.short = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				lie(c)
				tr := newTrial(t, c)
				for range 40 {
					if tr.run(1, 20); len(tr.late) > 0 {
						return
					}
				}
				t.Error("40 rounds found nothing")
			})
		})
	}
}
