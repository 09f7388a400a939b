package storetest

import (
	"fmt"
	"testing"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var everyRules = []rule{
	{"every record is read, tombstones included, in the order of its making", func(s *suite) {
		lists := s.fill()
		s.buryAccount("a3")
		s.buryCredential("c3")
		s.view(func(r keystore.Reader) error {
			accounts, err1 := r.EveryAccount(0, 100)
			credentials, err2 := r.EveryCredential(0, 100)
			keys, err3 := r.EveryKey(0, 100)
			s.listed(ids(accounts), lists[0].items...)
			s.listed(ids(credentials), append([]string{"other/c"}, lists[1].items...)...)
			s.listed(ids(keys), append([]string{"other/k"}, lists[2].items...)...)
			return first(err1, err2, err3)
		})
	}},
	{"pages of every record follow each other without a gap", func(s *suite) {
		s.fill()
		for limit := range 10 {
			limit++
			s.view(func(r keystore.Reader) error {
				accounts := pages(s.T, limit, r.EveryAccount, func(a *keystore.Account) int64 { return a.Number })
				credentials := pages(s.T, limit, r.EveryCredential, func(c *keystore.Credential) int64 { return c.Seq })
				keys := pages(s.T, limit, r.EveryKey, func(k *keystore.Key) int64 { return k.Seq })
				if accounts != 8 || credentials != 8 || keys != 8 {
					s.Errorf("%d at a time: %d accounts, %d credentials, %d keys", limit, accounts, credentials, keys)
				}
				return nil
			})
		}
	}},
	{"of an empty store there is nothing", func(s *suite) {
		s.view(func(r keystore.Reader) error {
			accounts, err1 := r.EveryAccount(0, 1)
			credentials, err2 := r.EveryCredential(0, 1)
			keys, err3 := r.EveryKey(0, 1)
			if n := len(accounts) + len(credentials) + len(keys); n != 0 {
				s.Errorf("%d records", n)
			}
			return first(err1, err2, err3)
		})
	}},
	{"every record is read whole", func(s *suite) {
		account, credential, key := fullAccount("a"), fullCredential("c", "a"), fullKey("k", "c")
		s.createAll(account, credential, key)
		s.view(func(r keystore.Reader) error {
			accounts, err1 := r.EveryAccount(0, 1)
			credentials, err2 := r.EveryCredential(0, 1)
			keys, err3 := r.EveryKey(0, 1)
			if err := first(err1, err2, err3); err != nil {
				return err
			}
			s.same(accounts[0], account)
			s.same(credentials[0], credential)
			s.same(keys[0], key)
			return nil
		})
	}},
	{"every record of one transaction is of one moment", func(s *suite) {
		s.family("a")
		s.view(func(r keystore.Reader) error {
			if _, err := r.EveryAccount(0, 1); err != nil {
				return err
			}
			// In another goroutine: a function that reads must not wait for an update.
			written := make(chan struct{})
			go func() {
				defer close(written)
				s.try(func(tx keystore.Tx) error { return tx.CreateKey(newKey("late", "a/c")) })
			}()
			<-written
			keys, err := r.EveryKey(0, 100)
			s.listed(ids(keys), "a/k")
			return err
		})
	}},
}

// pages counts the records of all pages, which must grow in position.
func pages[T any](t *testing.T, limit int, read func(int64, int) ([]*T, error), position func(*T) int64) (n int) {
	t.Helper()
	for after := int64(0); ; {
		page, err := read(after, limit)
		if err != nil || len(page) > limit {
			t.Fatal(fmt.Errorf("%d records: %w", len(page), err))
		}
		for _, record := range page {
			if position(record) <= after {
				t.Fatalf("%d follows %d", position(record), after)
			}
			after = position(record)
		}
		if n += len(page); len(page) < limit {
			return n
		}
	}
}
