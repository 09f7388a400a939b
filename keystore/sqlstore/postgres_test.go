package sqlstore_test

import (
	"bytes"
	"os/exec"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/storetest"
)

func openPostgres(t *testing.T, dsn string) *sqlstore.Store {
	t.Helper()
	store, err := sqlstore.OpenPostgres(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

func TestPostgresKeepsTheContract(t *testing.T) {
	dsns := map[keystore.Store]string{}
	open := func(t *testing.T, dsn string) keystore.Store {
		store := openPostgres(t, dsn)
		dsns[store] = dsn
		return store
	}
	storetest.Run(t, storetest.Harness{
		Open:   func(t *testing.T) keystore.Store { return open(t, postgrestest.NewSchema(t)) },
		Reopen: func(t *testing.T, s keystore.Store) keystore.Store { return open(t, dsns[s]) },
		Restore: func(t *testing.T, backup []byte) keystore.Store {
			dsn := postgrestest.NewSchema(t)
			restorePostgres(t, dsn, backup)
			return open(t, dsn)
		},
	})
}

// restorePostgres runs a backup as the documentation says.
func restorePostgres(t *testing.T, dsn string, backup []byte) {
	t.Helper()
	psql := exec.Command("psql", "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file", "-", dsn)
	psql.Stdin = bytes.NewReader(backup)
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
