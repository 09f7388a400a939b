package postgrestest

import (
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

// Main makes [NewDatabase] usable:
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

// NewDatabase makes an empty database, and returns its DSN. At the end of the test it
// is dropped, whoever still is connected to it. The server is the one that the tests
// of the package share: it starts with the first of them. It does not sync, as no test
// can kill it.
func NewDatabase(t testing.TB) string {
	t.Helper()
	server, err := sharedServer(t)
	demand(t, err)
	from := len(server.Log())
	name := server.newDatabase(t, superuser)
	t.Cleanup(func() {
		if err := server.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("dropping a database: %v", err)
		}
		server.logOnFailure(t, from)
	})
	return server.DSN(name)
}

func sharedServer(t testing.TB) (*Server, error) {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.ends {
		t.Fatal("the TestMain of a package that calls postgrestest.NewDatabase has to call postgrestest.Main")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start(NoSync(), Setting("max_connections", "300"))
	}
	return shared.server, shared.err
}
