package dialect

import (
	"maps"
	"net/http"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestWhoWritesIntoARefusalsHeadersChangesNoOther writes as Caddy's header directive
// does: into the values, and behind them.
func TestWhoWritesIntoARefusalsHeadersChangesNoOther(t *testing.T) {
	refusal := newRefusals("Bearer")[keystore.InvalidKey]
	refusal.RetryAfter = 5
	first, second := http.Header{}, http.Header{}
	refusal.WriteHeaders(first)
	refusal.WriteHeaders(second)
	want := http.Header{"Cache-Control": {"no-store"}, "Www-Authenticate": {`Bearer realm="api_keys", error="invalid_token"`}, "Retry-After": {"5"}}
	same := func(a, b []string) bool { return len(a) == 1 && len(b) == 1 && a[0] == b[0] }
	if !maps.EqualFunc(first, want, same) {
		t.Errorf("headers %v, want %v", first, want)
	}
	for name := range first {
		first.Add(name, "more")
		first[name][0] = "changed"
	}
	for name, values := range first {
		if len(values) != 2 || values[0] != "changed" || values[1] != "more" {
			t.Errorf("%s: %q, though nobody else wrote into it", name, values)
		}
	}
	if !maps.EqualFunc(second, want, same) {
		t.Errorf("another response's headers are %v, want %v", second, want)
	}
}
