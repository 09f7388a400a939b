package sqlstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// versionThree makes a store as it was before grants, with one account that has a
// live credential and a tombstone, of two keys each.
func versionThree(t *testing.T) (path string, before []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "keys", "keys.db")
	if err := os.Mkdir(filepath.Dir(path), dirMode); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, fileMode); err != nil {
		t.Fatal(err)
	}
	db, err := connect(path, writing)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	run := func(text string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), text, args...); err != nil {
			t.Fatal(err)
		}
	}
	run(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	if err := migrate(t.Context(), &sqlite{path: path}, db.DB, migrations[:3]); err != nil {
		t.Fatal(err)
	}
	run("PRAGMA user_version = 3")
	run(`INSERT INTO accounts VALUES (7, 'a', 'A@example.com', 'a@example.com', TRUE, '', '', '', '', '', '', '', '', 1, 2, 0)`)
	for i, deleted := range []int{0, 99} {
		c := fmt.Sprintf("c%d", i)
		run(`INSERT INTO credentials VALUES ($1, $2, 'a', 'Coverage', '["read"]', TRUE, '', '["192.0.2.0/24"]', '', 30, 3, 4, $3)`, i+5, c, deleted)
		for j := range 2 {
			id := fmt.Sprintf("%sk%d", c, j)
			digest := keystore.Digest{byte(9 - i*2 - j)} // against the order of creation
			run(`INSERT INTO keys VALUES ($1, $2, $3, $4, 'sha256', 'hint', 'token', x'00ff', 11, 12, 13, 14, 15, 'why', 'next', 16, 'other', 17, 18, $5)`,
				10*(2*i+j)+5, id, c, digest[:], j == 1)
		}
	}
	return path, keysOf(t, db)
}

// keysOf is all that is in the table keys, in order, without seq.
func keysOf(t *testing.T, db *database) (found []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT format('%s %s %s %s %s %s %s %d %d %d %d %d %s %s %d %s %d %d %d', id, credential_id, hex(digest),
		digest_kind, hint, format, hex(sealed), created_at, activates_at, expires_at, unused_expires_at, revoked_at, revoked_reason,
		superseded_by, superseded_at, stops_on_use_of, first_used_at, last_used_at, mailed) FROM keys ORDER BY seq`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			t.Fatal(err)
		}
		found = append(found, key)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAStoreFromBeforeGrantsIsUpgradedWhole(t *testing.T) {
	t.Parallel()
	path, before := versionThree(t)
	store, err := OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if after := keysOf(t, store.writer.db); len(after) != 4 || !slices.Equal(after, before) {
		t.Errorf("keys were\n%q\nand are\n%q", before, after)
	}
	if err := (&sqlite{path: path}).passes(t.Context(), store.writer.db, "comparison", strayGrants); err != nil {
		t.Error(err)
	}
	live, err := store.Lookup(t.Context(), keystore.Digest{9})
	if err != nil || live.KeyID != "c0k0" || !live.CredentialActive || live.AccountNumber != 7 {
		t.Errorf("Lookup: %+v, %v", live, err)
	}
	buried, err := store.Lookup(t.Context(), keystore.Digest{6})
	if err != nil || buried.KeyID != "c1k1" || buried.CredentialActive {
		t.Errorf("Lookup: %+v, %v", buried, err)
	}
	created := func(id string, digest keystore.Digest) error {
		return store.Update(t.Context(), func(tx keystore.Tx) error {
			return tx.CreateKey(&keystore.Key{ID: id, CredentialID: "c0", Digest: digest})
		})
	}
	if err := created("new", keystore.Digest{6}); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("a digest that is taken: %v", err)
	}
	if err := created("new", keystore.Digest{1}); err != nil {
		t.Error(err)
	}
	if err := created("new", keystore.Digest{2}); !errors.Is(err, keystore.ErrConflict) {
		t.Errorf("an id that is taken: %v", err)
	}
}
