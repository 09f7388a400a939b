package postgrestest

import (
	"crypto/rand"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// shared is the server that the tests of a package have in common.
var shared struct {
	mu     sync.Mutex
	ends   bool // there is somebody to end it
	server *Server
	err    error
}

// M runs the tests of a package, and then ends the server they shared.
type M struct{ *testing.M }

// Main makes [NewSchema] usable:
//
//	func TestMain(m *testing.M) { os.Exit(postgrestest.Main(m).Run()) }
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(postgrestest.Main(m)) }
func Main(m *testing.M) M {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.ends = true
	return M{m}
}

// Run runs the tests.
func (m M) Run() int {
	defer func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		if shared.server != nil {
			shared.server.end()
		}
	}()
	return m.M.Run()
}

// NewSchema makes an empty schema in a database that the tests of the package share,
// and returns a DSN under which it is all that a connection sees. At the end of the
// test it is dropped. The server is shared, too: it starts with the first test that
// asks. It does not sync, as no test can kill it. A database of its own would take a
// test several times as long.
func NewSchema(t testing.TB) string {
	t.Helper()
	server, err := sharedServer(t)
	demand(t, err)
	from := len(server.Log())
	name := "test_" + strings.ToLower(rand.Text())
	if err := server.exec("CREATE SCHEMA " + name); err != nil {
		t.Fatalf("making a schema: %v", err)
	}
	t.Cleanup(func() {
		if err := server.exec("DROP SCHEMA " + name + " CASCADE"); err != nil {
			t.Errorf("dropping a schema: %v", err)
		}
		server.logOnFailure(t, from)
	})
	// In a form that psql reads, too.
	return server.DSN("postgres") + "&options=" + url.QueryEscape("-csearch_path="+name)
}

func sharedServer(t testing.TB) (*Server, error) {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.ends {
		t.Fatal("the TestMain of a package that calls postgrestest.NewSchema has to call postgrestest.Main")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start(NoSync(), Setting("max_connections", "300"))
	}
	return shared.server, shared.err
}
