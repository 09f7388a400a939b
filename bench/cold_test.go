package bench

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// BenchmarkLookup is a verdict's read of a key that no cache of the program holds,
// from a file that the system holds in memory. The metric x-bare is its time against
// the least that SQLite can do for it: a prepared look-up by primary key of a row of
// 300 bytes, of 1,000,000, however many keys the store has. Both are timed in turns.
func BenchmarkLookup(b *testing.B) {
	const rows = 1_000_000
	for _, n := range []int{1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			store := filledStore(b, n)
			bare := bareTable(b, rows)
			b.Run("cold", func(b *testing.B) {
				inTurns(b, "x-bare", 500, 500, func() {
					if _, err := store.Lookup(b.Context(), digestOf(rand.IntN(n))); err != nil {
						b.Fatal(err)
					}
				}, func() {
					digest := digestOf(rand.IntN(rows))
					var value []byte
					if err := bare.QueryRowContext(context.Background(), digest[:]).Scan(&value); err != nil {
						b.Fatal(err)
					}
				})
			})
		})
	}
}

// inTurns times ours against the floor, each that often in a turn, which counts as so
// many operations. It reports the ratio under that name.
func inTurns(b *testing.B, ratio string, turn, operations int, ours, floor func()) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	var spent, least time.Duration
	for i := 0; i < b.N; i += operations {
		begin := time.Now()
		for range turn {
			ours()
		}
		spent += time.Since(begin)
		b.StopTimer()
		begin = time.Now()
		for range turn {
			floor()
		}
		least += time.Since(begin)
		b.StartTimer()
	}
	b.ReportMetric(float64(spent)/float64(least), ratio)
}

// digestOf is the digest of the i-th key of a filled store.
func digestOf(i int) keystore.Digest {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// filledStore opens a store with n keys, each of a credential of its own, of which
// ten share an account.
func filledStore(b *testing.B, n int) *sqlstore.Store {
	b.Helper()
	store, err := sqlstore.OpenSQLite(b.Context(), filepath.Join(b.TempDir(), "store", "keys.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = store.Close() })
	fill(b, store, n)
	return store
}

func fill(b *testing.B, store keystore.Store, n int) {
	b.Helper()
	const batch = 10_000
	for first := 0; first < n; first += batch {
		err := store.Update(b.Context(), func(tx keystore.Tx) error {
			for i := first; i < min(first+batch, n); i++ {
				if err := load(tx, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// load stores the i-th key, its credential, and its account if it is the first of it.
func load(tx keystore.Tx, i int) error {
	account := accountID(i / 10)
	credential := fmt.Sprintf("019a0000-0000-7000-8000-%012d", i)
	if i%10 == 0 {
		_, err := tx.LoadAccount(&keystore.Account{ID: account, Email: account + "@example.com", Active: true, CreatedAt: 1, UpdatedAt: 1})
		if err != nil {
			return err
		}
	}
	_, err := tx.LoadCredential(&keystore.Credential{ID: credential, AccountID: account, Roles: []string{"read"}, Active: true, CreatedAt: 1, UpdatedAt: 1})
	if err != nil {
		return err
	}
	digest := digestOf(i)
	_, err = tx.LoadKey(&keystore.Key{
		ID: fmt.Sprintf("%x", digest[:6]), CredentialID: credential, Digest: digest, DigestKind: keystore.DigestSHA256,
		Hint: "key_012345678901", Format: keystore.FormatToken, CreatedAt: 1,
	})
	return err
}

func accountID(i int) string { return fmt.Sprintf("customer-%d", i) }

// bareTable is a look-up in a table of n rows.
func bareTable(b *testing.B, n int) *sql.Stmt {
	b.Helper()
	db := bareDatabase(b, filepath.Join(b.TempDir(), "bare.db"), 4<<10)
	tx, err := db.BeginTx(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	run := func(text string, args ...any) {
		if _, err := tx.ExecContext(b.Context(), text, args...); err != nil {
			b.Fatal(err)
		}
	}
	run(`CREATE TABLE t (k BLOB PRIMARY KEY, v BLOB)`)
	insert, err := tx.PrepareContext(b.Context(), `INSERT INTO t (k, v) VALUES ($1, $2)`)
	if err != nil {
		b.Fatal(err)
	}
	for i := range n {
		digest := digestOf(i)
		if _, err := insert.ExecContext(b.Context(), digest[:], make([]byte, 300-len(digest))); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	return prepared(b, db, `SELECT v FROM t WHERE k = $1`)
}

// bareDatabase opens a file as a store does, with a page cache of that many KiB.
func bareDatabase(b *testing.B, path string, cache int) *sql.DB {
	b.Helper()
	pragmas := []string{
		"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)", "temp_store(MEMORY)",
		"mmap_size(0)", "secure_delete(FAST)", fmt.Sprintf("cache_size(-%d)", cache),
	}
	db, err := sql.Open("sqlite", "file://"+path+"?_txlock=immediate&_pragma="+strings.Join(pragmas, "&_pragma="))
	if err != nil {
		b.Fatal(err)
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	b.Cleanup(func() { _ = db.Close() })
	return db
}

func prepared(b *testing.B, db *sql.DB, text string) *sql.Stmt {
	b.Helper()
	stmt, err := db.PrepareContext(b.Context(), text)
	if err != nil {
		b.Fatal(err)
	}
	return stmt
}
