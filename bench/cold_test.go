package bench

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	const turn = 500
	for _, n := range []int{1_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			path := storePath(b)
			store := filledStore(b, path, n)
			bare := newBareTable(b)
			readWhole(b, path)
			b.Run("cold", func(b *testing.B) {
				inTurns(b, "x-bare", 1, turn, func() {
					for range turn {
						if _, err := store.Lookup(b.Context(), digestOf(rand.IntN(n))); err != nil {
							b.Fatal(err)
						}
					}
				}, func() { bare.lookUp(b, turn) })
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

// readWhole has the system hold the file in memory, also what it has let go meanwhile.
func readWhole(b *testing.B, path string) {
	b.Helper()
	file, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := io.Copy(io.Discard, file); err != nil {
		b.Fatal(err)
	}
}

// storePath is a place for a store of the benchmark's own.
func storePath(b *testing.B) string {
	b.Helper()
	return filepath.Join(b.TempDir(), "store", "keys.db")
}

// filledStore opens a store with n keys, each of a credential of its own, of which
// ten share an account.
func filledStore(b *testing.B, path string, n int) *sqlstore.Store {
	b.Helper()
	store, err := sqlstore.OpenSQLite(b.Context(), path)
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
