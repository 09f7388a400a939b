package keystore

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestStateIsDerived(t *testing.T) {
	const now = Instant(1_000_000)
	newer := func(k Key) *Key { k.Seq, k.UnusedExpiresAt = 2, max(k.UnusedExpiresAt, 1); return &k }
	for _, c := range []struct {
		name     string
		key      Key
		siblings []*Key
		want     State
	}{
		{"plain", Key{}, nil, StateActive},
		{"activates in a moment", Key{ActivatesAt: now + 1}, nil, StatePending},
		{"activates now", Key{ActivatesAt: now}, nil, StateActive},
		{"expires in a moment", Key{ExpiresAt: now + 1}, nil, StateActive},
		{"expires now", Key{ExpiresAt: now}, nil, StateExpired},
		{"unused and out of its first day", Key{UnusedExpiresAt: now}, nil, StateExpired},
		{"used in its first day", Key{UnusedExpiresAt: now, FirstUsedAt: now - 1}, nil, StateActive},
		{"superseded with an overlap", Key{SupersededBy: "x", ExpiresAt: now + 1}, nil, StateRetiring},
		{"revoked wins over all", Key{RevokedAt: now + 9, ExpiresAt: now}, nil, StateRevoked},
		{"waits for a later key's first use", Key{Seq: 1, StopsOnUseOf: "x"}, []*Key{newer(Key{UnusedExpiresAt: now + 1})}, StateRetiring},
		{"the later key expired unused", Key{Seq: 1, StopsOnUseOf: "x"}, []*Key{newer(Key{UnusedExpiresAt: now})}, StateActive},
		{"the later key was revoked unused", Key{Seq: 1, StopsOnUseOf: "x"}, []*Key{newer(Key{UnusedExpiresAt: now + 1, RevokedAt: now})}, StateActive},
		{"one of two later keys is left", Key{Seq: 1, StopsOnUseOf: "y"}, []*Key{newer(Key{UnusedExpiresAt: now + 1}), newer(Key{UnusedExpiresAt: now})}, StateRetiring},
		{"a plain later key stops nothing", Key{Seq: 1, StopsOnUseOf: "x"}, []*Key{{Seq: 2}}, StateActive},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.key.StateAt(now, c.siblings); got != c.want {
				t.Errorf("state %s, want %s", got, c.want)
			}
		})
	}
}

func TestClockGoesOnFromTheLastTimeSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		floor := InstantOf(time.Now()).Add(48 * time.Hour)
		c, behind := NewClock(floor)
		if c.Now() != floor || behind != 48*time.Hour {
			t.Errorf("starts at %v, behind %v", c.Now().Time(), behind)
		}
		time.Sleep(time.Hour)
		if c.Now() != floor.Add(time.Hour) {
			t.Errorf("an hour later it is %v", c.Now().Time())
		}
	})
}

func TestClockIsTheWallClockOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, behind := NewClock(InstantOf(time.Now()).Add(-time.Hour))
		time.Sleep(1500 * time.Millisecond)
		if c.Now() != InstantOf(time.Now()) || behind != 0 {
			t.Errorf("it is %v, want %v", c.Now().Time(), time.Now())
		}
	})
}

func TestOverlap(t *testing.T) {
	for text, want := range map[string]Overlap{
		"0s": {}, "24h": {For: 24 * time.Hour}, "90m": {For: 90 * time.Minute}, "until_first_use": {UntilFirstUse: true},
	} {
		if got, err := ParseOverlap(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1h", "abc", "24", "1e9h", "999999h", "until first use"} {
		if got, err := ParseOverlap(text); err == nil {
			t.Errorf("%q is accepted as %v", text, got)
		}
	}
}
