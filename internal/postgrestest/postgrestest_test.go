package postgrestest

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
)

// asChild in the environment makes these tests a process that starts a server, says
// where its files are, and waits.
const asChild = "POSTGRESTEST_CHILD"

func TestMain(m *testing.M) { goleak.VerifyTestMain(Main(m)) }

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustExec(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func ask(t *testing.T, conn *pgx.Conn, question string) (answer string) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), question).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", question, err)
	}
	return answer
}

func code(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

func TestSchemasOfOneServerAreApart(t *testing.T) {
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, NewSchema(t))
			mustExec(t, conn, "CREATE TABLE t (v text)", "INSERT INTO t VALUES ('"+name+"')")
			if got := ask(t, conn, "SELECT string_agg(v, ' ') FROM t"); got != name {
				t.Errorf("the table holds %q", got)
			}
		})
	}
}

func TestASchemaEndsWithItsTest(t *testing.T) {
	var dsn string
	t.Run("test", func(t *testing.T) {
		dsn = NewSchema(t)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		go conn.Close(context.Background()) // at any time, or after the end
	})
	if got := ask(t, connect(t, dsn), "SELECT coalesce(current_schema(), 'none')"); got != "none" {
		t.Fatalf("the schema %s is still there", got)
	}
}

func TestACommitOutlivesTheServersEnd(t *testing.T) {
	tests := []struct {
		name     string
		end      func(*Server)
		log      string
		recovers bool
	}{
		{"fast", func(s *Server) { s.Stop(Fast) }, "received fast shutdown request", false},
		{"immediate", func(s *Server) { s.Stop(Immediate) }, "received immediate shutdown request", true},
		{"killed", func(s *Server) { s.Kill() }, "database system was interrupted", true},
	}
	s := Start(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := len(s.Log())
			dsn := s.NewDatabase(t)
			conn, busy := connect(t, dsn), connect(t, dsn)
			mustExec(t, conn, "CREATE TABLE t (v text)", "INSERT INTO t VALUES ('kept')")
			result := make(chan error, 1)
			go func() {
				_, err := busy.Exec(context.Background(), "DO 'BEGIN LOOP END LOOP; END'")
				result <- err
			}()
			tt.end(s)
			if <-result == nil {
				t.Error("a statement that never ends has ended well")
			}
			if conn, err := net.Dial("tcp", s.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dialling the stopped server gave %v and %v", conn, err)
			}
			s.Restart()
			if got := ask(t, connect(t, dsn), "SELECT v FROM t"); got != "kept" {
				t.Errorf("the table holds %q", got)
			}
			log := s.Log()[from:]
			if !strings.Contains(log, tt.log) || strings.Contains(log, "automatic recovery") != tt.recovers {
				t.Errorf("the log does not say %q, or not what is recovered:\n%s", tt.log, log)
			}
		})
	}
}

func TestASettingHoldsWhenConfReturns(t *testing.T) {
	s := Start(t, NoSync(), Setting("work_mem", "5MB"))
	conn := connect(t, s.DSN("postgres"))
	if got := ask(t, conn, "SHOW work_mem") + ask(t, conn, "SHOW fsync"); got != "5MBoff" {
		t.Errorf("the options gave %s", got)
	}
	for _, value := range []string{"6MB", "7MB"} {
		s.Conf("work_mem", value)
		if got := ask(t, conn, "SHOW work_mem"); got != value {
			t.Errorf("%s holds for a connection that was open, not %s", got, value)
		}
	}
	s.Conf("max_connections", "5") // needs a restart
	if got := ask(t, connect(t, s.DSN("postgres")), "SHOW max_connections"); got != "5" {
		t.Errorf("at most %s connections, not 5", got)
	}
	s.Stop(Fast)
	s.Conf("work_mem", "8MB") // a stopped server stays stopped
	s.Restart()
	if got := ask(t, connect(t, s.DSN("postgres")), "SHOW work_mem"); got != "8MB" {
		t.Errorf("%s holds after the start, not 8MB", got)
	}
}

func TestAReadOnlyServerRefusesWrites(t *testing.T) {
	s := Start(t, NoSync())
	conn := connect(t, s.NewDatabase(t))
	mustExec(t, conn, "CREATE TABLE t (v text)")
	s.ReadOnly(true)
	if _, err := conn.Exec(t.Context(), "INSERT INTO t VALUES ('x')"); code(err) != "25006" {
		t.Errorf("a write gave %v", err)
	}
	s.NewDatabase(t)
	s.ReadOnly(false)
	mustExec(t, conn, "INSERT INTO t VALUES ('x')")
}

