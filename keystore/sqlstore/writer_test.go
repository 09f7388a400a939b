package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	codes "modernc.org/sqlite/lib"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

func newStoreForTest(t *testing.T) *Store {
	t.Helper()
	store, err := OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "keys", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func set(name string) func(keystore.Tx) error {
	return func(tx keystore.Tx) error { return tx.SetSetting(name, []byte("set")) }
}

// isSet reports whether a setting was committed.
func isSet(t *testing.T, store *Store, name string) (found bool) {
	t.Helper()
	err := store.View(t.Context(), func(r keystore.Reader) error {
		value, err := r.Setting(name)
		found = value != nil
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// grouped runs changes as one group, and returns their outcomes: they gather while
// the commit of an update waits until all are queued.
func grouped(t *testing.T, store *Store, changes ...func(keystore.Tx) error) []error {
	t.Helper()
	outcomes := make([]error, len(changes))
	var wg sync.WaitGroup
	commit := store.writer.commit
	store.writer.commit = func(tx *sql.Tx) error {
		store.writer.commit = commit
		for i, change := range changes {
			queued := len(store.writer.queue)
			wg.Go(func() { outcomes[i] = store.Update(t.Context(), change) })
			for len(store.writer.queue) == queued {
			}
		}
		return commit(tx)
	}
	if err := store.Update(t.Context(), func(keystore.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	wg.Wait()
	return outcomes
}

func TestUpdatesThatWaitShareACommit(t *testing.T) {
	store := newStoreForTest(t)
	var changes []func(keystore.Tx) error
	for i := range 100 {
		changes = append(changes, set(fmt.Sprint(i)))
	}
	before := store.writer.commits.Load()
	for i, err := range grouped(t, store, changes...) {
		if err != nil || !isSet(t, store, fmt.Sprint(i)) {
			t.Errorf("update %d: %v, set: %t", i, err, isSet(t, store, fmt.Sprint(i)))
		}
	}
	// One for the update that the others waited for.
	if n := store.writer.commits.Load() - before; n != 2 {
		t.Errorf("%d commits, want 2", n)
	}
}

func TestAnUpdateThatFailsInAGroupChangesNothingOfTheOthers(t *testing.T) {
	store := newStoreForTest(t)
	failure := errors.New("error of the test")
	failing := func(tx keystore.Tx) error {
		if err := set("failed")(tx); err != nil {
			return err
		}
		return failure
	}
	outcomes := grouped(t, store, set("before"), failing, set("after"))
	if outcomes[0] != nil || outcomes[1] != failure || outcomes[2] != nil {
		t.Errorf("outcomes %v", outcomes)
	}
	if !isSet(t, store, "before") || isSet(t, store, "failed") || !isSet(t, store, "after") {
		t.Error("a change is missing, or there though its update failed")
	}
}

func TestUpdatesOfAGroupSeeThoseBeforeThem(t *testing.T) {
	store := newStoreForTest(t)
	outcomes := grouped(t, store, set("first"), func(tx keystore.Tx) error {
		if value, err := tx.Setting("first"); err != nil || value == nil {
			return fmt.Errorf("setting %q: %v", value, err)
		}
		return nil
	})
	if err := errors.Join(outcomes...); err != nil {
		t.Error(err)
	}
}

func TestUpdatesThatComeWhileOneRunsShareItsCommit(t *testing.T) {
	store := newStoreForTest(t)
	before := store.writer.commits.Load()
	var wg sync.WaitGroup
	err := store.Update(t.Context(), func(keystore.Tx) error {
		wg.Go(func() {
			if err := store.Update(t.Context(), set("late")); err != nil {
				t.Error(err)
			}
		})
		for len(store.writer.queue) == 0 {
		}
		return nil
	})
	wg.Wait()
	if n := store.writer.commits.Load() - before; err != nil || n != 1 || !isSet(t, store, "late") {
		t.Errorf("%v, %d commits, want 1", err, n)
	}
}

func TestAnUpdateThatFailsInAGroupIsNotReadByTheNext(t *testing.T) {
	store := newStoreForTest(t)
	failure := errors.New("error of the test")
	failing := func(tx keystore.Tx) error {
		if err := set("failed")(tx); err != nil {
			return err
		}
		if value, err := tx.Setting("failed"); err != nil || value == nil {
			t.Errorf("an update reads %q, %v of its own", value, err)
		}
		return failure
	}
	var read []byte
	outcomes := grouped(t, store, failing, func(tx keystore.Tx) (err error) {
		read, err = tx.Setting("failed")
		return err
	})
	if outcomes[0] != failure || outcomes[1] != nil || read != nil {
		t.Errorf("outcomes %v; read %q", outcomes, read)
	}
}

func TestATransactionIsOfNoUseInTheTurnOfAnother(t *testing.T) {
	store := newStoreForTest(t)
	var kept keystore.Tx
	outcomes := grouped(t, store,
		func(tx keystore.Tx) error { kept = tx; return nil },
		func(keystore.Tx) error {
			if err := set("late")(kept); !errors.Is(err, keystore.ErrUnavailable) {
				return fmt.Errorf("a write after the turn: %v", err)
			}
			return nil
		})
	if err := errors.Join(outcomes...); err != nil {
		t.Error(err)
	}
	if isSet(t, store, "late") {
		t.Error("a write after the turn was committed")
	}
}

// codedError is an error as the driver makes it.
type codedError int

func (e codedError) Error() string { return fmt.Sprintf("error of the test (%d)", int(e)) }
func (e codedError) Code() int     { return int(e) }

func TestACommitThatFails(t *testing.T) {
	tests := []struct {
		name  string
		code  int
		stops bool
	}{
		{"at the sync, stops all writes", codes.SQLITE_IOERR_FSYNC, true},
		{"at a write, stops all writes", codes.SQLITE_IOERR_WRITE, true},
		{"for corruption, stops all writes", codes.SQLITE_CORRUPT, true},
		{"for a full disk, does not stop the next", codes.SQLITE_FULL, false},
		{"for another program's lock, does not stop the next", codes.SQLITE_BUSY, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			store := newStoreForTest(t)
			if err := store.Update(t.Context(), set("before")); err != nil {
				t.Fatal(err)
			}
			store.writer.commit = func(tx *sql.Tx) error {
				store.writer.commit = (*sql.Tx).Commit
				return errors.Join(codedError(test.code), tx.Rollback())
			}
			cause := codedError(test.code)
			err := store.Update(t.Context(), set("failed"))
			if !errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, cause) {
				t.Errorf("the update answered %v", err)
			}
			err = store.Update(t.Context(), set("after"))
			switch {
			case !test.stops && err != nil:
				t.Errorf("the next update answered %v", err)
			case test.stops && (!errors.Is(err, keystore.ErrUnavailable) || !errors.Is(err, cause) || !strings.Contains(err.Error(), "restart")):
				t.Errorf("the next update answered %v", err)
			}
			if !isSet(t, store, "before") || isSet(t, store, "failed") || isSet(t, store, "after") == test.stops {
				t.Error("the reads show something else")
			}
			if _, err := store.Lookup(t.Context(), keystore.Digest{}); !errors.Is(err, keystore.ErrNotFound) {
				t.Errorf("Lookup: %v", err)
			}
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestACommitThatFailsAnswersTheWholeGroup(t *testing.T) {
	store := newStoreForTest(t)
	failure := errors.New("error of the test")
	outcomes := groupedFailing(t, store, set("a"), func(tx keystore.Tx) error { return failure }, set("b"))
	for i, err := range outcomes {
		if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, failure) {
			t.Errorf("update %d answered %v", i, err)
		}
	}
}

// groupedFailing is grouped, with a commit that fails.
func groupedFailing(t *testing.T, store *Store, changes ...func(keystore.Tx) error) []error {
	t.Helper()
	committed := 0
	store.writer.commit = func(tx *sql.Tx) error {
		if committed++; committed == 1 {
			return tx.Commit()
		}
		return errors.Join(codedError(codes.SQLITE_FULL), tx.Rollback())
	}
	return grouped(t, store, changes...)
}

func TestAStatementThatLosesTheTransactionFailsTheUpdatesBeforeItOnly(t *testing.T) {
	store := newStoreForTest(t)
	// The error of a statement that a function passes over is not lost: the
	// database may have rolled back what went before.
	losing := func(tx keystore.Tx) error {
		session := tx.(*transaction).session
		_ = session.failed("test", codedError(codes.SQLITE_FULL))
		if err := tx.SetSetting("lost", nil); !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("a write after the loss: %v", err)
		}
		return nil
	}
	outcomes := grouped(t, store, set("before"), losing, set("after"))
	if !errors.Is(outcomes[0], keystore.ErrUnavailable) || !errors.Is(outcomes[1], keystore.ErrUnavailable) || outcomes[2] != nil {
		t.Errorf("outcomes %v", outcomes)
	}
	if isSet(t, store, "before") || isSet(t, store, "lost") || !isSet(t, store, "after") {
		t.Error("the reads show something else")
	}
}

func TestEveryStatementIsServedByAnIndex(t *testing.T) {
	store := newStoreForTest(t)
	// These read the end of an index, or all of one whose table is bounded.
	ends := map[statement]bool{insertAccount: true, nextMail: true, countMails: true}
	for id := lookup; id < savepoint; id++ {
		rows, err := store.writer.db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+texts[id], make([]any, parameters(texts[id]))...)
		if err != nil {
			t.Fatalf("statement %d: %v", id, err)
		}
		for rows.Next() {
			var a, b, c int
			var step string
			if err := rows.Scan(&a, &b, &c, &step); err != nil {
				t.Fatal(err)
			}
			if (strings.HasPrefix(step, "SCAN") && !ends[id] && !strings.Contains(step, "CONSTANT") && step != "SCAN used") || strings.Contains(step, "TEMP B-TREE") {
				t.Errorf("%s\nplans: %s", texts[id], step)
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// parameters is the number of the highest placeholder.
func parameters(text string) (n int) {
	for strings.Contains(text, fmt.Sprintf("$%d", n+1)) {
		n++
	}
	return n
}

func TestTheLogIsTruncatedOnceReadersLeaveIt(t *testing.T) {
	store := newStoreForTest(t)
	if err := store.Update(t.Context(), set("a")); err != nil {
		t.Fatal(err)
	}
	e := store.engine.(*sqlite)
	length := func() int {
		n, err := checkpoint(context.Background(), store.writer.db, "PASSIVE")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	err := store.View(t.Context(), func(r keystore.Reader) error {
		if _, err := r.Setting("a"); err != nil {
			return err
		}
		if err := store.Update(t.Context(), set("b")); err != nil {
			return err
		}
		// A reader of the log keeps it; that is no error, and not tried again
		// at once.
		if err := e.emptyLog(context.Background(), store.writer.db); err != nil {
			return err
		}
		if length() == 0 || e.stuck.IsZero() {
			t.Error("the log was emptied under a reader")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.emptyLog(context.Background(), store.writer.db); err != nil {
		t.Fatal(err)
	}
	if n := length(); n != 0 {
		t.Errorf("the log has %d pages", n)
	}
}

func TestEveryConnectionIsSetUp(t *testing.T) {
	store := newStoreForTest(t)
	for name, db := range map[string]*database{"writer": store.writer.db, "lookups": store.lookups, "views": store.views} {
		// As many connections as the pool has, held until the end of the test,
		// so that each is another one.
		for range db.Stats().MaxOpenConnections {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for pragma, want := range map[string]string{
				"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
				"wal_autocheckpoint": "0", "mmap_size": "0", "query_only": map[bool]string{true: "0", false: "1"}[name == "writer"],
			} {
				var got string
				if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
					t.Errorf("%s: %s is %q, %v; want %q", name, pragma, got, err, want)
				}
			}
		}
	}
}
