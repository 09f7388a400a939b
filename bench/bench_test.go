// Package bench measures what a verdict costs against the floor that nothing
// could go below. Run it with
//
//	go test -bench . -benchmem -count 6 ./bench
package bench

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// BenchmarkFloor is one SHA-256 of a token, one Get of the cache and one look at
// the clock.
func BenchmarkFloor(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			cache, err := ristretto.NewCache(&ristretto.Config[uint64, *int]{
				NumCounters: 1e6, MaxCost: 1e6, BufferItems: 64, IgnoreInternalCost: true,
			})
			if err != nil {
				b.Fatal(err)
			}
			defer cache.Close()
			texts := make([][]byte, n)
			for i := range texts {
				texts[i] = fmt.Appendf(nil, "key_%012d_%038d", i, i)
				d := sha256.Sum256(texts[i])
				cache.Set(binary.LittleEndian.Uint64(d[:]), new(int), 1)
			}
			cache.Wait()
			start := time.Now()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				d := sha256.Sum256(texts[i%n])
				if _, ok := cache.Get(binary.LittleEndian.Uint64(d[:])); !ok || time.Since(start) < 0 {
					b.Fatal("not in the cache")
				}
			}
		})
	}
}

// BenchmarkAccept is the whole verdict on a cached key: shape and checksum,
// digest, cache, state, requirement, use.
func BenchmarkAccept(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			keyring, texts := newKeyring(b, n)
			request := keystore.Request{Requirement: &keystore.Requirement{}}
			for range 3 { // until the cache holds them
				for _, text := range texts {
					_, _, _ = keyring.Accept(b.Context(), text, request)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, v, err := keyring.Accept(b.Context(), texts[i%n], request); v != keystore.OK {
					b.Fatal(v, err)
				}
			}
		})
	}
}

// BenchmarkRefuseChecksum is the verdict on a mistyped token.
func BenchmarkRefuseChecksum(b *testing.B) {
	keyring, texts := newKeyring(b, 1)
	wrong := texts[0][:54] + string(texts[0][54]^1) // the last character of the checksum
	if (wrong[54] < '0' || wrong[54] > '9') && wrong[54]|0x20 < 'a' {
		b.Fatal("the changed character left the alphabet")
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, v, _ := keyring.Verify(b.Context(), wrong); v != keystore.InvalidKey {
			b.Fatal(v)
		}
	}
}

// BenchmarkIssue is a durable credential with its key, by one client and by 16.
func BenchmarkIssue(b *testing.B) {
	for _, clients := range []int{1, 16} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			keyring, _ := newKeyring(b, 0)
			account, err := keyring.CreateAccount(b.Context(), keystore.Account{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetParallelism(clients)
			if clients == 1 {
				b.ResetTimer()
				for range b.N {
					issue(b, keyring, account.ID)
				}
				return
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					issue(b, keyring, account.ID)
				}
			})
		})
	}
}

func issue(b *testing.B, keyring *keystore.Keyring, account string) string {
	issued, err := keyring.Issue(b.Context(), keystore.Operator(), keystore.Credential{AccountID: account})
	if err != nil {
		b.Fatal(err)
	}
	return issued.Text
}

// newKeyring makes a keyring over a SQLite store with n keys.
func newKeyring(b *testing.B, n int) (*keystore.Keyring, []string) {
	b.Helper()
	store, err := sqlstore.OpenSQLite(b.Context(), filepath.Join(b.TempDir(), "store", "keys.db"))
	if err != nil {
		b.Fatal(err)
	}
	vault, err := keystore.OpenVault(b.Context(), store, keystore.DefaultCacheSize, func(problem string, err error) {
		b.Errorf("%s: %v", problem, err)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = vault.Close() })
	keyring, err := keystore.NewKeyring(b.Context(), vault, keystore.Config{})
	if err != nil {
		b.Fatal(err)
	}
	account, err := keyring.CreateAccount(b.Context(), keystore.Account{})
	if err != nil {
		b.Fatal(err)
	}
	texts := make([]string, n)
	for i := range texts {
		texts[i] = issue(b, keyring, account.ID)
	}
	return keyring, texts
}
