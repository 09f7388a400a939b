//go:build reliability

package reliability

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/internal/keyhistory"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file races verdicts on a key against changes to it. The races are the same
// for a keyring and for a gateway over HTTP, and for the caches that must fail
// them; revocation_keyring_test.go and revocation_gateway_test.go hold these.

// gate judges keys and changes them. Keys are of package "a", which it takes; it
// does not take those of package "b". A change has been answered when its method
// returns.
type gate interface {
	judge(text string) keystore.Verdict
	issue() raced
	revoke(keyID string)
	rotate(credentialID, overlap string) raced
	changeCredential(id, member string, value any)
	changeAccount(id, member string, value any)
	deleteCredential(id string)
	deleteAccount(id string)
}

// raced is a key, and whose it is.
type raced struct{ text, key, credential, account string }

// race is one change beside verdicts on the same key.
type race struct {
	gate
	history *keyhistory.History
	client  int
	raced
}

// judges is how many clients present the key at a time.
const judges = 3

// watched runs change while clients present the key: from before it starts, or in
// half of the races from when it starts, and until one that began after its
// answer was answered.
func (r *race) watched(change func()) {
	var answered, started atomic.Bool
	var clients sync.WaitGroup
	for n := range judges {
		clients.Go(func() {
			for last := false; !last; {
				last = answered.Load()
				r.present(r.client+n, r.raced)
				started.Store(true)
				if !last {
					time.Sleep(rand.N(200 * time.Microsecond)) // else they ask thousands of times
				}
			}
		})
	}
	for warm := rand.N(2) == 0; warm && !started.Load(); {
		runtime.Gosched()
	}
	change()
	answered.Store(true)
	clients.Wait()
}

// present asks for a verdict.
func (r *race) present(client int, k raced) keystore.Verdict {
	call := r.history.Now()
	v := r.judge(k.text)
	r.history.Record(client, call, keyhistory.Judge, k.key, v)
	return v
}

// does runs a change to the key and records it.
func (r *race) does(kind keyhistory.Kind, change func()) {
	call := r.history.Now()
	change()
	r.history.Record(r.client+judges, call, kind, r.key, 0)
}

// changes are what races with verdicts.
var changes = []func(r *race){
	func(r *race) { r.does(keyhistory.Revoke, func() { r.revoke(r.key) }) },
	func(r *race) { r.does(keyhistory.Revoke, func() { r.deleteCredential(r.credential) }) },
	func(r *race) { r.does(keyhistory.Revoke, func() { r.deleteAccount(r.account) }) },
	func(r *race) {
		r.does(keyhistory.Deactivate, func() { r.changeCredential(r.credential, "active", false) })
		r.does(keyhistory.Activate, func() { r.changeCredential(r.credential, "active", true) })
	},
	func(r *race) {
		r.does(keyhistory.Deactivate, func() { r.changeAccount(r.account, "active", false) })
		r.does(keyhistory.Activate, func() { r.changeAccount(r.account, "active", true) })
	},
	func(r *race) {
		r.does(keyhistory.Misplace, func() { r.changeCredential(r.credential, "package", "b") })
		r.does(keyhistory.Replace, func() { r.changeCredential(r.credential, "package", "a") })
	},
	func(r *race) { r.does(keyhistory.Revoke, func() { r.next("0s") }) },
	func(r *race) {
		next := r.next(keystore.UntilFirstUse)
		r.does(keyhistory.Stop, func() { r.present(r.client+judges, next) })
	},
}

// next rotates, and presents the new key, which works at once.
func (r *race) next(overlap string) raced {
	call := r.history.Now()
	next := r.rotate(r.credential, overlap)
	r.history.Record(r.client+judges, call, keyhistory.Make, next.key, 0)
	if overlap == "0s" {
		r.present(r.client+judges, next)
	}
	return next
}

// runRaces runs as many races, some at a time, beside clients of so many other
// keys that a small cache holds none for long.
func runRaces(g gate, races int) *keyhistory.History {
	const atATime = 3
	history := keyhistory.New()
	var left atomic.Int64
	left.Store(int64(races))
	var crowd, racers sync.WaitGroup
	done := make(chan struct{})
	crowd.Go(func() { crowdOut(g, done) })
	for n := range atATime {
		racers.Go(func() {
			for left.Add(-1) >= 0 {
				r := &race{gate: g, history: history, client: n * (judges + 1)}
				call := history.Now()
				r.raced = g.issue()
				history.Record(r.client, call, keyhistory.Make, r.key, 0)
				r.watched(func() { changes[rand.N(len(changes))](r) })
			}
		})
	}
	racers.Wait()
	close(done)
	crowd.Wait()
	return history
}

// crowdOut presents other keys, more than the cache holds, until done.
func crowdOut(g gate, done chan struct{}) {
	others := make([]raced, 200)
	for i := range others {
		others[i] = g.issue()
	}
	for i := 0; ; i++ {
		select {
		case <-done:
			return
		default:
			g.judge(others[i%len(others)].text)
		}
	}
}

// wantExplained is the check of the tests: an order of each key's operations
// explains every answer, and enough changes met a verdict.
func wantExplained(t *testing.T, history *keyhistory.History, races int) {
	t.Helper()
	if story := history.Unexplained(); story != "" {
		t.Errorf("no order explains what happened to a key:\n%s", story)
	}
	if history.Races() < races {
		t.Errorf("%d changes met a verdict on their key, want %d at least", history.Races(), races)
	}
	t.Logf("%d operations, of which %d changes met a verdict on their key", history.Len(), history.Races())
}

// wantCaught is the check of the controls: the races find a verdict that nothing
// explains.
func wantCaught(t *testing.T, g gate) {
	t.Helper()
	for races := 0; races < 5000; races += 100 {
		if runRaces(g, 100).Unexplained() != "" {
			t.Logf("caught within %d races", races+100)
			return
		}
	}
	t.Error("the races do not find what is wrong with this cache")
}

// TestRevocationsRaceVerdictsInTheKeyring races in a keyring over a real store
// whose reads sometimes pause before they return, with a cache that is too small.
func TestRevocationsRaceVerdictsInTheKeyring(t *testing.T) {
	history := runRaces(newKeyringGate(t, openStore(t)), size(500, 7800))
	wantExplained(t, history, size(400, 10_000))
}

// TestControlACacheThatDeletes is the control: the same races find the stale
// verdicts of a cache that has no generations, and deletes entries instead.
func TestControlACacheThatDeletes(t *testing.T) {
	wantCaught(t, newKeyringGate(t, newDeletingCache(openStore(t))))
}

// TestRevocationsRaceVerdictsOverHTTP races in the real gateway, whose operator
// changes keys over the admin endpoint.
func TestRevocationsRaceVerdictsOverHTTP(t *testing.T) {
	g := livetest.StartWith(t, racedSite)
	history := runRaces(newHTTPGate(t, "http://"+g.Addr, "http://"+g.Admin), size(150, 7800))
	wantExplained(t, history, size(100, 10_000))
}

// TestControlAFrontThatForgets is the control: a cache before the gateway that
// forgets all it knows at each change, before that is answered.
func TestControlAFrontThatForgets(t *testing.T) {
	g := livetest.StartWith(t, racedSite)
	site, admin := forgetfulFront(t, "http://"+g.Addr, "http://"+g.Admin)
	wantCaught(t, newHTTPGate(t, site, admin))
}
