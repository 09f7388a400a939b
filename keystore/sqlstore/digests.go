package sqlstore

import (
	"context"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var _ keystore.Exclusive = (*Store)(nil)

// digestsAtATime is how many digests are read in one transaction, so that none
// keeps the log from being emptied for long.
const digestsAtATime = 4096

// Exclusive implements keystore.Exclusive.
func (s *Store) Exclusive() bool { return s.engine.exclusive() }

// KeysAtMost implements keystore.Exclusive. Keys are never deleted, so that the last
// number given is their count.
func (s *Store) KeysAtMost(ctx context.Context) (n int64, err error) {
	err = s.View(ctx, func(r keystore.Reader) (err error) {
		n, err = one(r.(*reader), "count keys", scanNumber, lastKey)
		return err
	})
	return n, err
}

// EachDigest implements keystore.Exclusive.
func (s *Store) EachDigest(ctx context.Context, do func(keystore.Digest)) error {
	for after := []byte{}; ; {
		page, err := s.digests(ctx, after)
		if err != nil {
			return err
		}
		for _, d := range page {
			do(d)
		}
		if len(page) < digestsAtATime {
			return nil
		}
		after = page[len(page)-1][:]
	}
}

// digests returns those behind the one given, in order.
func (s *Store) digests(ctx context.Context, after []byte) (page []keystore.Digest, err error) {
	err = s.View(ctx, func(r keystore.Reader) (err error) {
		page, err = list(r.(*reader), "list digests", scanDigest, digestPage, after, digestsAtATime)
		return err
	})
	return page, err
}
