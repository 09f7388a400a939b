package dialect

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestALimiterAllowsANumberInAnySpanOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(3, time.Minute)
		for _, c := range []struct {
			after time.Duration // the request before
			wait  time.Duration
		}{
			{0, 0}, {10 * time.Second, 0}, {10 * time.Second, 0},
			{0, 40 * time.Second}, {39 * time.Second, time.Second}, // what is refused does not count
			{time.Second - time.Nanosecond, time.Nanosecond}, {time.Nanosecond, 0}, // the first is a minute ago
			{0, 10 * time.Second}, {10 * time.Second, 0}, // the second is
			{0, 10 * time.Second}, {time.Hour, 0}, {0, 0}, {0, 0}, {0, time.Minute},
		} {
			time.Sleep(c.after)
			if wait := l.Allow("a"); wait != c.wait {
				t.Errorf("%v later: wait %v, want %v", c.after, wait, c.wait)
			}
		}
	})
}

func TestALimiterCountsEachClientForItself(t *testing.T) {
	l := NewLimiter(1, time.Hour)
	for _, client := range []string{"a", "b", ""} {
		if l.Allow(client) != 0 || l.Allow(client) == 0 {
			t.Errorf("%q is not allowed once and then refused", client)
		}
	}
}

func TestALimiterForgetsWhoIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(2, time.Minute)
		for i := range 1000 {
			l.Allow(fmt.Sprint(i))
		}
		time.Sleep(30 * time.Second)
		l.Allow("late")
		time.Sleep(30 * time.Second)
		l.Allow("later")
		if n := len(l.clients); n != 2 {
			t.Errorf("it remembers %d clients, want 2", n)
		}
	})
}

func TestALimiterRemembersABoundedNumberOfClients(t *testing.T) {
	l := NewLimiter(1, time.Hour)
	for i := range maxClients + 1000 {
		if l.Allow(fmt.Sprint(i)) != 0 {
			t.Fatal("a client that was never there is refused")
		}
	}
	if n := len(l.clients); n != maxClients {
		t.Errorf("it remembers %d clients, want %d", n, maxClients)
	}
}

func TestManyRequestsAtOnceAreCountedExactly(t *testing.T) {
	l := NewLimiter(50, time.Hour)
	var allowed atomic.Int32
	var sent sync.WaitGroup
	for range 200 {
		sent.Go(func() {
			if l.Allow("a") == 0 {
				allowed.Add(1)
			}
		})
	}
	sent.Wait()
	if allowed.Load() != 50 {
		t.Errorf("%d are allowed, want 50", allowed.Load())
	}
}
