package keystore_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// turn is something that changes at one moment: what is told before, and from
// then on.
type turn struct {
	after        time.Duration
	before, then string
}

// turnsOn asks a millisecond before the moment, and at it.
func (u turn) turnsOn(ask func() string) error {
	time.Sleep(u.after - time.Millisecond)
	if got := ask(); got != u.before {
		return fmt.Errorf("a millisecond before %v: %s, want %s", u.after, got, u.before)
	}
	time.Sleep(time.Millisecond)
	if got := ask(); got != u.then {
		return fmt.Errorf("at %v: %s, want %s", u.after, got, u.then)
	}
	return nil
}

// timed makes what is asked about, now.
var timed = map[string]struct {
	turn
	begin func(r *ring) (ask func() string)
}{
	"a key expires": {turn{10 * time.Second, "ok", "expired_key"}, func(r *ring) func() string {
		return r.asked(r.issue(keystore.Credential{Package: "short"}).Text)
	}},
	"a credential expires": {turn{10 * time.Second, "ok", "expired_key"}, func(r *ring) func() string {
		return r.asked(r.issue(keystore.Credential{Package: "long", ExpiresAt: r.Now().Add(10 * time.Second)}).Text)
	}},
	"an overlap ends": {turn{time.Hour, "ok", "expired_key"}, func(r *ring) func() string {
		old := r.issue(keystore.Credential{Package: "long"})
		r.rotate(old.Credential.ID, "1h")
		return r.asked(old.Text)
	}},
	"a key activates": {turn{time.Hour, "pending_key", "ok"}, func(r *ring) func() string {
		old := r.issue(keystore.Credential{Package: "long"})
		next, err := r.Rotate(r.t.Context(), keystore.Operator(), keystore.Rotation{
			CredentialID: old.Credential.ID, Overlap: keystore.Overlap{For: 2 * time.Hour}, ActivatesAfter: time.Hour,
		})
		if err != nil {
			r.t.Fatal(err)
		}
		return r.asked(next.Text)
	}},
	"a key that nobody uses expires": {turn{keystore.UnusedLifetime, "ok", "expired_key"}, func(r *ring) func() string {
		old := r.issue(keystore.Credential{Package: "long"})
		return r.asked(r.rotate(old.Credential.ID, keystore.UntilFirstUse).Text)
	}},
	"a throttle ends": {turn{3 * time.Minute, "throttled", "ok"}, func(r *ring) func() string {
		ask := func() string {
			out, err := r.RequestMail(r.t.Context(), keystore.MailRequest{
				Address: "ada@example.com", Package: "long", Every: 3 * time.Minute,
			})
			if err != nil {
				r.t.Fatal(err)
			}
			if out.ThrottledUntil != 0 {
				return "throttled"
			}
			return "ok"
		}
		ask()
		return ask
	}},
}

// asked tells the verdict on a key, which is in the cache from now on.
func (r *ring) asked(text string) func() string {
	r.verdict(text)
	return func() string { return r.verdict(text).String() }
}

// TestTimesAreKeptToTheMillisecond goes to the moment at which something changes,
// on a clock that stands still meanwhile. Each case has two controls: the check
// must fail where a moment is expected that is a millisecond off.
func TestTimesAreKeptToTheMillisecond(t *testing.T) {
	for name, c := range timed {
		t.Run(name, func(t *testing.T) {
			for _, off := range []time.Duration{0, -time.Millisecond, time.Millisecond} {
				synctest.Test(t, func(t *testing.T) {
					r := newRing(t, keystore.Config{Packages: []keystore.Package{
						{Name: "short", ExpiresIn: 10 * time.Second}, {Name: "long"},
					}})
					ask := c.begin(r)
					expected := c.turn
					expected.after += off
					err := expected.turnsOn(ask)
					switch {
					case off == 0 && err != nil:
						t.Error(err)
					case off != 0 && err == nil:
						t.Errorf("the check does not see that the moment is off by %v", off)
					}
				})
			}
		})
	}
}
