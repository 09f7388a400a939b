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
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// BenchmarkAccept is the whole verdict on a cached key: shape and checksum,
// digest, cache, state, requirement, use. The metric x-floor is its time against
// that of the floor: one SHA-256 of the text, one Get of ristretto and one look at
// the clock. Both are timed in turns, over the same texts in the same random order,
// so that what else the machine does weighs on both alike.
func BenchmarkAccept(b *testing.B) {
	for _, n := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			store := newMemoryStore(n)
			keyring := newKeyringOver(b, store, max(keystore.DefaultCacheSize, int64(n)*1024))
			floor := newFloor(b, store.texts)
			request := keystore.Request{Requirement: &keystore.Requirement{}}
			warm(b, keyring, store, request)

			b.ReportAllocs()
			b.ResetTimer()
			const turn = 1000
			var verdicts, floors time.Duration
			for i := 0; i < b.N; i += turn {
				texts := store.some(turn)
				begin := time.Now()
				for _, text := range texts {
					if _, v, err := keyring.Accept(b.Context(), text, request); v != keystore.OK {
						b.Fatal(v, err)
					}
				}
				verdicts += time.Since(begin)
				b.StopTimer()
				texts = store.some(turn)
				begin = time.Now()
				for _, text := range texts {
					floor.get(text)
				}
				floors += time.Since(begin)
				b.StartTimer()
			}
			b.ReportMetric(float64(verdicts)/float64(floors), "x-floor")
			b.ReportMetric(float64(verdicts)/float64(b.N), "ns/verdict")
			if floor.missed > floor.asked/100 || store.lookups.Load() > int64(b.N/100+3*n) {
				b.Errorf("not in the cache: %d of %d, %d", floor.missed, floor.asked, store.lookups.Load())
			}
		})
	}
}

// warm asks for every key until the cache holds nearly all.
func warm(b *testing.B, keyring *keystore.Keyring, store *memoryStore, request keystore.Request) {
	b.Helper()
	for range 20 {
		before := store.lookups.Load()
		for _, text := range store.texts {
			if _, v, err := keyring.Accept(b.Context(), text, request); v != keystore.OK {
				b.Fatal(v, err)
			}
		}
		if store.lookups.Load()-before <= int64(len(store.texts)/1000) {
			return
		}
		time.Sleep(50 * time.Millisecond) // ristretto sets in the background
	}
	b.Fatal("the cache does not hold the keys")
}

// floor is what no verdict can do without.
type floor struct {
	cache         *ristretto.Cache[uint64, *int]
	start         time.Time
	asked, missed int
}

func newFloor(b *testing.B, texts []string) *floor {
	b.Helper()
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, *int]{
		NumCounters: int64(10*len(texts) + 1000), MaxCost: int64(2*len(texts) + 1000), BufferItems: 64, IgnoreInternalCost: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(cache.Close)
	for i, text := range texts {
		d := sha256.Sum256([]byte(text))
		cache.Set(binary.LittleEndian.Uint64(d[:]), new(int), 1)
		if i%1000 == 0 {
			cache.Wait()
		}
	}
	cache.Wait()
	return &floor{cache: cache, start: time.Now()}
}

func (f *floor) get(text string) {
	d := sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))
	_, ok := f.cache.Get(binary.LittleEndian.Uint64(d[:]))
	f.asked++
	if !ok || time.Since(f.start) < 0 {
		f.missed++
	}
}

// BenchmarkRefuseChecksum is the verdict on a mistyped token.
func BenchmarkRefuseChecksum(b *testing.B) {
	keyring, texts := newKeyring(b, 1)
	wrong := texts[0][:54] + "0" // the last character of the checksum
	if wrong == texts[0] {
		wrong = texts[0][:54] + "1"
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
	keyring := newKeyringOver(b, store, keystore.DefaultCacheSize)
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

func newKeyringOver(b *testing.B, store keystore.Store, cacheSize int64) *keystore.Keyring {
	b.Helper()
	keyring, err := keystore.NewKeyring(b.Context(), openVault(b, store, cacheSize), keystore.Config{})
	if err != nil {
		b.Fatal(err)
	}
	return keyring
}

func openVault(b *testing.B, store keystore.Store, cacheSize int64) *keystore.Vault {
	b.Helper()
	vault, err := keystore.OpenVault(b.Context(), store, cacheSize, func(problem string, err error) {
		b.Errorf("%s: %v", problem, err)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = vault.Close() })
	return vault
}
