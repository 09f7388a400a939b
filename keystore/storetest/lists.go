package storetest

import (
	"fmt"
	"slices"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var listRules = []rule{
	{"lists are in the order of creation", func(s *suite) {
		for _, l := range s.fill() {
			s.listed(l.all(s), l.items...)
		}
	}},
	{"a limit takes the first, and zero takes all", func(s *suite) {
		for _, l := range s.fill() {
			s.listed(l.page(s, 3, ""), l.items[:3]...)
			s.listed(l.page(s, len(l.items), ""), l.items...)
			s.listed(l.page(s, 1000, ""), l.items...)
			s.listed(l.page(s, 0, ""), l.items...)
		}
	}},
	{"a page starts behind the record that it names", func(s *suite) {
		for _, l := range s.fill() {
			for i, id := range l.items {
				s.listed(l.page(s, 0, id), l.items[i+1:]...)
				s.listed(l.page(s, 2, id), l.items[i+1:min(i+3, len(l.items))]...)
			}
		}
	}},
	{"pages of any size make up the list", func(s *suite) {
		for _, l := range s.fill() {
			for size := 1; size <= len(l.items)+1; size++ {
				var all []string
				for after := ""; ; after = all[len(all)-1] {
					page := l.page(s, size, after)
					all = append(all, page...)
					if len(page) < size {
						break
					}
				}
				s.listed(all, l.items...)
			}
		}
	}},
	{"records that are made between two pages come at the end", func(s *suite) {
		lists := s.fill()
		s.must(func(tx keystore.Tx) error {
			if err := tx.CreateAccount(newAccount("A")); err != nil {
				return err
			}
			if err := tx.CreateCredential(newCredential("C", "a0")); err != nil {
				return err
			}
			return tx.CreateKey(newKey("K", "c0"))
		})
		for i, l := range lists {
			s.listed(l.page(s, 0, l.items[len(l.items)-1]), []string{"A", "C", "K"}[i])
		}
	}},
	{"a page behind what is not in the list is not found", func(s *suite) {
		for _, l := range s.fill() {
			for _, id := range append(l.others, "none") {
				_, err := l.read(keystore.Page{After: id})
				s.wants(err, keystore.ErrNotFound)
			}
		}
	}},
	{"a page behind a record that was deleted is not found", func(s *suite) {
		lists := s.fill()
		s.buryAccount("a3")
		s.buryCredential("c3")
		for i, id := range []string{"a3", "c3"} {
			_, err := lists[i].read(keystore.Page{After: id})
			s.wants(err, keystore.ErrNotFound)
		}
	}},
	{"deleted records do not count towards a limit", func(s *suite) {
		lists := s.fill()
		gone := func(id string) bool { return id == "a4" || id == "c4" }
		s.buryAccount("a4")
		s.buryCredential("c4")
		for _, l := range lists[:2] {
			want := slices.DeleteFunc(slices.Clone(l.items), gone)
			s.listed(l.page(s, 4, ""), want[:4]...)
			s.listed(l.all(s), want...)
		}
	}},
	{"the list of an owner that is not there is empty", func(s *suite) {
		s.listed(s.allAccounts())
		s.listed(s.allCredentials("none"))
		s.listed(s.allKeys("none"))
		s.view(func(r keystore.Reader) error {
			unended, err := r.UnendedKeys("none", 1)
			s.listed(ids(unended))
			if err != nil {
				return err
			}
			unended, err = r.UnendedKeysOfAccount("none", 1)
			s.listed(ids(unended))
			return err
		})
	}},
	{"lists hold whole records", func(s *suite) {
		account, credential := fullAccount("a"), fullCredential("c", "a")
		key := fullKey("k", "c")
		key.RevokedAt = 0
		s.createAll(account, credential, key)
		s.view(func(r keystore.Reader) error {
			accounts, err1 := r.Accounts(keystore.Page{})
			credentials, err2 := r.Credentials("a", keystore.Page{})
			keys, err3 := r.Keys("c", keystore.Page{})
			unended, err4 := r.UnendedKeys("c", 1)
			ofAccount, err5 := r.UnendedKeysOfAccount("a", 1)
			if err := first(err1, err2, err3, err4, err5); err != nil {
				return err
			}
			s.same(accounts[0], account)
			s.same(credentials[0], credential)
			s.same(keys[0], key)
			s.same(unended[0], key)
			s.same(ofAccount[0], key)
			return nil
		})
	}},
	{"long lists are read in one piece", func(s *suite) {
		s.family("a")
		var want []string
		s.must(func(tx keystore.Tx) error {
			for i := range 1500 {
				id := fmt.Sprint("k", i)
				want = append(want, id)
				if err := tx.CreateKey(newKey(id, "a/c")); err != nil {
					return err
				}
			}
			return nil
		})
		s.listed(s.allKeys("a/c"), append([]string{"a/k"}, want...)...)
	}},

	{"unended keys are those not revoked and not expired, oldest first", func(s *suite) {
		const now = 1000
		s.family("a", "b")
		s.must(func(tx keystore.Tx) error {
			for _, k := range []*keystore.Key{
				{ID: "never expires"},
				{ID: "later", ExpiresAt: now + 1},
				{ID: "now", ExpiresAt: now},
				{ID: "earlier", ExpiresAt: now - 1},
				{ID: "revoked", RevokedAt: now},
				{ID: "revoked later", RevokedAt: now + 1, ExpiresAt: now + 1},
				{ID: "unused", UnusedExpiresAt: now - 1},
				{ID: "pending", ActivatesAt: now + 1},
			} {
				k.CredentialID, k.Digest = "a/c", digestOf(k.ID)
				if err := tx.CreateKey(k); err != nil {
					return err
				}
			}
			return nil
		})
		s.view(func(r keystore.Reader) error {
			unended, err := r.UnendedKeys("a/c", now)
			s.listed(ids(unended), "a/k", "never expires", "later", "unused", "pending")
			return err
		})
	}},
	{"unended keys of an account are those of its credentials, one after the other", func(s *suite) {
		const now = 1000
		s.family("a", "b")
		s.must(func(tx keystore.Tx) error {
			for _, id := range []string{"c2", "gone"} {
				if err := tx.CreateCredential(newCredential(id, "a")); err != nil {
					return err
				}
			}
			for _, k := range []*keystore.Key{
				{ID: "second", CredentialID: "c2"},
				{ID: "first", CredentialID: "a/c", ExpiresAt: now + 1},
				{ID: "expired", CredentialID: "a/c", ExpiresAt: now},
				{ID: "revoked", CredentialID: "c2", RevokedAt: now},
				{ID: "of the deleted", CredentialID: "gone"},
				{ID: "third", CredentialID: "c2"},
			} {
				k.Digest = digestOf(k.ID)
				if err := tx.CreateKey(k); err != nil {
					return err
				}
			}
			return nil
		})
		s.buryCredential("gone")
		s.buryAccount("b")
		s.view(func(r keystore.Reader) error {
			unended, err := r.UnendedKeysOfAccount("a", now)
			s.listed(ids(unended), "a/k", "first", "second", "third")
			if err != nil {
				return err
			}
			unended, err = r.UnendedKeysOfAccount("b", now)
			s.listed(ids(unended))
			return err
		})
	}},
	{"digests are those of the keys that are not revoked", func(s *suite) {
		s.family("a", "b")
		s.must(func(tx keystore.Tx) error {
			if err := tx.CreateCredential(newCredential("c2", "a")); err != nil {
				return err
			}
			for _, k := range []*keystore.Key{
				{ID: "k2", CredentialID: "a/c"},
				{ID: "revoked", CredentialID: "a/c", RevokedAt: 1},
				{ID: "expired", CredentialID: "a/c", ExpiresAt: 1},
				{ID: "k3", CredentialID: "c2"},
			} {
				k.Digest = digestOf(k.ID)
				if err := tx.CreateKey(k); err != nil {
					return err
				}
			}
			return nil
		})
		check := func() {
			s.view(func(r keystore.Reader) error {
				ofCredential, err1 := r.CredentialDigests("a/c")
				ofAccount, err2 := r.AccountDigests("a")
				s.digests(ofCredential, "a/k", "k2", "expired")
				s.digests(ofAccount, "a/k", "k2", "expired", "k3")
				none, err3 := r.AccountDigests("none")
				none2, err4 := r.CredentialDigests("none")
				s.digests(append(none, none2...))
				return first(err1, err2, err3, err4)
			})
		}
		check()
		// The keys of tombstones work no more, but what is cached of them must
		// still be found.
		s.buryCredential("a/c")
		check()
		s.buryAccount("a")
		check()
	}},
}

// paged is one of the three lists that are read by page.
type paged struct {
	// items are the ids in the list, others those of records elsewhere.
	items, others []string
	read          func(keystore.Page) ([]string, error)
}

// page reads a page that has to be there.
func (l paged) page(s *suite, limit int, after string) []string {
	s.Helper()
	list, err := l.read(keystore.Page{Limit: limit, After: after})
	if err != nil {
		s.Fatalf("page of %d after %q: %v", limit, after, err)
	}
	return list
}

func (l paged) all(s *suite) []string {
	s.Helper()
	return l.page(s, 0, "")
}

// fill makes the three lists. The order of creation is not that of the ids,
// and all have the same CreatedAt.
func (s *suite) fill() []paged {
	s.Helper()
	s.family("other")
	accounts, credentials, keys := []string{"other"}, []string(nil), []string(nil)
	s.must(func(tx keystore.Tx) error {
		for i := range 7 {
			n := (i * 4) % 7
			a, c, k := fmt.Sprint("a", n), fmt.Sprint("c", n), fmt.Sprint("k", n)
			if err := first(tx.CreateAccount(newAccount(a)),
				tx.CreateCredential(newCredential(c, "a0")), tx.CreateKey(newKey(k, "c0"))); err != nil {
				return err
			}
			accounts, credentials, keys = append(accounts, a), append(credentials, c), append(keys, k)
		}
		return nil
	})
	return []paged{
		{accounts, []string{"c1", "k1"}, s.accounts},
		{credentials, []string{"other/c", "a1"},
			func(p keystore.Page) ([]string, error) { return s.credentials("a0", p) }},
		{keys, []string{"other/k", "c1"},
			func(p keystore.Page) ([]string, error) { return s.keys("c0", p) }},
	}
}

func (s *suite) accounts(p keystore.Page) (list []string, err error) {
	err = s.View(s.ctx, func(r keystore.Reader) error {
		records, err := r.Accounts(p)
		list = ids(records)
		return err
	})
	return list, err
}

func (s *suite) credentials(account string, p keystore.Page) (list []string, err error) {
	err = s.View(s.ctx, func(r keystore.Reader) error {
		records, err := r.Credentials(account, p)
		list = ids(records)
		return err
	})
	return list, err
}

func (s *suite) keys(credential string, p keystore.Page) (list []string, err error) {
	err = s.View(s.ctx, func(r keystore.Reader) error {
		records, err := r.Keys(credential, p)
		list = ids(records)
		return err
	})
	return list, err
}

func (s *suite) allAccounts() []string {
	s.Helper()
	return paged{read: s.accounts}.all(s)
}

func (s *suite) allCredentials(account string) []string {
	s.Helper()
	return paged{read: func(p keystore.Page) ([]string, error) { return s.credentials(account, p) }}.all(s)
}

func (s *suite) allKeys(credential string) []string {
	s.Helper()
	return paged{read: func(p keystore.Page) ([]string, error) { return s.keys(credential, p) }}.all(s)
}

// digests compares digests, in any order, with those of names.
func (s *suite) digests(got []keystore.Digest, names ...string) {
	s.Helper()
	have := make(map[keystore.Digest]int)
	for _, d := range got {
		have[d]++
	}
	for _, name := range names {
		have[digestOf(name)]--
	}
	for d, n := range have {
		if n != 0 {
			s.Errorf("digest of %q: %+d times", d[:], n)
		}
	}
}

// first is the first error that is not nil.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
