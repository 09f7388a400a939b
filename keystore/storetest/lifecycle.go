package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var lifecycleRules = []rule{
	{"a closed store answers unavailable, to everything", func(s *suite) {
		s.family("a")
		s.close()
		for _, c := range s.storeCalls(s.ctx) {
			s.wants(c.do(), keystore.ErrUnavailable)
		}
	}},
	{"a store can be closed again", func(s *suite) {
		s.together(3, func(int) { s.close() })
		s.close()
	}},
	{"close waits for the update that is running", func(s *suite) {
		running, finish := make(chan struct{}), make(chan struct{})
		var updated, closed atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			s.try(func(tx keystore.Tx) error {
				close(running)
				<-finish
				updated.Store(true)
				return createFamily(tx, "a")
			})
		})
		<-running
		wg.Go(func() {
			s.close()
			closed.Store(true)
			if !updated.Load() {
				s.Error("Close returned before the update did")
			}
		})
		// The store is closing once it takes no more calls.
		for {
			if _, err := s.Lookup(s.ctx, digestOf("a/k")); errors.Is(err, keystore.ErrUnavailable) {
				break
			}
			runtime.Gosched()
		}
		if closed.Load() {
			s.Error("Close returned while the update was running")
		}
		close(finish)
		wg.Wait()
		if s.Reopen != nil {
			s.reopen()
			s.account("a")
		}
	}},
	{"a store can be closed while all methods are in use", func(s *suite) {
		s.family("a")
		calls := []func(id string) error{
			func(string) error { _, err := s.Lookup(s.ctx, digestOf("a/k")); return err },
			func(string) error {
				return s.View(s.ctx, func(r keystore.Reader) error { _, err := r.Accounts(keystore.Page{}); return err })
			},
			func(id string) error {
				return s.Update(s.ctx, func(tx keystore.Tx) error { return createFamily(tx, id) })
			},
			func(string) error { return s.Backup(s.ctx, io.Discard) },
		}
		const callers = 16
		var begun sync.WaitGroup
		begun.Add(callers)
		s.together(callers+1, func(i int) {
			if i == callers {
				begun.Wait()
				s.close()
				return
			}
			call := calls[i%len(calls)]
			if err := call(fmt.Sprint("b", i)); err != nil {
				s.Errorf("before Close: %v", err)
			}
			begun.Done()
			var err error
			for n := 0; err == nil; n++ {
				err = call(fmt.Sprint("b", i, "-", n))
			}
			s.wants(err, keystore.ErrUnavailable)
		})
	}},
	{"a store that is opened again holds all that it held", func(s *suite) {
		if s.Reopen == nil {
			s.Skip("the harness can't reopen a store")
		}
		account, credential, key := fullAccount("full"), fullCredential("full/c", "full"), fullKey("full/k", "full/c")
		s.createAll(account, credential, key)
		s.family("a", "b", "c")
		s.buryAccount("b")
		s.buryCredential("c/c")
		s.must(func(tx keystore.Tx) error { return tx.SetSetting("s", []byte("v")) })
		s.close()
		s.reopen()
		s.same(s.account("full"), account)
		s.same(s.credential("full/c"), credential)
		s.same(s.key("full/k"), key)
		s.listed(s.allAccounts(), "full", "a", "c")
		s.listed(s.allCredentials("c"))
		s.same(string(s.setting("s")), "v")
		if s.grant(digestOf("b/k")).AccountActive {
			s.Error("a deleted account is active")
		}
		a := newAccount("next")
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(a) })
		s.same(a.Number, int64(5))
	}},

	{"a backup opens as a store that holds all", func(s *suite) {
		account, credential, key := fullAccount("full"), fullCredential("full/c", "full"), fullKey("full/k", "full/c")
		s.createAll(account, credential, key)
		s.restore(s.backup())
		s.same(s.account("full"), account)
		s.same(s.credential("full/c"), credential)
		s.same(s.key("full/k"), key)
		s.same(s.grant(key.Digest).KeyID, "full/k")
		s.family("a")
	}},
	{"a backup is of one moment, while updates are committed", func(s *suite) {
		// Each update makes an account and counts it.
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					s.try(func(tx keystore.Tx) error { return addCounted(tx, fmt.Sprint(w, "-", i)) })
				}
			})
		}
		var backups [][]byte
		for range 3 {
			before := s.setting("n")
			for bytes.Equal(before, s.setting("n")) {
				runtime.Gosched()
			}
			backups = append(backups, s.backup())
		}
		close(stop)
		wg.Wait()
		for _, b := range backups {
			s.restore(b)
			if n, accounts := string(s.setting("n")), len(s.allAccounts()); n != strconv.Itoa(accounts) {
				s.Errorf("%d accounts, of which %s are counted", accounts, n)
			}
		}
	}},
	{"a backup holds all that was returned before it", func(s *suite) {
		for i := range 5 {
			s.family(fmt.Sprint("a", i))
		}
		s.restore(s.backup())
		s.listed(s.allAccounts(), "a0", "a1", "a2", "a3", "a4")
	}},
	{"reads and updates go on while a backup is taken by a slow reader", func(s *suite) {
		s.family("a")
		wrote := false
		err := s.Backup(s.ctx, writerFunc(func(p []byte) (int, error) {
			if !wrote {
				s.family("b")
				s.grant(digestOf("b/k"))
				wrote = true
			}
			return len(p), nil
		}))
		if err != nil || !wrote {
			s.Errorf("Backup: %v; wrote: %t", err, wrote)
		}
	}},
	{"a backup returns the error of its writer", func(s *suite) {
		s.wants(s.Backup(s.ctx, writerFunc(func([]byte) (int, error) { return 0, errTest })), errTest)
	}},
}

// addCounted creates an account and adds one to the setting "n".
func addCounted(tx keystore.Tx, id string) error {
	value, err := tx.Setting("n")
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(value))
	if err := tx.SetSetting("n", []byte(strconv.Itoa(n+1))); err != nil {
		return err
	}
	return tx.CreateAccount(newAccount(id))
}

func (s *suite) close() {
	s.Helper()
	if err := s.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
}

// reopen goes on with the store, which is closed, opened again.
func (s *suite) reopen() {
	s.Helper()
	s.Store = s.Reopen(s.T, s.Store)
	s.closeAtEnd(s.Store)
}

func (s *suite) backup() []byte {
	s.Helper()
	var b bytes.Buffer
	if err := s.Backup(s.ctx, &b); err != nil {
		s.Fatalf("Backup: %v", err)
	}
	return b.Bytes()
}

// restore goes on with the store that a backup makes.
func (s *suite) restore(backup []byte) {
	s.Helper()
	if s.Restore == nil {
		s.Skip("the harness can't restore a backup")
	}
	s.Store = s.Restore(s.T, backup)
	s.closeAtEnd(s.Store)
}
