package bench

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync/atomic"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// memoryStore holds grants of many keys in memory, for benchmarks of what lies
// before a store.
type memoryStore struct {
	keystore.Store // nil: only what is below is asked for
	texts          []string
	numbers        map[keystore.Digest]int
	// lookups are those of keys that exist, unknown are the others.
	lookups, unknown atomic.Int64
	// shared says that other processes change the store, as far as is known: there
	// is no filter of it then.
	shared bool
}

func newMemoryStore(n int) *memoryStore {
	s := &memoryStore{texts: make([]string, n), numbers: make(map[keystore.Digest]int, n)}
	for i := range s.texts {
		s.texts[i] = token(i)
		s.numbers[sha256.Sum256([]byte(s.texts[i]))] = i
	}
	return s
}

// token is a text of the default format with a right checksum.
func token(i int) string {
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	head := fmt.Sprintf("key_%012d_%032d", i, i)
	crc := crc32.ChecksumIEEE([]byte(head))
	tail := make([]byte, 6)
	for i := len(tail) - 1; i >= 0; i-- {
		tail[i] = base62[crc%62]
		crc /= 62
	}
	return head + string(tail)
}

// some are texts in random order.
func (s *memoryStore) some(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = s.texts[rand.IntN(len(s.texts))]
	}
	return texts
}

func (s *memoryStore) Lookup(_ context.Context, d keystore.Digest) (*keystore.Grant, error) {
	i, ok := s.numbers[d]
	if !ok {
		s.unknown.Add(1)
		return nil, keystore.ErrNotFound
	}
	s.lookups.Add(1)
	return &keystore.Grant{
		Digest: d, DigestKind: keystore.DigestSHA256, KeyID: fmt.Sprintf("%012d", i),
		CredentialID:  fmt.Sprintf("0197d5a2-0000-7000-8000-%012d", i),
		AccountID:     fmt.Sprintf("0197d5a2-0000-7000-9000-%012d", i/4),
		AccountNumber: int64(i / 4), AccountActive: true, CredentialActive: true,
		Roles: []string{"read"},
	}, nil
}

func (s *memoryStore) View(_ context.Context, read func(keystore.Reader) error) error {
	return read(noRecords{})
}

func (s *memoryStore) Update(context.Context, func(keystore.Tx) error) error { return nil }

func (s *memoryStore) Exclusive() bool { return !s.shared }

func (s *memoryStore) KeysAtMost(context.Context) (int64, error) { return int64(len(s.numbers)), nil }

func (s *memoryStore) EachDigest(_ context.Context, do func(keystore.Digest)) error {
	for d := range s.numbers {
		do(d)
	}
	return nil
}

func (s *memoryStore) Close() error { return nil }

// noRecords answers what a vault reads at its start.
type noRecords struct{ keystore.Reader }

func (noRecords) Setting(string) ([]byte, error) { return nil, nil }
