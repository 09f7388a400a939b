package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Shutdown is how a server is asked to stop.
type Shutdown syscall.Signal

// The ways to stop.
const (
	// Fast ends all connections, and leaves nothing to recover at the next start.
	Fast = Shutdown(syscall.SIGINT)
	// Immediate ends all processes at once; the next start recovers, as after a crash.
	Immediate = Shutdown(syscall.SIGQUIT)
)

// Stop stops the server, and returns when it has ended.
func (s *Server) Stop(how Shutdown) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(how); err != nil {
		s.t.Fatal(err)
	}
}

// Kill ends all processes of the server with SIGKILL, as where the machine dies, and
// returns when none is left.
func (s *Server) Kill() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return
	}
	err := s.running.kill()
	s.running = nil
	if err != nil {
		s.t.Fatal(err)
	}
}

// Restart starts the server, stopping it first, fast, if it runs. It returns when the
// server answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.restart(); err != nil {
		s.t.Fatal(err)
	}
}

// Conf sets a configuration parameter. It holds for all connections when Conf
// returns, those that are open included; where the parameter needs a restart of the
// server, Conf restarts it.
func (s *Server) Conf(name, value string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings[name] = value
	err := s.configure()
	if err == nil && s.running != nil {
		err = s.reload()
	}
	if err != nil {
		s.t.Fatalf("setting %s to %q: %v", name, value, err)
	}
}

// ReadOnly makes every transaction that doesn't say otherwise one that can't write, as
// on a server that became a standby, or ends that.
func (s *Server) ReadOnly(on bool) {
	s.t.Helper()
	s.Conf("default_transaction_read_only", fmt.Sprint(on))
}

// launch starts the server's processes and waits until it answers.
func (s *Server) launch() error {
	p, err := run(s.path("log"), command(s.dir, filepath.Join(s.programs, "postgres"), "-D", s.path("data")))
	if err != nil {
		return err
	}
	s.running = p
	err = p.ready(func() error { return s.exec("SELECT 1") })
	if err != nil {
		_ = p.kill()
		s.running = nil
		return fmt.Errorf("%w\n%s", err, tail(s.Log()))
	}
	return nil
}

func (s *Server) stop(how Shutdown) error {
	if s.running == nil {
		return nil
	}
	if err := s.running.stop(syscall.Signal(how)); err != nil {
		return fmt.Errorf("stopping the PostgreSQL server: %w", err)
	}
	s.running = nil
	return nil
}

func (s *Server) restart() error {
	if err := s.stop(Fast); err != nil {
		return err
	}
	return s.launch()
}

// end leaves nothing behind: no process, no shared memory, no file.
func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.stop(Immediate); err != nil {
		_ = s.running.kill()
	}
	removeSharedMemory(s.path("data/postmaster.pid"))
	_ = os.RemoveAll(s.dir)
}

// reload makes the server read its configuration anew, and waits until it has. It
// tells its other processes in the same go, before it accepts the next connection, and
// they obey before their next statement: so what a new connection sees holds for all.
func (s *Server) reload() error {
	loaded := func() (at time.Time, err error) {
		err = s.connected(func(ctx context.Context, conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&at)
		})
		return at, err
	}
	if err := s.refused(); err != nil {
		return err
	}
	before, err := loaded()
	if err != nil {
		return err
	}
	if err := s.running.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	err = s.running.ready(func() error {
		now, err := loaded()
		if err == nil && !now.After(before) {
			err = errors.New("the configuration is not loaded yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.restartIfPending()
}

// refused says what in the configuration the server can't use. What only waits for a
// restart does not count: the server learns that of a setting as it reads the file,
// which is what the first statement makes it do.
func (s *Server) refused() error {
	var errs []string
	err := s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.Exec(ctx, "SELECT count(*) FROM pg_file_settings"); err != nil {
			return err
		}
		return conn.QueryRow(ctx, `
			SELECT coalesce(array_agg(f.name || ': ' || f.error), '{}')
			FROM pg_file_settings f LEFT JOIN pg_settings s ON s.name = f.name
			WHERE f.error IS NOT NULL AND s.pending_restart IS NOT TRUE`).Scan(&errs)
	})
	if err == nil && len(errs) > 0 {
		err = errors.New(strings.Join(errs, ", "))
	}
	return err
}

// restartIfPending restarts a server with settings that wait for that.
func (s *Server) restartIfPending() error {
	var pending bool
	err := s.connected(func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT bool_or(pending_restart) FROM pg_settings").Scan(&pending)
	})
	if err == nil && pending {
		err = s.restart()
	}
	return err
}
