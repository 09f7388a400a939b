package keystore

import "time"

// Clock is the time by which verdicts are made: the wall clock at the start
// plus the monotonic time since, so that a step of the wall clock changes no
// verdict of a running process.
type Clock struct {
	origin time.Time // carries a monotonic reading
	start  Instant
}

// NewClock starts a clock now, or at floor if the wall clock is behind it:
// time that a store has seen does not come back. It reports by how much the
// wall clock is behind, zero if it is not.
func NewClock(floor Instant) (*Clock, time.Duration) {
	c := &Clock{origin: time.Now()}
	c.start = InstantOf(c.origin)
	if c.start >= floor {
		return c, 0
	}
	behind := floor.Time().Sub(c.origin)
	c.start = floor
	return c, behind
}

// Now is the current instant.
func (c *Clock) Now() Instant { return c.start.Add(time.Since(c.origin)) }

// agreeing is by how much the clocks of machines differ that are set right.
const agreeing = time.Second

// tolerated is by how much the wall clock may be behind the time that the store has
// seen, which may be another machine's.
func tolerated(store Store) time.Duration {
	if _, ok := shared(store); ok {
		return agreeing
	}
	return 0
}
