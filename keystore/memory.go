package keystore

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"
)

// memory is where a cache keeps grants: ristretto, and slots that remember which of
// its entries were asked for last, which spares most requests ristretto's own look-up.
//
// Counters and slots are allocated at once, and are made for a number of grants. A
// cache with a large budget often holds few, so it begins with a small memory, and has
// a larger one take its place when there is no room.
type memory struct {
	entries *ristretto.Cache[uint64, *Grant]
	// slots hold entries of ristretto, or nil. One may have been evicted a moment ago,
	// or be void.
	slots []atomic.Pointer[Grant]
	// room is for how many grants this is made, and held about how many there are.
	room int64
	held atomic.Int64
}

const (
	// leastRoom is for how many grants the first memory is made.
	leastRoom = 1 << 14
	// roomGrowth is how much larger the next one is.
	roomGrowth = 4

	// countersPerGrant is for about 40 bytes. Ristretto advises ten, but more than
	// eight do not make it choose better here, and four make it choose worse: of keys
	// drawn by a Zipf law it has 79 % after 81.5.
	countersPerGrant = 8
	leastCounters    = 1000
	maxCounters      = 1 << 26 // about 200 MiB

	// slotsPerGrant are of 8 bytes each. With fewer a slot is more often found to hold
	// another key's grant.
	slotsPerGrant = 4
	maxSlots      = 1 << 23

	// entryOverhead is about what ristretto with its maps and counters, the shards and
	// the slots hold beside a grant.
	entryOverhead = 240

	// typicalCost is about the cost of a grant.
	typicalCost = int64(unsafe.Sizeof(Grant{})) + entryOverhead + 200
)

// newMemory is for that many grants, or as many as the budget of size bytes holds.
func newMemory(size, room int64) (*memory, error) {
	room = min(room, roomFor(size))
	m := &memory{room: room, slots: make([]atomic.Pointer[Grant], min(slotsPerGrant*room, maxSlots))}
	var err error
	m.entries, err = ristretto.NewCache(&ristretto.Config[uint64, *Grant]{
		NumCounters:        min(max(countersPerGrant*room, leastCounters), maxCounters),
		MaxCost:            size,
		BufferItems:        64,
		IgnoreInternalCost: true, // our costs are bytes and include it
		KeyToHash:          func(word uint64) (uint64, uint64) { return word, 0 },
		// What ristretto gives up is not to be kept in memory by its slot.
		OnExit: func(g *Grant) {
			if g != nil {
				m.held.Add(-1)
				m.slot(&g.Digest).CompareAndSwap(g, nil)
			}
		},
	})
	return m, err
}

// roomFor is about how many grants a budget of size bytes holds.
func roomFor(size int64) int64 { return max(size/typicalCost, 1) }

// outgrown reports whether there are more grants than the memory is made for, and
// the budget holds more.
func (m *memory) outgrown(size int64) bool { return m.held.Load() > m.room && m.room < roomFor(size) }

// keep hands a grant to ristretto. Its slot has it at once, so that those who ask
// before ristretto has decided on it do not read the store anew, and until ristretto
// decides against it.
func (m *memory) keep(g *Grant) {
	slot := m.slot(&g.Digest)
	slot.Store(g)
	m.held.Add(1)
	if !m.entries.Set(word(&g.Digest), g, g.cost()) {
		m.held.Add(-1)
		slot.CompareAndSwap(g, nil)
	}
}

// entry asks ristretto.
func (m *memory) entry(digest *Digest) *Grant {
	g, _ := m.entries.Get(word(digest))
	return g
}

func (m *memory) slot(digest *Digest) *atomic.Pointer[Grant] {
	return &m.slots[scaled(digest, len(m.slots))]
}

// moveTo hands all entries to a larger memory, or most: ristretto drops what comes too
// fast.
func (m *memory) moveTo(larger *memory) {
	m.entries.IterValues(func(g *Grant) (stop bool) {
		larger.keep(g)
		return false
	})
}

// word is ristretto's key for a digest.
func word(digest *Digest) uint64 { return binary.LittleEndian.Uint64(digest[:]) }

// cost is about how many bytes a cached grant holds.
func (g *Grant) cost() int64 {
	n := int(unsafe.Sizeof(*g)) + entryOverhead
	n += len(g.KeyID) + len(g.CredentialID) + len(g.AccountID) + len(g.AccountEmail) + len(g.Package)
	for _, r := range g.Roles {
		n += int(unsafe.Sizeof(r)) + len(r)
	}
	return int64(n + len(g.AllowedIPs)*int(unsafe.Sizeof(g.AllowedIPs)))
}
