package keystore

import (
	"sync/atomic"
	"time"
)

// This file is for how long a node of a cluster may go by what it holds in memory.
// It stands apart, because every verdict asks.

const (
	// maxDrift is by how much the wall clock and the monotonic one may drift apart
	// before the latter is distrusted: it stands still while a machine is suspended.
	maxDrift = time.Second

	// clockMargin is which part of its lease a node leaves unused, because the clocks
	// of two machines do not run at quite the same rate.
	clockMargin = 100
)

// reading is what both clocks of the machine showed at one moment, since the same
// origin.
type reading struct{ monotonic, wall time.Duration }

// clocksSince returns how to read the clocks.
func clocksSince(origin time.Time) func() reading {
	wall := origin.UnixNano()
	return func() reading {
		now := time.Now()
		return reading{now.Sub(origin), time.Duration(now.UnixNano() - wall)}
	}
}

// lease is the permission to go by memory: for a while, counted from before the feed
// was read that memory is up to. One goroutine extends it; anyone may ask.
type lease struct {
	read   func() reading
	length time.Duration
	// until is when it ends by the monotonic clock, and ahead by how much the wall
	// clock was ahead of that when it was taken, both in nanoseconds. They are stored
	// one after the other: who sees only the one that is new either goes by the lease
	// before, which memory is good for all the more, or sees the clocks drift apart.
	until, ahead atomic.Int64
}

// extend takes the lease anew. Memory must be up to all that was in the feed when the
// clocks were read.
func (l *lease) extend(read reading) {
	l.ahead.Store(int64(read.wall - read.monotonic))
	l.until.Store(int64(read.monotonic + l.length))
}

// end ends the lease.
func (l *lease) end() { l.until.Store(0) }

// holds reports whether memory may be gone by at this moment.
func (l *lease) holds() bool {
	now := l.read()
	drift := now.wall - now.monotonic - time.Duration(l.ahead.Load())
	return l.covers(now.monotonic, drift, time.Duration(l.until.Load()))
}

// covered reports whether less time than a lease has passed since the clocks were
// read.
func (l *lease) covered(read reading) bool {
	now := l.read()
	drift := now.wall - now.monotonic - (read.wall - read.monotonic)
	return l.covers(now.monotonic, drift, read.monotonic+l.length)
}

// covers counts by the clock that is ahead.
func (*lease) covers(now, drift, until time.Duration) bool {
	return -maxDrift <= drift && drift <= maxDrift && now+max(drift, 0) < until
}
