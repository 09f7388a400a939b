package apikeys

import (
	"net"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestAFailedReloadClaimsNoPepper: a configuration that was refused must not keep
// the one before it from starting again.
func TestAFailedReloadClaimsNoPepper(t *testing.T) {
	g := startWith(t, "", "")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	old := strings.NewReplacer("{global}", "", "{block}", "").Replace(minimal)
	bad := strings.NewReplacer("{global}", "pepper 0123456789abcdef", "{block}", "").Replace(minimal) +
		"http://" + busy.Addr().String() + " {\n\trespond hi\n}\n"
	failed := 0
	for range 6 { // apps start in no fixed order
		if g.tryLoad(bad) != nil {
			failed++
		}
	}
	if failed != 6 {
		t.Fatalf("failed %d", failed)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := g.tryLoad(old); err != nil {
		t.Errorf("the old configuration does not start any more: %v", err)
	}
}
