package dialect

import (
	"sync"
	"time"
)

// Limiter allows each client a number of requests in any span of time of a
// length, exactly: it remembers when the last ones were, in memory. One that is
// made in Mount forgets at each reload.
type Limiter struct {
	limit  int
	window time.Duration

	mu      sync.Mutex
	clients map[string][]time.Time // of the requests allowed in the last window, oldest first
	swept   time.Time
}

// maxClients bounds what a Limiter remembers; beyond it, it forgets clients at
// random.
const maxClients = 1 << 17

// NewLimiter allows limit requests in any window.
func NewLimiter(limit int, window time.Duration) *Limiter {
	return &Limiter{limit: limit, window: window, clients: map[string][]time.Time{}, swept: time.Now()}
}

// Allow notes a request of a client, and returns zero; or, where it would be one
// too many, how long the client has to wait for the next.
func (l *Limiter) Allow(client string) time.Duration {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.swept) >= l.window {
		l.sweep(now)
	}
	recent := l.recent(client, now)
	if len(recent) >= l.limit {
		return l.window - now.Sub(recent[0])
	}
	if len(recent) == 0 && len(l.clients) >= maxClients {
		l.forgetAny()
	}
	l.clients[client] = append(recent, now)
	return 0
}

// recent returns the requests of the last window.
func (l *Limiter) recent(client string, now time.Time) []time.Time {
	times := l.clients[client]
	for len(times) > 0 && now.Sub(times[0]) >= l.window {
		times = times[1:]
	}
	return times
}

// sweep forgets the clients without a request in the last window.
func (l *Limiter) sweep(now time.Time) {
	l.swept = now
	for client := range l.clients {
		if len(l.recent(client, now)) == 0 {
			delete(l.clients, client)
		}
	}
}

func (l *Limiter) forgetAny() {
	for client := range l.clients {
		delete(l.clients, client)
		return
	}
}
