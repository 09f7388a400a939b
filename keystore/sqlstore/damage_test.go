package sqlstore_test

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

func TestADamagedFileIsRefusedAndLeftAsItIs(t *testing.T) {
	cut := func(length func(size int) int) func(*testing.T, []byte) []byte {
		return func(_ *testing.T, file []byte) []byte { return file[:length(len(file))] }
	}
	patch := func(offset int, value uint32) func(*testing.T, []byte) []byte {
		return func(_ *testing.T, file []byte) []byte {
			binary.BigEndian.PutUint32(file[offset:], value)
			return file
		}
	}
	tests := []struct {
		name   string
		damage func(*testing.T, []byte) []byte
		says   string
	}{
		{"empty", cut(func(int) int { return 0 }), "empty"},
		{"cut in the magic", cut(func(int) int { return 7 }), "truncated"},
		{"cut in the header", cut(func(int) int { return 50 }), "truncated"},
		{"cut after the header", cut(func(int) int { return 100 }), "truncated"},
		{"cut after a page", cut(func(int) int { return 4096 }), "truncated"},
		{"cut in the middle of a page", cut(func(size int) int { return size/2 + 77 }), "truncated"},
		{"cut by a page", cut(func(size int) int { return size - 4096 }), "truncated"},
		{"cut by a byte", cut(func(size int) int { return size - 1 }), "truncated"},
		{"text", func(*testing.T, []byte) []byte { return []byte("hello, world") }, "not an SQLite database"},
		{"long text", func(*testing.T, []byte) []byte { return []byte(strings.Repeat("hello, world\n", 1000)) }, "not an SQLite database"},
		{"zeros", func(_ *testing.T, file []byte) []byte { return make([]byte, len(file)) }, "not an SQLite database"},
		{"database of another program", func(t *testing.T, _ []byte) []byte { return foreign(t) }, "another program"},
		{"database of another application id", patch(68, 0x12345678), "0x12345678"},
		{"newer schema", patch(60, 1000), "the schema has version 1000"},
		{"page size of zero", patch(16, 0), "page size"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := makeStore(t)
			damaged := test.damage(t, []byte(contents(t, path)))
			write(t, path, damaged, 0o600)
			for range 2 { // Nor does the first refusal help the second.
				store, err := sqlstore.OpenSQLite(t.Context(), path)
				if err == nil {
					_ = store.Close()
				}
				if !errors.Is(err, keystore.ErrDamaged) || !strings.Contains(fmt.Sprint(err), test.says) || !strings.Contains(fmt.Sprint(err), path) {
					t.Errorf("got %v, want %v that says %q", err, keystore.ErrDamaged, test.says)
				}
			}
			if contents(t, path) != string(damaged) {
				t.Error("the file was changed")
			}
			for _, suffix := range []string{"-wal", "-shm", "-journal"} {
				if _, err := os.Lstat(path + suffix); err == nil {
					t.Errorf("%s was made", path+suffix)
				}
			}
		})
	}
}

// foreign is a database that is not a store.
func foreign(t *testing.T) []byte {
	t.Helper()
	path := t.TempDir() + "/foreign.db"
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE accounts (id TEXT); PRAGMA user_version = 1"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return []byte(contents(t, path))
}

func TestAMissingFileWithALogIsDamage(t *testing.T) {
	path := newPath(t)
	copyTo(t, running(t), path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlstore.OpenSQLite(t.Context(), path); !errors.Is(err, keystore.ErrDamaged) {
		t.Errorf("got %v, want %v", err, keystore.ErrDamaged)
	}
}

func TestANewerSchemaInTheLogIsDamage(t *testing.T) {
	path := running(t)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("PRAGMA user_version = 1000"); err != nil {
		t.Fatal(err)
	}
	crashed := newPath(t)
	copyTo(t, path, crashed)
	if _, err := sqlstore.OpenSQLite(t.Context(), crashed); !errors.Is(err, keystore.ErrDamaged) {
		t.Errorf("got %v, want %v", err, keystore.ErrDamaged)
	}
}
