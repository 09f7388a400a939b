package keystore

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"
)

func randomDigest(random *rand.Rand) (d Digest) {
	for i := 0; i < len(d); i += 8 {
		binary.LittleEndian.PutUint64(d[i:], random.Uint64())
	}
	return d
}

// TestTheFilterTakesOneOfAHundredForKnown adds as much as there is room for, from
// several goroutines, and twice as much: nothing added is ever denied.
func TestTheFilterTakesOneOfAHundredForKnown(t *testing.T) {
	const capacity, adders = 100_000, 4
	f := newFilter(capacity)
	fill := func(seed uint64) {
		var wg sync.WaitGroup
		for n := range uint64(adders) {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(seed, n))
				for range capacity / adders {
					d := randomDigest(random)
					f.add(&d)
				}
			})
		}
		wg.Wait()
		for n := range uint64(adders) {
			random := rand.New(rand.NewPCG(seed, n))
			for range capacity / adders {
				if d := randomDigest(random); !f.has(&d) {
					t.Fatal("a digest that was added is denied")
				}
			}
		}
	}
	mistakes := func() (n float64) {
		random := rand.New(rand.NewPCG(99, 99))
		const asked = 1_000_000
		for range asked {
			if d := randomDigest(random); f.has(&d) {
				n++
			}
		}
		return n / asked
	}
	if part := mistakes(); part != 0 {
		t.Errorf("an empty filter takes %f for known", part)
	}
	fill(1)
	if part := mistakes(); part > 0.01 {
		t.Errorf("a filter that is just full takes %f for known", part)
	} else {
		t.Logf("full: %f", part)
	}
	if n := f.added.Load(); f.full() || n < capacity*98/100 {
		t.Errorf("%d of %d counted, full: %t", n, capacity, f.full())
	}
	fill(2)
	if part := mistakes(); part > 0.08 {
		t.Errorf("a filter with twice as much takes %f for known", part)
	} else {
		t.Logf("with twice as much: %f", part)
	}
	if !f.full() {
		t.Error("the filter does not know that it is full")
	}
}

func TestTheFilterAllocatesNothing(t *testing.T) {
	f := newFilter(leastKnown)
	d := randomDigest(rand.New(rand.NewPCG(1, 1)))
	if n := testing.AllocsPerRun(100, func() { f.add(&d); f.has(&d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
