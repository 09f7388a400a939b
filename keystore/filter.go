package keystore

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
)

// filter is a set of digests that never denies one that was added, and takes about
// one of a hundred others for one when it is full: a Bloom filter whose bits for
// one digest all lie in one word, so that it is asked with one read of memory. All
// methods may be called concurrently.
//
// Digests are random in every byte, so that they need no further hash. The bytes
// taken here are others than those that choose a shard or ristretto's key.
type filter struct {
	words []atomic.Uint64
	// capacity is for how many digests there is room.
	capacity int64
	// added counts the digests that were not in it.
	added atomic.Int64
}

// filterBits is how many bits of a filter there are for each digest that it has
// room for.
const filterBits = 16

func newFilter(capacity int64) *filter {
	return &filter{words: make([]atomic.Uint64, capacity*filterBits/64+1), capacity: capacity}
}

// place returns the word of a digest and its bits in it.
func (f *filter) place(d *Digest) (word *atomic.Uint64, mask uint64) {
	i, _ := bits.Mul64(binary.LittleEndian.Uint64(d[16:]), uint64(len(f.words)))
	return &f.words[i], 1<<(d[24]&63) | 1<<(d[25]&63) | 1<<(d[26]&63) | 1<<(d[27]&63)
}

func (f *filter) has(d *Digest) bool {
	word, mask := f.place(d)
	return word.Load()&mask == mask
}

func (f *filter) add(d *Digest) {
	word, mask := f.place(d)
	if word.Or(mask)&mask != mask {
		f.added.Add(1)
	}
}

// full reports whether more was added than there is room for. A full filter works
// on, with more mistakes.
func (f *filter) full() bool { return f.added.Load() > f.capacity }
