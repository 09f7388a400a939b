// Package postgrestest runs real PostgreSQL servers for tests, each in a directory
// and on a port of its own, and ends them with the test.
//
// A test that only needs a database takes one of the server that the tests of its
// package share, with [NewDatabase]. One that stops, kills or configures a server
// starts its own, with [Start].
//
// Without the programs of a server such tests skip; with REQUIRE_POSTGRES=1 in the
// environment they fail. POSTGRES_BIN names the directory of the programs where they
// stand at an uncommon place.
package postgrestest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
)

// patience is how long a server may take to start, to stop, and to answer.
const patience = time.Minute

// superuser is who the tests are. Over 127.0.0.1 it needs no password.
const superuser = "postgres"

// Server is a PostgreSQL server. Its methods fail the test it was started for.
type Server struct {
	t        testing.TB
	programs string // their directory
	dir      string
	addr     string
	tls      bool

	mu       sync.Mutex
	settings map[string]string
	running  *process // nil while stopped
}

// Option changes a server before it is started.
type Option func(*Server)

// Setting sets a configuration parameter, as [Server.Conf] does.
func Setting(name, value string) Option { return func(s *Server) { s.settings[name] = value } }

// NoSync makes commits fast, and lost in a power cut. A killed server loses none.
func NoSync() Option { return Setting("fsync", "off") }

// TLS makes a server that speaks TLS, for [Server.NewSecureDatabase].
func TLS() Option {
	return func(s *Server) {
		s.tls = true
		s.settings["ssl"] = "on"
	}
}

// Start starts a server, and ends it with the test. If that fails, it logs the end of
// the server's log.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	s, err := start(options...)
	demand(t, err)
	s.t = t
	t.Cleanup(func() {
		s.logOnFailure(t, 0)
		s.end()
	})
	return s
}

// demand ends a test that has no server: it skips where there is nothing to start,
// unless REQUIRE_POSTGRES says that there must be.
func demand(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, errNoProgram) && os.Getenv("REQUIRE_POSTGRES") != "1":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// Programs returns the directory of a server's programs, for a test that runs them
// itself.
func Programs(t testing.TB) string {
	t.Helper()
	dir, err := findServer()
	demand(t, err)
	return dir
}

// start starts a server that the caller ends.
func start(options ...Option) (*Server, error) {
	programs, err := findServer()
	if err != nil {
		return nil, err
	}
	s := &Server{programs: programs, settings: map[string]string{}}
	for _, option := range options {
		option(s)
	}
	if s.dir, err = os.MkdirTemp("", "postgrestest"); err != nil {
		return nil, err
	}
	if err = s.create(); err != nil {
		s.end()
		return nil, fmt.Errorf("starting a PostgreSQL server: %w", err)
	}
	return s, nil
}

// create makes the server's files, and starts it.
func (s *Server) create() (err error) {
	if s.addr, err = badnet.FreeAddr(); err != nil {
		return err
	}
	if err := own(s.dir); err != nil {
		return err
	}
	initdb := command(s.dir, filepath.Join(s.programs, "initdb"), "--pgdata", s.path("data"),
		"--username", superuser, "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := s.configure(); err != nil {
		return err
	}
	if s.tls {
		return s.launchSecure()
	}
	return s.launch()
}

// configure writes the server's configuration, for its next start or reload. What a
// test sets with ALTER SYSTEM comes before it.
func (s *Server) configure() error {
	_, port, _ := strings.Cut(s.addr, ":")
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    port,
		"unix_socket_directories": "",
		// Files in the directory, because others would outlive a server that is killed.
		"dynamic_shared_memory_type": "mmap",
		"log_line_prefix":            "%m [%p] %d ",
	}
	var text strings.Builder
	for _, of := range []map[string]string{settings, s.settings} {
		for name, value := range of {
			fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
		}
	}
	return s.write("data/postgresql.conf", text.String())
}

// path is where a file of the server is.
func (s *Server) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// write writes a file that only the server's user can read.
func (s *Server) write(name, text string) error {
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		return err
	}
	return own(s.path(name))
}

// Addr is the server's host and port. It keeps them over a restart.
func (s *Server) Addr() string { return s.addr }

// DSN is how the superuser reaches a database. The one named postgres always exists.
func (s *Server) DSN(database string) string { return dsn(s.addr, database) }

func dsn(addr, database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", superuser, addr, url.PathEscape(database))
}

// NewDatabase makes an empty database, and returns its DSN.
func (s *Server) NewDatabase(t testing.TB) string {
	t.Helper()
	return s.DSN(s.newDatabase(t, superuser))
}

// newDatabase makes a database of a role, and returns its name.
func (s *Server) newDatabase(t testing.TB, owner string) string {
	t.Helper()
	name := "test_" + strings.ToLower(rand.Text())
	if err := s.exec("CREATE DATABASE " + name + " OWNER " + owner); err != nil {
		t.Fatalf("making a database: %v", err)
	}
	return name
}

// exec runs one statement as the superuser.
func (s *Server) exec(statement string) error {
	return s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statement)
		return err
	})
}

// connected calls do with a connection of the superuser to the database postgres.
// That can write also where default_transaction_read_only is on.
func (s *Server) connected(do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.DSN("postgres")+"&default_transaction_read_only=off")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(ctx, conn)
}

// Log returns what the server wrote to its log since it was created.
func (s *Server) Log() string { return readLog(s.path("log")) }

func readLog(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// logOnFailure gives a failed test the end of the server's log, from an offset on.
func (s *Server) logOnFailure(t testing.TB, from int) {
	if t.Failed() {
		log := s.Log()
		t.Logf("the end of the PostgreSQL server's log:\n%s", tail(log[min(from, len(log)):]))
	}
}

// tail is the end of a log, as much of it as one reads.
func tail(log string) string {
	const length = 4 << 10
	return log[max(0, len(log)-length):]
}
