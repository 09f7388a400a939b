//go:build reliability

package reliability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/keyhistory"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// partitions has keys revoked while the networks of three nodes come and go, and
// every node asked about them all the time.
type partitions struct {
	*cluster
	began time.Time

	mu      sync.Mutex
	history *keyhistory.History
	late    []string // acceptances that began at or after the answered time
	// What happened, so that a trial in which nothing did is noticed.
	atOnce, later, accepted, refused, unavailable, failed int
	weather                                               map[string]int
}

func newPartitions(t *testing.T, lie func(keystore.Membership) keystore.Membership) *partitions {
	t.Helper()
	p := &partitions{cluster: newCluster(t), began: time.Now(), history: keyhistory.New(), weather: map[string]int{}}
	p.joinAll(3, lie)
	return p
}

// watched is a key, and from when on it must not be accepted.
type watched struct {
	*keystore.Issued
	stops time.Time // zero until that was answered
}

// name is that of a key on one node. Between a change and its answer nodes may
// differ; each by itself never goes back.
func (p *partitions) name(n *node, k *watched) string { return k.Key.ID + " on " + n.name }

func (p *partitions) recordChange(kind keyhistory.Kind, k *watched, call, end time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		p.history.Add(kind, p.name(n, k), call.Sub(p.began), end.Sub(p.began), keystore.OK)
	}
}

// ask presents the key to a node until that is over.
func (p *partitions) ask(n *node, k *watched, over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		case <-time.After(rand.N(40 * time.Millisecond)):
		}
		call := time.Now()
		v := n.try(k.Text)
		p.judged(n, k, call, time.Now(), v)
	}
}

func (p *partitions) judged(n *node, k *watched, call, end time.Time, v keystore.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch v {
	case keystore.StoreUnavailable:
		p.unavailable++
		return
	case keystore.OK:
		p.accepted++
		if !k.stops.IsZero() && !call.Before(k.stops) {
			p.late = append(p.late, fmt.Sprintf("%s: accepted in a request that began %v after the answered time", p.name(n, k), call.Sub(k.stops)))
		}
	default:
		p.refused++
	}
	p.history.Add(keyhistory.Judge, p.name(n, k), call.Sub(p.began), end.Sub(p.began), v)
}

// revoke revokes the key through a node, and returns at the answered time.
func (p *partitions) revoke(n *node, k *watched) {
	call := time.Now()
	for {
		ctx, effect := keystore.WithEffect(context.Background(), rand.N(300*time.Millisecond))
		if _, err := n.RevokeKey(ctx, k.Key.ID, ""); err != nil {
			p.mu.Lock()
			p.failed++ // nobody knows; it is done again
			p.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			continue
		}
		left := time.Duration(0)
		if effect.By != 0 {
			left = time.Duration(effect.By-n.Now()) * time.Millisecond
		}
		p.mu.Lock()
		k.stops = time.Now().Add(left)
		if left > 0 {
			p.later++
		} else {
			p.atOnce++
		}
		p.mu.Unlock()
		p.recordChange(keyhistory.Revoke, k, call, k.stops)
		time.Sleep(left)
		return
	}
}

// make makes a key that is then asked about on all nodes.
func (p *partitions) make(asking *sync.WaitGroup, over <-chan struct{}) *watched {
	call := time.Now()
	k := &watched{Issued: p.nodes[0].issue()}
	p.recordChange(keyhistory.Make, k, call, time.Now())
	for _, n := range p.nodes {
		asking.Go(func() { p.ask(n, k, over) })
	}
	return k
}

// spoil has the network of a node fail, in one of the ways it can.
func (p *partitions) spoil(n *node) {
	ways := []struct {
		name string
		do   func()
	}{
		{"fine", func() {}},
		{"cut", n.net.Cut},
		{"black hole", n.net.BlackHole},
		{"slow", func() { n.net.Delay(rand.N(200 * time.Millisecond)) }},
		{"connections ended", func() { p.terminate(n) }},
	}
	way := ways[rand.N(len(ways))]
	p.weather[way.name]++
	way.do()
}

// round is the life of some keys at once.
func (p *partitions) round(keys int) {
	p.wantLeases()
	p.deafen(rand.N(3) == 0)
	over := make(chan struct{})
	var asking, revoking sync.WaitGroup
	for range keys {
		k, by, wait := p.make(&asking, over), p.nodes[rand.N(len(p.nodes))], 100*time.Millisecond+rand.N(400*time.Millisecond)
		revoking.Go(func() {
			time.Sleep(wait)
			p.revoke(by, k)
			time.Sleep(200 * time.Millisecond) // it is asked about afterwards, too
		})
	}
	for _, n := range p.nodes {
		p.spoil(n)
	}
	healing := time.AfterFunc(clusterLease/2+rand.N(clusterLease), p.heal)
	revoking.Wait()
	close(over)
	asking.Wait()
	if healing.Stop() {
		p.heal()
	}
}

func (p *partitions) heal() {
	for _, n := range p.nodes {
		n.net.Heal()
	}
}

// TestNoNodeOfAClusterAcceptsAKeyAfterTheAnsweredTime revokes under random partitions,
// ended connections and lost notifications.
func TestNoNodeOfAClusterAcceptsAKeyAfterTheAnsweredTime(t *testing.T) {
	p := newPartitions(t, nil)
	rounds, keys := size(4, 50), size(10, 20)
	for done := 0; done < rounds || !p.enough() && done < rounds+20; done++ { // chance may leave something out of a few
		p.round(keys)
	}
	for _, story := range p.late[:min(len(p.late), 5)] {
		t.Error(story)
	}
	if story := p.history.Unexplained(); story != "" {
		t.Errorf("no order explains what happened to a key:\n%s", story)
	}
	t.Logf("%d revocations held at once and %d by a later time, after %d whose outcome was unknown; %d accepted, %d refused, %d unavailable; %d races; %v",
		p.atOnce, p.later, p.failed, p.accepted, p.refused, p.unavailable, p.history.Races(), p.weather)
	if !p.enough() || p.atOnce+p.later < rounds*keys {
		t.Error("too little happened: nothing was tested")
	}
}

// enough reports whether all happened that the partitions are for.
func (p *partitions) enough() bool { return p.atOnce > 0 && p.later > 0 && p.unavailable > 0 }

// TestPartitionsFindNodesThatLie is the control.
func TestPartitionsFindNodesThatLie(t *testing.T) {
	for name, lie := range map[string]func(keystore.Membership) keystore.Membership{
		"one that goes by memory for longer than it says":    func(m keystore.Membership) keystore.Membership { return overstayed{m} },
		"one that confirms changes by which it does not act": func(m keystore.Membership) keystore.Membership { return careless{m} },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPartitions(t, lie)
			for round := range 20 {
				if p.round(10); len(p.late) > 0 {
					if p.history.Unexplained() == "" {
						t.Error("the checker explains a history in which a revoked key is accepted")
					}
					t.Logf("found in round %d: %s", round+1, p.late[0])
					return
				}
			}
			t.Error("20 rounds found nothing")
		})
	}
}
