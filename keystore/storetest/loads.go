package storetest

import (
	"errors"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var loadRules = []rule{
	{"loaded records are read as they were", func(s *suite) {
		account, credential, key := fullAccount("a"), fullCredential("c", "a"), fullKey("k", "c")
		account.Number = 41
		s.loads(account, credential, key)
		s.same(s.account("a"), account)
		credential.Seq, key.Seq = s.credential("c").Seq, s.key("k").Seq
		s.same(s.credential("c"), credential)
		s.same(s.key("k"), key)
		if _, err := s.Lookup(s.ctx, key.Digest); err != nil {
			s.Errorf("Lookup of a loaded key: %v", err)
		}
	}},
	{"a loaded account without a number gets the next, and others go on from one with", func(s *suite) {
		given := newAccount("b")
		given.Number = 7
		s.loads(newAccount("a"), given, newAccount("c"))
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(newAccount("d")) })
		for id, want := range map[string]int64{"a": 1, "b": 7, "c": 8, "d": 9} {
			if got := s.account(id).Number; got != want {
				s.Errorf("account %s has number %d, want %d", id, got, want)
			}
		}
	}},
	{"keys and credentials are listed in the order of their loading", func(s *suite) {
		s.loads(newAccount("a"), newCredential("z", "a"), newCredential("m", "a"), newKey("y", "z"), newKey("b", "z"))
		s.view(func(r keystore.Reader) error {
			credentials, err := r.Credentials("a", keystore.Page{})
			if err != nil || len(credentials) != 2 || credentials[0].ID != "z" {
				s.Errorf("credentials: %v, %v", credentials, err)
			}
			keys, err := r.Keys("z", keystore.Page{})
			if err != nil || len(keys) != 2 || keys[0].ID != "y" {
				s.Errorf("keys: %v, %v", keys, err)
			}
			return nil
		})
	}},
	{"what is in the way of a loaded record is returned, and nothing stored", func(s *suite) {
		a, b := newAccount("a"), newAccount("b")
		a.Email, a.Number, b.Email = "a@x.example", 5, "b@x.example"
		s.loads(a, b, newCredential("c", "a"), newKey("k", "c"), newKey("l", "c"))
		email, number, both := newAccount("e"), newAccount("n"), newAccount("a")
		email.Email, number.Number, both.Email = "A@x.example", 5, "b@x.example"
		digest := newKey("other", "c")
		digest.Digest = digestOf("l")
		inTheWay := func(want string, load func(keystore.Tx) (string, error)) {
			s.Helper()
			s.must(func(tx keystore.Tx) error {
				got, err := load(tx)
				if err != nil || got != want {
					s.Errorf("in the way is %q, %v; want %q", got, err, want)
				}
				return nil
			})
		}
		for load, want := range map[*keystore.Account]string{email: "a", number: "a", both: "a"} {
			inTheWay(want, func(tx keystore.Tx) (string, error) { there, err := tx.LoadAccount(load); return idOf(there), err })
		}
		inTheWay("c", func(tx keystore.Tx) (string, error) {
			there, err := tx.LoadCredential(newCredential("c", "b"))
			return idOf(there), err
		})
		for load, want := range map[*keystore.Key]string{newKey("k", "c"): "k", digest: "l"} {
			inTheWay(want, func(tx keystore.Tx) (string, error) { there, err := tx.LoadKey(load); return idOf(there), err })
		}
		if s.credential("c").AccountID != "a" {
			s.Error("a credential was replaced")
		}
	}},
	{"a record whose owner is missing is not loaded", func(s *suite) {
		s.loads(newAccount("a"))
		s.refuses(keystore.ErrNotFound, loadOf(newCredential("c", "none")))
		s.refuses(keystore.ErrNotFound, loadOf(newKey("k", "none")))
	}},
	{"tombstones are loaded, and under them only what has an end", func(s *suite) {
		account, credential := newAccount("a"), newCredential("c", "a")
		account.DeletedAt, credential.DeletedAt = 99, 98
		s.loads(account, credential)
		s.refuses(keystore.ErrNotFound, loadOf(newCredential("live", "a")))
		s.refuses(keystore.ErrNotFound, loadOf(newKey("live", "c")))
		revoked := newKey("k", "c")
		revoked.RevokedAt = 97
		s.loads(revoked)
		if g, err := s.Lookup(s.ctx, revoked.Digest); err != nil || g.RevokedAt != 97 || g.AccountActive || g.CredentialActive {
			s.Errorf("Lookup under a tombstone: %+v, %v", g, err)
		}
		s.must(func(tx keystore.Tx) error {
			if there, err := tx.LoadAccount(newAccount("a")); err != nil || there == nil || there.DeletedAt != 99 {
				s.Errorf("in the way is %+v, %v", there, err)
			}
			return nil
		})
	}},
	{"a key is found by its digest in a transaction", func(s *suite) {
		s.family("a")
		s.must(func(tx keystore.Tx) error {
			if k, err := tx.KeyOf(digestOf("a/k")); err != nil || k.ID != "a/k" {
				s.Errorf("KeyOf: %+v, %v", k, err)
			}
			if _, err := tx.KeyOf(digestOf("none")); !errors.Is(err, keystore.ErrNotFound) {
				s.Errorf("KeyOf: %v", err)
			}
			return nil
		})
	}},
}

// loads loads records that have to be stored.
func (s *suite) loads(records ...any) {
	s.Helper()
	for _, r := range records {
		s.must(loadOf(r))
	}
}

// loadOf loads a record that nothing may be in the way of.
func loadOf(record any) func(keystore.Tx) error {
	return func(tx keystore.Tx) (err error) {
		there := ""
		switch r := record.(type) {
		case *keystore.Account:
			var found *keystore.Account
			found, err = tx.LoadAccount(r)
			there = idOf(found)
		case *keystore.Credential:
			var found *keystore.Credential
			found, err = tx.LoadCredential(r)
			there = idOf(found)
		case *keystore.Key:
			var found *keystore.Key
			found, err = tx.LoadKey(r)
			there = idOf(found)
		}
		if err == nil && there != "" {
			err = errors.New(there + " is in the way")
		}
		return err
	}
}

// idOf is the id of a record, empty if there is none.
func idOf(record any) string {
	switch r := record.(type) {
	case *keystore.Account:
		if r != nil {
			return r.ID
		}
	case *keystore.Credential:
		if r != nil {
			return r.ID
		}
	case *keystore.Key:
		if r != nil {
			return r.ID
		}
	}
	return ""
}
