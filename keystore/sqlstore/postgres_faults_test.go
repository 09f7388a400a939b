package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/badnet"
	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// This file is what a store in PostgreSQL answers when its server, or the network on
// the way there, fails while it is open.

const (
	// answersWithin is what a caller may wait for the answer that there is none: the
	// engine's patience, and some for a busy machine.
	answersWithin = 8 * time.Second
	// recoversWithin is how soon a store works again that was not opened anew.
	recoversWithin = 5 * time.Second
)

// connectPostgres connects past the store.
func connectPostgres(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%v in %s", err, s)
		}
	}
}

// proxied is a proxy before the server of the DSN, and the DSN through it.
func proxied(t *testing.T, dsn string) (*badnet.Proxy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	proxy := badnet.Listen(t, u.Host)
	return proxy, strings.Replace(dsn, u.Host, proxy.Addr(), 1)
}

func mark(store keystore.Store, name string) error {
	return store.Update(context.Background(), func(tx keystore.Tx) error { return tx.SetSetting(name, []byte("set")) })
}

func isMarked(store keystore.Store, name string) (found bool, err error) {
	err = store.View(context.Background(), func(r keystore.Reader) error {
		value, err := r.Setting(name)
		found = value != nil
		return err
	})
	return found, err
}

// calls are the ways to use a store.
var calls = map[string]func(keystore.Store) error{
	"update": func(s keystore.Store) error { return mark(s, "any") },
	"view": func(s keystore.Store) error {
		_, err := isMarked(s, "any")
		return err
	},
	"look up": func(s keystore.Store) error {
		_, err := s.Lookup(context.Background(), keystore.Digest{1})
		if errors.Is(err, keystore.ErrNotFound) {
			return nil
		}
		return err
	},
}

// wantUnavailable has all calls run at once, those that are named, and answer that
// the store is unavailable, in a bounded time.
func wantUnavailable(t *testing.T, store keystore.Store, names ...string) {
	t.Helper()
	var asked sync.WaitGroup
	for _, name := range names {
		asked.Go(func() {
			begin := time.Now()
			if err := calls[name](store); !errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("%s answers %v", name, err)
			}
			if took := time.Since(begin); took > answersWithin {
				t.Errorf("%s answered after %v", name, took)
			}
		})
	}
	asked.Wait()
}

