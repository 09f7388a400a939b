package sqlstore_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/caddy-apikeys/caddy-apikeys/internal/postgrestest"
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// TestAStandbyIsNotAsked checks that no verdict comes from a server that is behind, and
// which may be where the connection string leads after a failover.
func TestAStandbyIsNotAsked(t *testing.T) {
	server := postgrestest.Start(t, postgrestest.NoSync())
	dsn := server.NewDatabase(t)
	store := openPostgres(t, dsn)
	if _, err := store.Lookup(t.Context(), keystore.Digest{}); !errors.Is(err, keystore.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	makeStandby(t, server, dsn)
	if _, err := store.Lookup(t.Context(), keystore.Digest{}); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a look-up answers %v", err)
	}
	for _, demand := range []string{"", "&target_session_attrs=any", "&target_session_attrs=prefer-standby"} {
		if _, err := sqlstore.OpenPostgres(t.Context(), dsn+demand); err == nil {
			t.Errorf("a standby is opened with %q", demand)
		} else {
			t.Log(err)
		}
	}
}

// makeStandby restarts a server as a standby, which only reads from then on.
func makeStandby(t *testing.T, server *postgrestest.Server, dsn string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var data string
	if err := conn.QueryRow(t.Context(), "SHOW data_directory").Scan(&data); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "COPY (SELECT) TO '"+data+"/standby.signal'"); err != nil {
		t.Fatal(err)
	}
	server.Restart()
}
