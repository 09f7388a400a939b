package sqlstore_test

import (
	"bytes"
	"database/sql"
	"errors"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// TestARestoredStoreCanBeUpgraded notes a later migration as the migrations library does,
// after which the schema is one that this program does not know.
func TestARestoredStoreCanBeUpgraded(t *testing.T) {
	var backup bytes.Buffer
	if err := openPostgres(t, postgrestest.NewSchema(t)).Backup(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	dsn := postgrestest.NewSchema(t)
	restorePostgres(t, dsn, backup.Bytes())
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (1000, TRUE)`); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlstore.OpenPostgres(t.Context(), dsn); !errors.Is(err, keystore.ErrDamaged) {
		t.Errorf("got %v", err)
	}
}
