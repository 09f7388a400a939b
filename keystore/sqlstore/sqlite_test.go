package sqlstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
		return
	}
	goleak.VerifyTestMain(postgrestest.Main(m))
}

// newPath is where a store can be made.
func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "keys", "keys.db") }

func open(t testing.TB, path string) *sqlstore.Store {
	t.Helper()
	store, err := sqlstore.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func TestSQLiteConforms(t *testing.T) {
	t.Parallel()
	paths := make(map[keystore.Store]string)
	openAt := func(t *testing.T, path string) keystore.Store {
		t.Cleanup(func() { hasNoStrayGrants(t, path) }) // runs once the store is closed
		store := open(t, path)
		paths[store] = path
		return store
	}
	storetest.Run(t, storetest.Harness{
		Open:   func(t *testing.T) keystore.Store { return openAt(t, newPath(t)) },
		Reopen: func(t *testing.T, s keystore.Store) keystore.Store { return openAt(t, paths[s]) },
		Restore: func(t *testing.T, backup []byte) keystore.Store {
			path := newPath(t)
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, backup, 0o600); err != nil {
				t.Fatal(err)
			}
			return openAt(t, path)
		},
	})
}

// hasNoStrayGrants compares the grants of the closed store at path with its records.
func hasNoStrayGrants(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(sqlstore.StrayGrants)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			t.Fatal(err)
		}
		t.Errorf("the grant of key %q is not what its records say", key)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
