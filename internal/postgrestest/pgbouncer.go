package postgrestest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
)

// Bouncer is a PgBouncer before a server, for its superuser.
type Bouncer struct{ addr string }

// PgBouncer starts one with a pool mode, session, transaction or statement, and ends it
// with the test. Everything else is as PgBouncer has it by default. Without the program
// the test skips, or with REQUIRE_POSTGRES=1 fails.
func PgBouncer(t testing.TB, s *Server, mode string) *Bouncer {
	t.Helper()
	program, err := findBouncer()
	demand(t, err)
	b := new(Bouncer)
	if b.addr, err = badnet.FreeAddr(); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "postgrestest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(config, []byte(b.config(s, mode)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, config} {
		if err := own(path); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "log")
	p, err := run(log, command(dir, program, config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of PgBouncer's log:\n%s", tail(readLog(log)))
		}
		if err := p.kill(); err != nil {
			t.Errorf("ending PgBouncer: %v", err)
		}
	})
	if err := p.ready(b.ping); err != nil {
		t.Fatalf("starting PgBouncer: %v", err)
	}
	return b
}

// Addr is the host and port.
func (b *Bouncer) Addr() string { return b.addr }

// DSN is how the server's superuser reaches a database of the server.
func (b *Bouncer) DSN(database string) string { return dsn(b.addr, database) }

func (b *Bouncer) config(s *Server, mode string) string {
	_, port, _ := strings.Cut(b.addr, ":")
	_, serverPort, _ := strings.Cut(s.addr, ":")
	return fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%s user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = %s
`, serverPort, superuser, port, mode)
}

func (b *Bouncer) ping() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, b.DSN("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func findBouncer() (string, error) {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer")
	}
	if err != nil {
		return "", fmt.Errorf("pgbouncer was %w: install it (Debian: pgbouncer)", errNoProgram)
	}
	return program, nil
}
