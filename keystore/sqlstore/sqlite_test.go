package sqlstore_test

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
		return
	}
	goleak.VerifyTestMain(m)
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
