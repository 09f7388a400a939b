package storetest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// The rules of keystore.Exclusive, for stores that are.
var digestRules = []rule{
	{"all digests are told, also of what ended", func(s *suite) {
		store := s.exclusive()
		s.digestsAre(store)
		s.family("a", "b", "c", "d")
		s.buryAccount("b")
		s.buryCredential("c/c")
		s.must(func(tx keystore.Tx) error {
			k := newKey("d/k", "d/c")
			k.RevokedAt = 5
			return tx.UpdateKey(k)
		})
		s.must(func(tx keystore.Tx) error { _, err := tx.LoadKey(newKey("loaded", "a/c")); return err })
		s.refuses(errTest, func(tx keystore.Tx) error {
			if err := tx.CreateKey(newKey("never", "a/c")); err != nil {
				return err
			}
			return errTest
		})
		s.digestsAre(store, "a/k", "b/k", "c/k", "d/k", "loaded")
	}},
	{"digests are told once each, however many there are", func(s *suite) {
		store := s.exclusive()
		const n = 10_000
		s.family("a")
		ids := []string{"a/k"}
		s.must(func(tx keystore.Tx) error {
			for i := range n {
				ids = append(ids, fmt.Sprint(i))
				if err := tx.CreateKey(newKey(fmt.Sprint(i), "a/c")); err != nil {
					return err
				}
			}
			return nil
		})
		s.digestsAre(store, ids...)
	}},
	{"updates go on while digests are told", func(s *suite) {
		store := s.exclusive()
		s.family("a", "b")
		made := false
		err := store.EachDigest(s.ctx, func(keystore.Digest) {
			if !made {
				made = true
				s.family("c")
			}
		})
		if err != nil || !made {
			s.Errorf("EachDigest: %v; made: %t", err, made)
		}
		s.digestsAre(store, "a/k", "b/k", "c/k")
	}},
	{"an update returns after those whose functions ran before it was called", func(s *suite) {
		s.exclusive()
		var committed atomic.Bool
		running, finish := make(chan struct{}), make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.try(func(tx keystore.Tx) error {
				close(running)
				<-finish
				committed.Store(true)
				return createFamily(tx, "a")
			})
		}()
		<-running
		after := make(chan error)
		go func() { after <- s.Update(s.ctx, func(keystore.Tx) error { return nil }) }()
		select {
		case <-after:
			s.Error("the empty update returned while another ran")
			close(finish)
		case <-time.After(20 * time.Millisecond):
			close(finish)
			if err := <-after; err != nil || !committed.Load() {
				s.Errorf("Update: %v; the other's function was through: %t", err, committed.Load())
			}
			s.grant(digestOf("a/k"))
		}
		<-done
	}},
	{"digests are not told where the context has ended or the store is closed", func(s *suite) {
		store := s.exclusive()
		s.family("a")
		tell := func(ctx context.Context) error {
			return store.EachDigest(ctx, func(keystore.Digest) { s.Error("a digest was told") })
		}
		for _, ended := range endedContexts() {
			s.wantsEnded(tell(ended), ended.Err())
		}
		s.close()
		s.wants(tell(s.ctx), keystore.ErrUnavailable)
		_, err := store.KeysAtMost(s.ctx)
		s.wants(err, keystore.ErrUnavailable)
	}},
}

// exclusive is the store, if it is one that tells its digests.
func (s *suite) exclusive() keystore.Exclusive {
	s.Helper()
	store, ok := s.Store.(keystore.Exclusive)
	if !ok || !store.Exclusive() {
		s.Skip("the store is not exclusive")
	}
	return store
}

// digestsAre compares what the store tells with the digests of keys.
func (s *suite) digestsAre(store keystore.Exclusive, ids ...string) {
	s.Helper()
	told := map[keystore.Digest]int{}
	if err := store.EachDigest(s.ctx, func(d keystore.Digest) { told[d]++ }); err != nil {
		s.Fatalf("EachDigest: %v", err)
	}
	for _, id := range ids {
		if n := told[digestOf(id)]; n != 1 {
			s.Fatalf("the digest of %s was told %d times", id, n)
		}
	}
	if len(told) != len(ids) {
		s.Errorf("%d digests were told, want %d", len(told), len(ids))
	}
	n, err := store.KeysAtMost(s.ctx)
	if err != nil || n < int64(len(ids)) || n > 2*int64(len(ids))+100 {
		s.Errorf("KeysAtMost: %d, %v; there are %d", n, err, len(ids))
	}
}
