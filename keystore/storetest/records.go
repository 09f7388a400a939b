package storetest

import (
	"strings"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var recordRules = []rule{
	{"every field of an account is read as it was written", func(s *suite) {
		want := fullAccount("a")
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(want) })
		s.same(s.account("a"), want)
		s.view(func(r keystore.Reader) error {
			got, err := r.AccountByEmail("ada.łovelace@EXAMPLE.com")
			if err == nil {
				s.same(got, want)
			}
			return err
		})
	}},
	{"every field of a credential is read as it was written", func(s *suite) {
		s.family("a")
		want := fullCredential("c", "a")
		s.must(func(tx keystore.Tx) error { return tx.CreateCredential(want) })
		s.same(s.credential("c"), want)
	}},
	{"every field of a key is read as it was written", func(s *suite) {
		s.family("a")
		want := fullKey("k", "a/c")
		s.must(func(tx keystore.Tx) error { return tx.CreateKey(want) })
		s.same(s.key("k"), want)
	}},
	{"empty fields are read as empty", func(s *suite) {
		account := &keystore.Account{ID: "a", Roles: []string{}, Attributes: map[string]string{}}
		credential := &keystore.Credential{ID: "c", AccountID: "a", Roles: []string{}, Metadata: map[string]string{}}
		key := &keystore.Key{ID: "k", CredentialID: "c", Sealed: []byte{}}
		s.must(func(tx keystore.Tx) error {
			if err := tx.CreateAccount(account); err != nil {
				return err
			}
			if err := tx.CreateCredential(credential); err != nil {
				return err
			}
			return tx.CreateKey(key)
		})
		s.same(s.account("a"), account)
		s.same(s.credential("c"), credential)
		s.same(s.key("k"), key)
	}},
	{"long texts are read as they were written", func(s *suite) {
		account := newAccount(strings.Repeat("i", 128))
		account.Address = strings.Repeat("é", 100_000)
		account.Attributes = map[string]string{strings.Repeat("k", 10_000): strings.Repeat("🔑", 100_000)}
		credential := newCredential("c", account.ID)
		credential.Description = strings.Repeat("語", keystore.MaxDescription)
		for range 1000 {
			credential.Roles = append(credential.Roles, strings.Repeat("r", 128))
		}
		s.must(func(tx keystore.Tx) error {
			if err := tx.CreateAccount(account); err != nil {
				return err
			}
			return tx.CreateCredential(credential)
		})
		s.same(s.account(account.ID), account)
		s.same(s.credential("c"), credential)
	}},
	{"records that are read are the caller's own", func(s *suite) {
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(fullAccount("a")) })
		read := s.account("a")
		read.Roles[0], read.Attributes["plan"] = "changed", "changed"
		again := s.account("a")
		if again.Roles[0] != "admin" || again.Attributes["plan"] != "gold" {
			s.Error("a change of a record that was read shows in the next read")
		}
	}},

	{"accounts are numbered from 1, one up from the highest ever given", func(s *suite) {
		for i, id := range []string{"z", "m", "a"} {
			a := newAccount(id)
			s.must(func(tx keystore.Tx) error { return tx.CreateAccount(a) })
			if want := int64(i + 1); a.Number != want || s.account(id).Number != want {
				s.Errorf("account %q has number %d, and %d when read; want %d", id, a.Number, s.account(id).Number, want)
			}
		}
		s.buryAccount("a") // It had the highest.
		a := newAccount("b")
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(a) })
		if a.Number != 4 {
			s.Errorf("after a deletion: number %d, want 4", a.Number)
		}
	}},
	{"a number that is chosen by the caller is not taken", func(s *suite) {
		a := newAccount("a")
		a.Number = 17
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(a) })
		if a.Number != 1 || s.account("a").Number != 1 {
			s.Errorf("number %d, want 1", a.Number)
		}
	}},
	{"credentials and keys get a seq that grows, and is read again", func(s *suite) {
		s.family("a", "b")
		c1, c2, k1, k2 := newCredential("c1", "b"), newCredential("c2", "a"), newKey("k1", "b/c"), newKey("k2", "a/c")
		s.must(func(tx keystore.Tx) error {
			for _, err := range []error{
				tx.CreateCredential(c1), tx.CreateCredential(c2), tx.CreateKey(k1), tx.CreateKey(k2),
			} {
				if err != nil {
					return err
				}
			}
			return nil
		})
		if c1.Seq >= c2.Seq || k1.Seq >= k2.Seq {
			s.Errorf("seq of credentials %d, %d; of keys %d, %d", c1.Seq, c2.Seq, k1.Seq, k2.Seq)
		}
		if c, k := s.credential("c2"), s.key("k2"); c.Seq != c2.Seq || k.Seq != k2.Seq {
			s.Errorf("read seq %d and %d, want %d and %d", c.Seq, k.Seq, c2.Seq, k2.Seq)
		}
	}},

	{"a second account of an id is a conflict", func(s *suite) {
		s.family("a")
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error { return tx.CreateAccount(newAccount("a")) })
	}},
	{"ids differ by case", func(s *suite) {
		s.family("a", "A")
		s.same(s.account("A").ID, "A")
	}},
	{"the id of a deleted account stays taken", func(s *suite) {
		s.family("a")
		s.buryAccount("a")
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error { return tx.CreateAccount(newAccount("a")) })
	}},
	{"a second account of an e-mail address is a conflict, whatever its case", func(s *suite) {
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(withEmail("a", "Ada@example.com")) })
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error {
			return tx.CreateAccount(withEmail("b", "aDA@EXAMPLE.com"))
		})
		s.family("c")
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error {
			return tx.UpdateAccount(withEmail("c", "ada@example.com"))
		})
	}},
	{"any number of accounts have no e-mail address", func(s *suite) {
		s.family("a", "b", "c")
		s.view(func(r keystore.Reader) error {
			_, err := r.AccountByEmail("")
			s.wants(err, keystore.ErrNotFound)
			return nil
		})
	}},
	{"an account may change the case of its e-mail address", func(s *suite) {
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(withEmail("a", "ada@example.com")) })
		s.must(func(tx keystore.Tx) error { return tx.UpdateAccount(withEmail("a", "ADA@example.com")) })
		s.same(s.account("a").Email, "ADA@example.com")
	}},
	{"an e-mail address that was given up is free", func(s *suite) {
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(withEmail("a", "ada@example.com")) })
		s.must(func(tx keystore.Tx) error { return tx.UpdateAccount(withEmail("a", "")) })
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(withEmail("b", "ada@example.com")) })
	}},
	{"the e-mail address of a deleted account is free", func(s *suite) {
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(withEmail("a", "ada@example.com")) })
		s.buryAccount("a")
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(withEmail("b", "ada@example.com")) })
		s.view(func(r keystore.Reader) error {
			a, err := r.AccountByEmail("ada@example.com")
			if err == nil {
				s.same(a.ID, "b")
			}
			return err
		})
	}},
	{"a second credential of an id is a conflict, also of a deleted one", func(s *suite) {
		s.family("a")
		again := func(tx keystore.Tx) error { return tx.CreateCredential(newCredential("a/c", "a")) }
		s.refuses(keystore.ErrConflict, again)
		s.buryCredential("a/c")
		s.refuses(keystore.ErrConflict, again)
	}},
	{"a second key of an id or of a digest is a conflict", func(s *suite) {
		s.family("a")
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error {
			k := newKey("a/k", "a/c")
			k.Digest = digestOf("another")
			return tx.CreateKey(k)
		})
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error {
			k := newKey("another", "a/c")
			k.Digest, k.DigestKind = digestOf("a/k"), keystore.DigestHMACSHA256
			return tx.CreateKey(k)
		})
	}},
	{"a credential needs its account, a key its credential", func(s *suite) {
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.CreateCredential(newCredential("c", "none")) })
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.CreateKey(newKey("k", "none")) })
	}},
	{"a deleted account or credential gets no more children", func(s *suite) {
		s.family("a", "b")
		s.buryAccount("a")
		s.buryCredential("b/c")
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.CreateCredential(newCredential("c", "a")) })
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.CreateKey(newKey("k1", "a/c")) })
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.CreateKey(newKey("k2", "b/c")) })
	}},
	{"a credential that is created with its key is as one that was created before it", func(s *suite) {
		account, credential, key := fullAccount("a"), fullCredential("c", "a"), fullKey("k", "c")
		other := newCredential("d", "a")
		s.must(func(tx keystore.Tx) error {
			return first(
				tx.CreateAccount(account),
				tx.CreateCredentialWithKey(credential, key),
				tx.CreateCredentialWithKey(other, newKey("l", "d")))
		})
		s.same(s.credential("c"), credential)
		s.same(s.key("k"), key)
		s.same(s.grant(key.Digest), joined(account, credential, key))
		s.same(s.grant(digestOf("l")), joined(account, other, newKey("l", "d")))
		if credential.Seq >= other.Seq {
			s.Errorf("seq %d and then %d", credential.Seq, other.Seq)
		}
	}},
	{"a credential or key that is taken is a conflict also where they are created at once", func(s *suite) {
		s.family("a")
		k := newKey("k", "c")
		k.Digest = digestOf("a/k")
		for name, create := range map[string]func(keystore.Tx) error{
			"credential": func(tx keystore.Tx) error {
				return tx.CreateCredentialWithKey(newCredential("a/c", "a"), newKey("k", "a/c"))
			},
			"key": func(tx keystore.Tx) error {
				return tx.CreateCredentialWithKey(newCredential("c", "a"), newKey("a/k", "c"))
			},
			"digest": func(tx keystore.Tx) error { return tx.CreateCredentialWithKey(newCredential("c", "a"), k) },
		} {
			s.Log(name)
			s.refuses(keystore.ErrConflict, create)
			s.lacks("c", "k")
		}
	}},
	{"a credential with its key needs an account that is not deleted, and the update can go on", func(s *suite) {
		s.family("a")
		s.buryAccount("a")
		s.must(func(tx keystore.Tx) error {
			for _, account := range []string{"a", "none"} {
				s.wants(tx.CreateCredentialWithKey(newCredential("c", account), newKey("k", "c")), keystore.ErrNotFound)
			}
			return tx.SetSetting("s", []byte("v"))
		})
		s.lacks("c", "k")
		s.same(string(s.setting("s")), "v")
	}},

	{"an update replaces an account but for Number and CreatedAt", func(s *suite) {
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(fullAccount("a")) })
		s.must(func(tx keystore.Tx) error {
			return tx.UpdateAccount(&keystore.Account{ID: "a", Number: 70, CreatedAt: 71, UpdatedAt: 72})
		})
		s.same(s.account("a"), &keystore.Account{ID: "a", Number: 1, CreatedAt: fullAccount("a").CreatedAt, UpdatedAt: 72})
		want := fullAccount("a")
		s.must(func(tx keystore.Tx) error { return tx.UpdateAccount(fullAccount("a")) })
		want.Number = 1
		s.same(s.account("a"), want)
	}},
	{"an update replaces a credential but for Seq and CreatedAt", func(s *suite) {
		s.family("a", "b")
		first := fullCredential("c", "a")
		s.must(func(tx keystore.Tx) error { return tx.CreateCredential(first) })
		s.must(func(tx keystore.Tx) error {
			return tx.UpdateCredential(&keystore.Credential{ID: "c", AccountID: "b", Seq: 70, CreatedAt: 71, UpdatedAt: 72})
		})
		s.same(s.credential("c"), &keystore.Credential{
			ID: "c", AccountID: "b", Seq: first.Seq, CreatedAt: first.CreatedAt, UpdatedAt: 72,
		})
		s.must(func(tx keystore.Tx) error { return tx.UpdateCredential(fullCredential("c", "a")) })
		s.same(s.credential("c"), first)
	}},
	{"an update replaces a key but for Seq, CreatedAt, Digest, DigestKind and LastUsedAt", func(s *suite) {
		s.family("a", "b")
		first := fullKey("k", "a/c")
		s.must(func(tx keystore.Tx) error { return tx.CreateKey(first) })
		s.must(func(tx keystore.Tx) error {
			return tx.UpdateKey(&keystore.Key{
				ID: "k", CredentialID: "b/c", Seq: 70, CreatedAt: 71,
				Digest: digestOf("other"), DigestKind: keystore.DigestSHA256, LastUsedAt: 72,
			})
		})
		s.same(s.key("k"), &keystore.Key{
			ID: "k", CredentialID: "b/c", Seq: first.Seq, CreatedAt: first.CreatedAt,
			Digest: first.Digest, DigestKind: first.DigestKind, LastUsedAt: first.LastUsedAt,
		})
		s.must(func(tx keystore.Tx) error { return tx.UpdateKey(fullKey("k", "a/c")) })
		s.same(s.key("k"), first)
	}},
	{"an update of what is not there is not found", func(s *suite) {
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateAccount(newAccount("a")) })
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateCredential(newCredential("c", "a")) })
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateKey(newKey("k", "c")) })
	}},
	{"an update that names a parent that is not there is not found", func(s *suite) {
		s.family("a")
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateCredential(newCredential("a/c", "none")) })
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateKey(newKey("a/k", "none")) })
	}},
	{"a tombstone is not updated, and so never comes back", func(s *suite) {
		s.family("a")
		s.buryCredential("a/c")
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateCredential(newCredential("a/c", "a")) })
		s.buryAccount("a")
		s.refuses(keystore.ErrNotFound, func(tx keystore.Tx) error { return tx.UpdateAccount(newAccount("a")) })
	}},
	{"deleted accounts are not found, nor are their credentials; their keys are", func(s *suite) {
		s.family("a", "b")
		s.must(func(tx keystore.Tx) error { return tx.UpdateAccount(withEmail("a", "ada@example.com")) })
		s.buryAccount("a")
		s.view(func(r keystore.Reader) error {
			_, err := r.Account("a")
			s.wants(err, keystore.ErrNotFound)
			_, err = r.AccountByEmail("ada@example.com")
			s.wants(err, keystore.ErrNotFound)
			_, err = r.Credential("a/c")
			s.wants(err, keystore.ErrNotFound)
			return nil
		})
		s.listed(s.allAccounts(), "b")
		s.listed(s.allCredentials("a"))
		s.same(s.key("a/k").ID, "a/k")
		s.listed(s.allKeys("a/c"), "a/k")
	}},
	{"deleted credentials are not found; their keys are", func(s *suite) {
		s.family("a")
		s.must(func(tx keystore.Tx) error { return tx.CreateCredential(newCredential("c", "a")) })
		s.buryCredential("a/c")
		s.view(func(r keystore.Reader) error {
			_, err := r.Credential("a/c")
			s.wants(err, keystore.ErrNotFound)
			unended, err := r.UnendedKeys("a/c", 1)
			s.listed(ids(unended), "a/k")
			return err
		})
		s.listed(s.allCredentials("a"), "c")
		s.same(s.key("a/k").ID, "a/k")
		s.listed(s.allKeys("a/c"), "a/k")
	}},
	{"what is not there is not found", func(s *suite) {
		s.view(func(r keystore.Reader) error {
			_, err := r.Account("none")
			s.wants(err, keystore.ErrNotFound)
			_, err = r.AccountByEmail("none@example.com")
			s.wants(err, keystore.ErrNotFound)
			_, err = r.Credential("none")
			s.wants(err, keystore.ErrNotFound)
			_, err = r.Key("none")
			s.wants(err, keystore.ErrNotFound)
			return nil
		})
	}},
}

func withEmail(id, email string) *keystore.Account {
	a := newAccount(id)
	a.Email = email
	return a
}

// lacks checks that there is neither that credential nor that key.
func (s *suite) lacks(credential, key string) {
	s.Helper()
	s.view(func(r keystore.Reader) error {
		_, err := r.Credential(credential)
		s.wants(err, keystore.ErrNotFound)
		_, err = r.Key(key)
		s.wants(err, keystore.ErrNotFound)
		return nil
	})
	_, err := s.Lookup(s.ctx, digestOf(key))
	s.wants(err, keystore.ErrNotFound)
}
