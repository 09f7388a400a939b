package keystore

import (
	"encoding/binary"
	"sync"
	"testing"
)

// TestLookupsBesideCloseDoNotPanic: requests of an old configuration look keys
// up while its cache is closed, and so does the goroutine that judges streams.
func TestLookupsBesideCloseDoNotPanic(t *testing.T) {
	for range 200 {
		store := &scriptedStore{revoked: map[Digest]Instant{}}
		c, err := NewCache(store, MinCacheSize)
		if err != nil {
			t.Fatal(err)
		}
		var d Digest
		binary.LittleEndian.PutUint64(d[:], 7)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = c.cached(&d)
					}
				}
			})
		}
		_ = c.Close()
		close(stop)
		wg.Wait()
	}
}