// wantRecovered waits until all calls work.
func wantRecovered(t *testing.T, store keystore.Store) {
	t.Helper()
	begin := time.Now()
	for name, call := range calls {
		for err := call(store); err != nil; err = call(store) {
			if time.Since(begin) > recoversWithin {
				t.Fatalf("%v later, %s answers %v", recoversWithin, name, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	t.Logf("recovered within %v", time.Since(begin))
}

// TestTheOutcomeOfALostCommitIsUnknown loses a commit on its way there or back, with
// several updates under way.
func TestTheOutcomeOfALostCommitIsUnknown(t *testing.T) {
	dsn := postgrestest.NewSchema(t)
	proxy, through := proxied(t, dsn)
	store, direct := openPostgres(t, through), openPostgres(t, dsn)
	commit := func(piece []byte) bool { return strings.Contains(string(piece), "commit\x00") }
	for name, c := range map[string]struct {
		arm  func(func([]byte) bool)
		made bool
	}{
		"the answer is lost":  {proxy.CutBeforeReply, true},
		"the request is lost": {proxy.CutBeforeRequest, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.arm(commit)
			errs := make([]error, 8)
			var writers sync.WaitGroup
			for i := range errs {
				writers.Go(func() { errs[i] = mark(store, fmt.Sprint(name, i)) })
			}
			writers.Wait()
			unknown := 0
			for i, err := range errs {
				if err != nil {
					unknown++
				}
				if err != nil && (!errors.Is(err, keystore.ErrUnavailable) || !strings.HasPrefix(err.Error(), "commit")) {
					t.Errorf("update %d is answered %v", i, err)
				}
				if made, e := isMarked(direct, fmt.Sprint(name, i)); e != nil || made != (err == nil || c.made) {
					t.Errorf("update %d, answered %v, was made: %t, %v", i, err, made, e)
				}
			}
			if unknown == 0 {
				t.Error("no commit was lost")
			}
			wantRecovered(t, store)
		})
	}
}

// TestTransactionsThatPostgresGivesUpAreRunAgain has the server raise errors of
// concurrency, so many times.
func TestTransactionsThatPostgresGivesUpAreRunAgain(t *testing.T) {
	dsn := postgrestest.NewSchema(t)
	store, conn := openPostgres(t, dsn), connectPostgres(t, dsn)
	const raise = `CREATE OR REPLACE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('conflicts') <= %d THEN RAISE EXCEPTION 'in favour of another' USING ERRCODE = '%s'; END IF; RETURN NULL; END $$`
	for name, trigger := range map[string]string{
		"at a statement": `CREATE TRIGGER conflict AFTER INSERT OR UPDATE ON settings FOR EACH ROW EXECUTE FUNCTION conflict()`,
		"at the commit": `CREATE CONSTRAINT TRIGGER conflict AFTER INSERT OR UPDATE ON settings
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION conflict()`,
	} {
		for _, c := range []struct {
			code         string
			times, tries int
			want         error
		}{
			{"40001", 4, 5, nil},
			{"40P01", 4, 5, nil},
			{"40001", 1000, 5, keystore.ErrUnavailable},
			{"P0001", 1, 1, keystore.ErrUnavailable},
		} {
			t.Run(fmt.Sprintf("%s, %s raised %d times", name, c.code, c.times), func(t *testing.T) {
				run(t, conn, `CREATE SEQUENCE conflicts`, fmt.Sprintf(raise, c.times, c.code), trigger)
				defer run(t, conn, `DROP TRIGGER conflict ON settings`, `DROP SEQUENCE conflicts`)
				if err := mark(store, "any"); !errors.Is(err, c.want) {
					t.Errorf("answered %v", err)
				}
				var tries int
				if err := conn.QueryRow(t.Context(), `SELECT last_value FROM conflicts`).Scan(&tries); err != nil || tries != c.tries {
					t.Errorf("run %d times, %v, want %d", tries, err, c.tries)
				}
			})
		}
	}
}

// TestALockThatIsHeldElsewhere: nobody waits for ever, and reads do not wait at all.
func TestALockThatIsHeldElsewhere(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.NewSchema(t)
	store, conn := openPostgres(t, dsn), connectPostgres(t, dsn)
	run(t, conn, `BEGIN`, `SELECT epoch FROM epochs FOR UPDATE`)
	held := make(chan error)
	go func() { held <- mark(store, "any") }()
	for name := range calls {
		if name != "update" {
			if err := calls[name](store); err != nil {
				t.Errorf("while an update waits, %s answers %v", name, err)
			}
		}
	}
	select {
	case err := <-held:
		if !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "lock of all updates") {
			t.Errorf("the update is answered %v", err)
		}
	case <-time.After(answersWithin):
		t.Error("the update is not answered")
		defer func() { <-held }()
	}
	run(t, conn, `ROLLBACK`)
	wantRecovered(t, store)
}

// TestAProcessThatVanishesInAnUpdate loses the lock of all updates, so that others
// can go on, and its update.
func TestAProcessThatVanishesInAnUpdate(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.NewSchema(t)
	proxy, through := proxied(t, dsn)
	vanishes, store := openPostgres(t, through), openPostgres(t, dsn)
	err := vanishes.Update(t.Context(), func(tx keystore.Tx) error {
		err := tx.SetSetting("half", nil)
		proxy.BlackHole()
		wantUnavailable(t, store, "update")
		wantRecovered(t, store)
		return err
	})
	if !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("the update that vanished is answered %v", err)
	}
	proxy.Heal()
	if made, err := isMarked(store, "half"); made || err != nil {
		t.Errorf("its change was made: %t, %v", made, err)
	}
	wantRecovered(t, vanishes)
}

func TestABlackHoleIsNoticed(t *testing.T) {
	t.Parallel()
	proxy, through := proxied(t, postgrestest.NewSchema(t))
	store := openPostgres(t, through)
	wantRecovered(t, store)
	proxy.BlackHole()
	wantUnavailable(t, store, "update", "view", "look up")
	proxy.Heal()
	wantRecovered(t, store)
}

// TestAServerThatWasAway: connections that are gone are replaced, whatever way they
// went.
func TestAServerThatWasAway(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.NoSync())
	store := openPostgres(t, server.NewDatabase(t))
	for name, end := range map[string]func(){
		"stopped":             func() { server.Stop(postgrestest.Fast) },
		"stopped immediately": func() { server.Stop(postgrestest.Immediate) },
		"killed":              server.Kill,
	} {
		t.Run(name, func(t *testing.T) {
			wantRecovered(t, store)
			end()
			wantUnavailable(t, store, "update", "view", "look up")
			server.Restart()
			wantRecovered(t, store)
		})
	}
}

// TestAServerThatTakesNoWrites is a standby, or a primary that became one.
func TestAServerThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.NoSync())
	dsn := server.NewDatabase(t)
	store := openPostgres(t, dsn)
	server.ReadOnly(true)
	if err := mark(store, "any"); !errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "takes no writes") {
		t.Errorf("an update is answered %v", err)
	}
	for _, name := range []string{"view", "look up"} {
		if err := calls[name](store); err != nil {
			t.Errorf("%s answers %v", name, err)
		}
	}
	if _, err := sqlstore.OpenPostgres(t.Context(), server.NewDatabase(t)); err == nil || !strings.Contains(err.Error(), "takes no writes") {
		t.Errorf("an empty one is opened with %v", err)
	}
	openPostgres(t, dsn)
	server.ReadOnly(false)
	wantRecovered(t, store)
}

// TestAServerWithoutConnectionsToGive: a store that lost its own can't get others, and
// says why.
func TestAServerWithoutConnectionsToGive(t *testing.T) {
	t.Parallel()
	server := postgrestest.Start(t, postgrestest.NoSync(), postgrestest.Setting("max_connections", "20"))
	dsn := server.NewDatabase(t)
	store, operator := openPostgres(t, dsn), connectPostgres(t, dsn)
	run(t, operator, `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'caddy api_keys'`)
	var taken []*pgx.Conn
	for {
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			break
		}
		taken = append(taken, conn)
	}
	wantUnavailable(t, store, "update", "view", "look up")
	_, err := sqlstore.OpenPostgres(t.Context(), dsn)
	for what, err := range map[string]error{"an update": mark(store, "any"), "opening": err} {
		if err == nil || !strings.Contains(err.Error(), "max_connections") {
			t.Errorf("%s is answered %v", what, err)
		}
	}
	for _, conn := range taken {
		_ = conn.Close(t.Context())
	}
	wantRecovered(t, store)
}
