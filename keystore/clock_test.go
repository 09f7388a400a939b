package keystore

import (
	"testing"
	"time"
	"unsafe"
)

// wallBefore is what [time.Now] would have given at t if the wall clock had then
// been earlier by d: with that wall time, and the same monotonic reading. Package
// time makes no such value otherwise; where it keeps the two is looked up in its
// source, and checked.
func wallBefore(t *testing.T, at time.Time, d time.Duration) time.Time {
	t.Helper()
	const nanosecondBits = 30
	out := at
	wall := (*uint64)(unsafe.Pointer(&out)) // the first field: a flag, seconds, nanoseconds
	*wall -= uint64(d/time.Second) << nanosecondBits
	if out.Sub(at) != 0 || at.Round(0).Sub(out.Round(0)) != d {
		t.Fatalf("package time keeps its readings elsewhere: %v is %v", at, out)
	}
	return out
}

// steps are those of a wall clock that this package promises to bear.
var steps = map[string]time.Duration{
	"a day forward": 24 * time.Hour, "a day back": -24 * time.Hour,
	"a year forward": 365 * 24 * time.Hour, "a year back": -365 * 24 * time.Hour,
}

// runsOn reports whether a clock that started at origin, and whose wall clock has
// been stepped since, goes on from where it was.
func runsOn(origin time.Time) bool {
	started := InstantOf(time.Now())
	c := &Clock{origin: origin, start: started}
	gone := c.Now().Time().Sub(started.Time())
	return gone >= 0 && gone < time.Minute
}

func TestAStepOfTheWallClockIsNotSeen(t *testing.T) {
	for name, step := range steps {
		origin := wallBefore(t, time.Now(), step)
		if !runsOn(origin) {
			t.Errorf("%s: the clock goes with the step", name)
		}
		// The control: without a monotonic reading the same step is seen.
		if runsOn(origin.Round(0)) {
			t.Errorf("%s: the test does not see a clock that goes with the step", name)
		}
	}
}
