package storetest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var contextRules = []rule{
	{"an update whose context has ended is not run", func(s *suite) {
		for _, ended := range endedContexts() {
			err := s.Update(ended, func(keystore.Tx) error { s.Error("the function was run"); return nil })
			s.wants(err, ended.Err())
		}
	}},
	{"an update whose context ends while it waits is not run", func(s *suite) {
		ctx, cancel := context.WithCancel(s.ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		s.must(func(keystore.Tx) error {
			// The update in this function's place keeps the other waiting.
			returned := make(chan error)
			wg.Go(func() {
				returned <- s.Update(ctx, func(keystore.Tx) error { s.Error("the function was run"); return nil })
			})
			cancel()
			s.wants(<-returned, context.Canceled)
			return nil
		})
	}},
	{"an update whose context ends while it runs is carried through", func(s *suite) {
		ctx, cancel := context.WithCancel(s.ctx)
		err := s.Update(ctx, func(tx keystore.Tx) error {
			cancel()
			return createFamily(tx, "a")
		})
		if err != nil {
			s.Fatalf("Update: %v", err)
		}
		s.account("a")
	}},
	{"a read whose context has ended answers that, and unavailable", func(s *suite) {
		s.family("a")
		for _, ended := range endedContexts() {
			for _, c := range s.storeCalls(ended) {
				if c.name != "Update" {
					s.wantsEnded(c.do(), ended.Err())
				}
			}
		}
	}},
	{"a view whose context ends reads no more", func(s *suite) {
		s.family("a")
		ctx, cancel := context.WithCancel(s.ctx)
		err := s.View(ctx, func(r keystore.Reader) error {
			if _, err := r.Account("a"); err != nil {
				s.Error(err)
			}
			cancel()
			_, err := r.Account("a")
			return err
		})
		s.wantsEnded(err, context.Canceled)
	}},
	{"contexts that end at any moment leave a store that works", func(s *suite) {
		s.together(50, func(i int) {
			ctx, cancel := context.WithCancel(s.ctx)
			var wg sync.WaitGroup
			wg.Go(cancel)
			id := "a" + string(rune('A'+i))
			err := s.Update(ctx, func(tx keystore.Tx) error { return createFamily(tx, id) })
			if err != nil && !errors.Is(err, context.Canceled) {
				s.Error(err)
			}
			if _, found := s.Lookup(s.ctx, digestOf(id+"/k")); (found == nil) != (err == nil) {
				s.Errorf("Update answered %v, Lookup %v", err, found)
			}
			_, err = s.Lookup(ctx, digestOf(id+"/k"))
			if err != nil && !errors.Is(err, keystore.ErrNotFound) && !errors.Is(err, context.Canceled) {
				s.Error(err)
			}
			wg.Wait()
		})
		s.family("after")
		s.grant(digestOf("after/k"))
	}},
}

// endedContexts are contexts that were cancelled, and that ran out of time.
func endedContexts() []context.Context {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancelLate := context.WithDeadline(context.Background(), time.Unix(1, 0))
	cancelLate()
	return []context.Context{cancelled, late}
}
