package bench

import (
	"context"
	"crypto/sha256"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

const cachedGrants = 1_000_000

// BenchmarkCachedGrants is what a cache with a million grants takes: the metric
// B/grant is the heap in use for it, all of it, by grant; objects/grant is how many
// objects the garbage collector finds there; gc-ms is how long a collection takes, and
// gc-cpu-ms the processor time of it; pause-us is the longest time that it stopped
// everything. The same without the cache is subtracted, but for the pause.
func BenchmarkCachedGrants(b *testing.B) {
	store := newMemoryStore(cachedGrants)
	for range b.N {
		before := measureHeap()
		vault := fullVault(b, store)
		after := measureHeap()
		perGrant := func(n float64, unit string) { b.ReportMetric(n/cachedGrants, unit) }
		perGrant(after.bytes-before.bytes, "B/grant")
		perGrant(after.objects-before.objects, "objects/grant")
		b.ReportMetric((after.cycle-before.cycle).Seconds()*1e3, "gc-ms")
		b.ReportMetric((after.processor-before.processor)*1e3, "gc-cpu-ms")
		b.ReportMetric(float64(after.pause.Microseconds()), "pause-us")
		_ = vault.Close()
	}
}

// BenchmarkAcceptParallel is the verdict on cached keys by many goroutines at once. No
// lock of ours is in its profiles:
//
//	go test -run '^$' -bench AcceptParallel -mutexprofile m -blockprofile b ./bench
//	go tool pprof -top m
func BenchmarkAcceptParallel(b *testing.B) {
	store := newMemoryStore(10_000)
	keyring := newKeyringOver(b, store, keystore.DefaultCacheSize)
	request := keystore.Request{Requirement: &keystore.Requirement{}}
	warm(b, keyring, store, request)
	b.SetParallelism(16)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for texts := store.some(1000); ; {
			for _, text := range texts {
				if !pb.Next() {
					return
				}
				if _, v, err := keyring.Accept(context.Background(), text, request); v != keystore.OK {
					b.Error(v, err)
					return
				}
			}
		}
	})
}

// fullVault holds all grants of the store in its cache.
func fullVault(b *testing.B, store *memoryStore) *keystore.Vault {
	b.Helper()
	vault := openVault(b, store, cachedGrants*grantBytes*11/10)
	for range 20 {
		before := store.lookups.Load()
		for _, text := range store.texts {
			lookUp(b, vault, sha256.Sum256([]byte(text)))
		}
		if store.lookups.Load()-before < cachedGrants/1000 {
			return vault
		}
		time.Sleep(50 * time.Millisecond) // ristretto sets in the background
	}
	b.Fatal("the cache does not hold the keys")
	return nil
}

// heapState is what the garbage collector says of the heap.
type heapState struct {
	bytes, objects float64
	// cycle is how long a collection takes, and processor its time on processors, in
	// seconds; pause is the longest of its stops.
	cycle     time.Duration
	processor float64
	pause     time.Duration
}

func measureHeap() (s heapState) {
	const collections = 5
	runtime.GC()
	processor := collectorSeconds()
	begin := time.Now()
	for range collections {
		runtime.GC()
	}
	s.cycle = time.Since(begin) / collections
	s.processor = (collectorSeconds() - processor) / collections
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.bytes, s.objects = float64(m.HeapAlloc), float64(m.HeapObjects)
	var stops debug.GCStats
	debug.ReadGCStats(&stops)
	for _, pause := range stops.Pause[:collections] {
		s.pause = max(s.pause, pause)
	}
	return s
}

// collectorSeconds is the processor time that the collector took for marking.
func collectorSeconds() (sum float64) {
	samples := []metrics.Sample{
		{Name: "/cpu/classes/gc/mark/dedicated:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/assist:cpu-seconds"},
		{Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
	}
	metrics.Read(samples)
	for _, s := range samples {
		sum += s.Value.Float64()
	}
	return sum
}
