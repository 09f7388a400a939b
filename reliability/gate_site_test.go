//go:build reliability

package reliability

import (
	"net"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/attack"
	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// attacked is a running gateway before a backend that keeps every byte.
type attacked struct {
	*livetest.Gateway
	backend *attack.Backend
	issued  *keystore.Issued
}

// directive is one that can stand in the place of the gate.
type directive struct{ name, block string }

var (
	realGate = directive{"api_keys", "{\n dialect rest /keys-api\n }"}
	noGate   = directive{attack.NoGate, attack.NoGateBlock}
)

func startAttacked(t *testing.T) *attacked {
	t.Helper()
	backend, err := attack.StartBackend()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Close)
	a := &attacked{backend: backend}
	a.Gateway = livetest.StartWith(t, a.write(attack.Caddyfiles[0], realGate, "0"))
	a.issued = a.Issue(keystore.Credential{Roles: []string{"reader", "writer"}})
	return a
}

func (a *attacked) write(shape attack.Caddyfile, d directive, port string) string {
	return strings.ReplaceAll(shape.Write(d.name, d.block, port), "{upstream}", a.backend.Addr)
}

// use loads a shape on a port of its own: the listener of the one before may take
// connections for a while.
func (a *attacked) use(t *testing.T, shape attack.Caddyfile, d directive) {
	t.Helper()
	a.T, a.Addr = t, livetest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(a.Addr)
	if err := a.Load(a.write(shape, d, port)); err != nil {
		t.Fatalf("%s: %v", shape.Name, err)
	}
	a.backend.Taken()
}

// ask sends bytes and returns the answer.
func (a *attacked) ask(text string, open bool) string {
	a.T.Helper()
	answer, err := attack.Ask(a.Addr, text, open)
	if err != nil {
		a.T.Fatal(err)
	}
	return answer
}

// shapeNamed is a shape of the corpus.
func shapeNamed(t *testing.T, name string) attack.Caddyfile {
	t.Helper()
	for _, shape := range attack.Caddyfiles {
		if shape.Name == name {
			return shape
		}
	}
	t.Fatalf("no shape is named %q", name)
	return attack.Caddyfile{}
}
