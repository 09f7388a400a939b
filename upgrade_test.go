package apikeys

import (
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// TestNoTunnelForRequests: whoever has a key could send others' requests through a
// connection that the backend takes over as HTTP.
func TestNoTunnelForRequests(t *testing.T) {
	g := startWith(t, "", "anonymous allow")
	key := "X-API-Key: " + g.issue(keystore.Credential{}).Text + "\r\n"
	for upgrade, wanted := range map[string]bool{
		"h2c": false, "H2C": false, "h2": false, "HTTP/2.0": false, "http/1.1": false, "TLS/1.2": false, "websocket, h2c": false, "h2c , websocket": false,
		"websocket\r\nUpgrade: h2c": false, "websocket": true, "SPDY/3.1": true, "tunnel": true,
	} {
		for _, key := range []string{key, ""} {
			g.raw("GET / HTTP/1.1\r\nHost: " + g.addr + "\r\n" + key + "Connection: close, Upgrade\r\nUpgrade: " + upgrade + "\r\n\r\n")
			reached := g.upstream.taken()
			if len(reached) != 1 {
				t.Fatalf("%s: the upstream was reached %d times", upgrade, len(reached))
			}
			if got := strings.Join(reached[0].Header["Upgrade"], ", "); (got != "") != wanted {
				t.Errorf("%s: the upstream is asked for an upgrade to %q", upgrade, got)
			}
		}
	}
}
