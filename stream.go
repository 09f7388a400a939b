package apikeys

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// streams are the open requests that last, of all configurations: they outlive
// a reload.
var streams streamSet

const (
	// recheckInterval is how often the key of a stream is judged again.
	recheckInterval = 250 * time.Millisecond
	// recheckTimeout bounds the looks into the store of one round, so that a store
	// that hangs does not keep the other streams from being judged by the clock.
	recheckTimeout = 250 * time.Millisecond
)

// errKeyStopped is the cause with which a stream's context ends.
var errKeyStopped = errors.New("the API key of this stream stopped")

// streamSet ends streams whose key stops. Its goroutine runs while there are
// any.
type streamSet struct {
	mu      sync.Mutex
	open    map[*stream]struct{}
	running bool
}

// stream is one open request.
type stream struct {
	keyring *keystore.Keyring
	grant   *keystore.Grant
	request keystore.Request
	end     context.CancelCauseFunc
}

// isStream reports whether the request asks for an answer that lasts: an
// upgrade (RFC 9110, 7.8), an extended CONNECT (RFC 8441), server-sent events or
// gRPC.
func isStream(r *http.Request) bool {
	if len(r.Header["Upgrade"]) > 0 || r.Method == http.MethodConnect {
		return true
	}
	if t := r.Header["Content-Type"]; len(t) > 0 && hasPrefixFold(t[0], "application/grpc") {
		return true
	}
	return slices.ContainsFunc(r.Header["Accept"], func(accept string) bool {
		return len(accept) >= len(eventStream) && strings.Contains(strings.ToLower(accept), eventStream)
	})
}

const eventStream = "text/event-stream"

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// watch returns the request with a context that ends when the key stops. The
// caller calls done when the request is answered.
func (set *streamSet) watch(r *http.Request, s *stream) (watched *http.Request, done func()) {
	ctx, end := context.WithCancelCause(r.Context())
	s.end = end
	set.mu.Lock()
	defer set.mu.Unlock()
	if set.open == nil {
		set.open = map[*stream]struct{}{}
	}
	set.open[s] = struct{}{}
	if !set.running {
		set.running = true
		go set.run()
	}
	return r.WithContext(ctx), func() { set.remove(s) }
}

func (set *streamSet) remove(s *stream) {
	s.end(nil)
	set.mu.Lock()
	defer set.mu.Unlock()
	delete(set.open, s)
}

func (set *streamSet) count() int {
	set.mu.Lock()
	defer set.mu.Unlock()
	return len(set.open)
}

// run judges the open streams until there are none.
func (set *streamSet) run() {
	tick := time.NewTicker(recheckInterval)
	defer tick.Stop()
	for range tick.C {
		open := set.snapshot()
		if open == nil {
			return
		}
		recheck(open)
	}
}

func recheck(open []*stream) {
	ctx, cancel := context.WithTimeout(context.Background(), recheckTimeout)
	defer cancel()
	for _, s := range open {
		s.recheck(ctx)
	}
}

// snapshot returns the open streams; if there are none, it notes that run ends.
func (set *streamSet) snapshot() []*stream {
	set.mu.Lock()
	defer set.mu.Unlock()
	if len(set.open) == 0 {
		set.running = false
		return nil
	}
	open := make([]*stream, 0, len(set.open))
	for s := range set.open {
		open = append(open, s)
	}
	return open
}

// recheck ends the stream if its key would not be accepted any more.
func (s *stream) recheck(ctx context.Context) {
	grant, verdict := s.keyring.Recheck(ctx, s.grant, s.request)
	s.grant = grant
	if verdict != keystore.OK {
		s.end(errKeyStopped)
	}
}
