package keystore

import "time"

// Instant is a moment in Unix milliseconds. Zero means "not set".
type Instant int64

// InstantOf is the instant of t, cut to the millisecond. The zero time gives
// zero.
func InstantOf(t time.Time) Instant {
	if t.IsZero() {
		return 0
	}
	return Instant(t.UnixMilli())
}

// Time is the instant in UTC, the zero time if it is not set.
func (i Instant) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(i)).UTC()
}

// Add is the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d.Milliseconds()) }

// reached reports whether a set instant is now or past.
func (i Instant) reached(now Instant) bool { return i != 0 && i <= now }

// earlier returns the earlier of two instants of which "not set" means never.
func earlier(a, b Instant) Instant {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}