func TestWhatAServerCantUseIsNamed(t *testing.T) {
	tests := []struct{ name, setting, value string }{
		{"an unknown setting", "no_such_setting", "1"},
		{"a value of another type", "work_mem", "plenty"},
		{"a value that needs a restart", "max_connections", "many"},
	}
	s := Start(t, NoSync())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.settings[tt.setting] = tt.value
			if err := s.configure(); err != nil {
				t.Fatal(err)
			}
			if err := s.reload(); err == nil || !strings.Contains(err.Error(), tt.setting) {
				t.Errorf("the reload gave %v", err)
			}
			if err := s.restart(); err == nil || !strings.Contains(err.Error(), tt.setting) {
				t.Errorf("the start gave %v", err)
			}
			delete(s.settings, tt.setting)
			if err := errors.Join(s.configure(), s.restart()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestTheSecureRoleNeedsTLSAndItsPassword(t *testing.T) {
	s := Start(t, NoSync(), TLS())
	dsn := s.NewSecureDatabase(t)
	tests := []struct {
		name   string
		change func(u *url.URL, query url.Values)
		says   string // of the refusal; empty where there is none
	}{
		{"as it is", func(*url.URL, url.Values) {}, ""},
		{"unverified", func(_ *url.URL, q url.Values) { q.Del("sslrootcert"); q.Set("sslmode", "require") }, ""},
		{"verified for another name", func(u *url.URL, q url.Values) { u.Host = "localhost:" + u.Port(); q.Set("sslmode", "verify-ca") }, ""},
		{"another name", func(u *url.URL, _ url.Values) { u.Host = "localhost:" + u.Port() }, "certificate"},
		{"another root", func(_ *url.URL, q url.Values) { q.Del("sslrootcert") }, "unknown authority"},
		{"no TLS", func(_ *url.URL, q url.Values) { q.Set("sslmode", "disable") }, "no encryption"},
		{"no password", func(u *url.URL, _ url.Values) { u.User = url.User(u.User.Username()) }, "password"},
		{"another password", func(u *url.URL, _ url.Values) { u.User = url.UserPassword(u.User.Username(), "x") }, "password"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := url.Parse(dsn)
			if err != nil {
				t.Fatal(err)
			}
			query := u.Query()
			tt.change(u, query)
			u.RawQuery = query.Encode()
			conn, err := pgx.Connect(t.Context(), u.String())
			if err == nil {
				defer conn.Close(context.Background())
				mustExec(t, conn, "CREATE SCHEMA s", "DROP SCHEMA s")
			}
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("connecting gave %v", err)
			}
		})
	}
}

func TestPgBouncerSharesConnectionsBetweenTransactions(t *testing.T) {
	s := Start(t, NoSync())
	b := PgBouncer(t, s, "transaction")
	database, err := url.Parse(s.NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	dsn := b.DSN(strings.TrimPrefix(database.Path, "/")) + "&default_query_exec_mode=simple_protocol"
	one, two := connect(t, dsn), connect(t, dsn)
	if a, b := ask(t, one, "SELECT pg_backend_pid()::text"), ask(t, two, "SELECT pg_backend_pid()::text"); a != b {
		t.Errorf("transactions ran in the server's processes %s and %s", a, b)
	}
	s.Kill()
	s.Restart()
	ask(t, connect(t, dsn), "SELECT 'back'")
}

// The proxy and the server together make the error that is hardest to bring about: a
// commit that may or may not have happened.
func TestACommitWhoseAnswerIsLost(t *testing.T) {
	commit := func(piece []byte) bool { return strings.Contains(string(piece), "commit") }
	tests := []struct {
		name string
		arm  func(*badnet.Proxy)
		rows string
	}{
		{"has happened if the request arrived", func(p *badnet.Proxy) { p.CutBeforeReply(commit) }, "1"},
		{"has not happened if it did not", func(p *badnet.Proxy) { p.CutBeforeRequest(commit) }, "0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dsn := NewSchema(t)
			server, err := url.Parse(dsn)
			if err != nil {
				t.Fatal(err)
			}
			proxy := badnet.Listen(t, server.Host)
			direct, through := connect(t, dsn), connect(t, strings.Replace(dsn, server.Host, proxy.Addr(), 1))
			mustExec(t, direct, "CREATE TABLE t (v text)")
			tt.arm(proxy)
			tx, err := through.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "INSERT INTO t VALUES ('x')"); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(t.Context()); err == nil || code(err) != "" {
				t.Errorf("the commit gave %v", err)
			}
			if got := ask(t, direct, "SELECT count(*)::text FROM t"); got != tt.rows {
				t.Errorf("%s rows, not %s", got, tt.rows)
			}
		})
	}
}

func TestAServerLeavesNothingBehind(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run("killed "+strconv.FormatBool(killed), func(t *testing.T) {
			var s *Server
			var segment string
			t.Run("test", func(t *testing.T) {
				s = Start(t, NoSync())
				segment = sharedMemory(t, s.dir)
				if killed {
					s.Kill()
				}
			})
			if s == nil {
				t.Skip("there was no server")
			}
			if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
				t.Errorf("the directory is there: %v", err)
			}
			if exists(t, segment) {
				t.Errorf("shared memory segment %s is there", segment)
			}
		})
	}
}

func TestAServerEndsWithTestsThatAreKilled(t *testing.T) {
	if _, err := os.Stat("/proc/sysvipc/shm"); err != nil {
		t.Skip("only on Linux")
	}
	if os.Getenv(asChild) != "" {
		s := Start(t)
		_, _ = os.Stdout.WriteString(s.dir + "\n")
		select {}
	}
	_, err := findServer()
	demand(t, err)
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	child.Env = append(os.Environ(), asChild+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	name := make([]byte, 1024)
	n, err := out.Read(name)
	dir := strings.TrimSpace(string(name[:n]))
	if err != nil || !strings.HasPrefix(filepath.Base(dir), "postgrestest") {
		_ = child.Process.Kill()
		t.Fatalf("the child says %q, %v", dir, err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	segment := sharedMemory(t, dir)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	for begin := time.Now(); exists(t, segment); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("the server still runs")
		}
	}
}

// sharedMemory returns the id of the segment of a server that runs.
func sharedMemory(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(strings.Split(string(text), "\n")[6])
	if !exists(t, fields[1]) {
		t.Fatalf("there is no segment %s", fields[1])
	}
	return fields[1]
}

// exists says whether there is such a segment, on Linux.
func exists(t *testing.T, segment string) bool {
	t.Helper()
	table, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == segment {
			return true
		}
	}
	return false
}
