//go:build reliability

package reliability

import (
	"os"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/livetest"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
)

// childVariable is the environment variable that makes the test binary one of
// children: a process of its own, which a test can kill.
const childVariable = "RELIABILITY_CHILD"

// children are what such a process does, by name. Files that need one add it in
// their init. The test gives it a directory of its own, and removes that.
var children = map[string]func(){}

func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv(childVariable)]; ok {
		child()
		return
	}
	os.Exit(livetest.Main(postgrestest.Main(m)))
}
