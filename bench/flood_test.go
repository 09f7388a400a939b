package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const (
	floodKeys = 1_000_000
	// floodRatio is how many unknown keys are asked for with each good one.
	floodRatio = 20
	zipf       = 1.01
	// grantBytes is about what the cache takes a grant of a memoryStore for.
	grantBytes = int64(unsafe.Sizeof(keystore.Grant{})) + 240 + 12 + 2*36 + 16 + 4
)

// BenchmarkFlood is how many of the good keys are found in the cache while nothing
// else is asked for, and under a flood of unknown keys of good shape, with the filter
// of known keys and without. The good ones are drawn by a Zipf law. The metric best
// is what a cache of that size could do that holds the most wanted ones.
func BenchmarkFlood(b *testing.B) {
	for _, held := range []int{floodKeys / 10, floodKeys} {
		for _, filter := range []bool{true, false} {
			for _, flood := range []int{0, floodRatio} {
				b.Run(fmt.Sprintf("held=%d/filter=%t/unknown=%d", held, filter, flood), func(b *testing.B) {
					hitRatio(b, held, filter, flood)
				})
			}
		}
	}
}

func hitRatio(b *testing.B, held int, filter bool, flood int) {
	store := newMemoryStore(floodKeys)
	store.shared = !filter
	size := int64(held) * grantBytes
	if held == floodKeys {
		size += size / 10 // enough for all
	}
	vault := openVault(b, store, size)
	digests := make([]keystore.Digest, floodKeys)
	for i, text := range store.texts {
		digests[i] = sha256.Sum256([]byte(text))
	}
	random := rand.New(rand.NewPCG(1, 2))
	draw := rand.NewZipf(random, zipf, 1, floodKeys-1)
	ask := func(n int) (hits float64) {
		before := store.lookups.Load()
		for range n {
			lookUp(b, vault, digests[draw.Uint64()])
			for range flood {
				if _, err := vault.Lookup(context.Background(), unknown(random)); !errors.Is(err, keystore.ErrNotFound) {
					b.Fatal(err)
				}
			}
		}
		return 1 - float64(store.lookups.Load()-before)/float64(n)
	}
	if filter {
		awaitFilter(b, vault, store)
	}
	for b.Loop() { // runs once with -benchtime 1x
		ask(2_000_000)
		b.ReportMetric(ask(500_000), "hits")
		b.ReportMetric(best(held), "best")
	}
}

func lookUp(b *testing.B, vault *keystore.Vault, d keystore.Digest) {
	if _, err := vault.Lookup(context.Background(), d); err != nil {
		b.Fatal(err)
	}
}

// unknown is a digest of no key.
func unknown(random *rand.Rand) (d keystore.Digest) {
	for i := 0; i < len(d); i += 8 {
		binary.LittleEndian.PutUint64(d[i:], random.Uint64())
	}
	return d
}

// best is the part of the draws that goes to the first held keys.
func best(held int) float64 {
	random := rand.New(rand.NewPCG(3, 4))
	draw := rand.NewZipf(random, zipf, 1, floodKeys-1)
	const n = 1_000_000
	first := 0
	for range n {
		if draw.Uint64() < uint64(held) {
			first++
		}
	}
	return float64(first) / n
}

// awaitFilter waits until unknown keys do not reach the store any more.
func awaitFilter(b *testing.B, vault *keystore.Vault, store *memoryStore) {
	b.Helper()
	random := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		before := store.unknown.Load()
		for range 100 {
			if _, err := vault.Lookup(b.Context(), unknown(random)); !errors.Is(err, keystore.ErrNotFound) {
				b.Fatal(err)
			}
		}
		if store.unknown.Load()-before < 10 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("the filter is not complete")
}

// BenchmarkRefuseUnknown is the verdict on a token that nobody has, with a right
// checksum, beside a million that exist. The metric read is the part that asks the
// store all the same.
func BenchmarkRefuseUnknown(b *testing.B) {
	for _, filter := range []bool{true, false} {
		b.Run(fmt.Sprintf("filter=%t", filter), func(b *testing.B) {
			store := newMemoryStore(floodKeys)
			store.shared = !filter
			vault := openVault(b, store, keystore.DefaultCacheSize)
			if filter {
				awaitFilter(b, vault, store)
			}
			keyring, err := keystore.NewKeyring(b.Context(), vault, keystore.Config{})
			if err != nil {
				b.Fatal(err)
			}
			texts := make([]string, 100_000)
			for i := range texts {
				texts[i] = token(floodKeys + i)
			}
			b.ReportAllocs()
			b.ResetTimer()
			asked := store.unknown.Load()
			for i := range b.N {
				if _, v, _ := keyring.Verify(context.Background(), texts[i%len(texts)]); v != keystore.InvalidKey {
					b.Fatal(v)
				}
			}
			b.ReportMetric(float64(store.unknown.Load()-asked)/float64(b.N), "read")
		})
	}
}

// BenchmarkFilterMemory is what the filter of a million keys takes.
func BenchmarkFilterMemory(b *testing.B) {
	store := newMemoryStore(floodKeys)
	inUse := func(filter bool) float64 {
		store.shared = !filter
		before := heap()
		vault := openVault(b, store, keystore.MinCacheSize)
		if filter {
			awaitFilter(b, vault, store)
		}
		defer vault.Close()
		return heap() - before
	}
	for range b.N {
		b.ReportMetric((inUse(true)-inUse(false))/(1<<20), "MiB")
	}
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
