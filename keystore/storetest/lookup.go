package storetest

import (
	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

var lookupRules = []rule{
	{"a digest that no key has is not found", func(s *suite) {
		s.family("a")
		for _, d := range []keystore.Digest{{}, digestOf("a/k2"), digestOf("A/K")} {
			_, err := s.Lookup(s.ctx, d)
			s.wants(err, keystore.ErrNotFound)
		}
	}},
	{"a grant joins key, credential and account", func(s *suite) {
		account, credential := fullAccount("a"), fullCredential("c", "a")
		key := fullKey("k", "c")
		s.createAll(account, credential, key)
		s.same(s.grant(key.Digest), &keystore.Grant{
			Digest: key.Digest, DigestKind: key.DigestKind, KeyID: "k", CredentialID: "c", AccountID: "a",
			AccountNumber: account.Number, AccountEmail: account.Email, Package: credential.Package,
			Roles: credential.Roles, AllowedIPs: credential.AllowedIPs, AccountActive: true, CredentialActive: true,
			ActivatesAt: key.ActivatesAt, ExpiresAt: key.ExpiresAt, UnusedExpiresAt: key.UnusedExpiresAt,
			FirstUsedAt: key.FirstUsedAt, RevokedAt: key.RevokedAt, Superseded: true,
			CredentialExpiresAt: credential.ExpiresAt,
		})
	}},
	{"what is not set is not set in a grant", func(s *suite) {
		s.createAll(&keystore.Account{ID: "a"}, &keystore.Credential{ID: "c", AccountID: "a"},
			&keystore.Key{ID: "k", CredentialID: "c", Digest: digestOf("k")})
		s.same(s.grant(digestOf("k")), &keystore.Grant{
			Digest: digestOf("k"), KeyID: "k", CredentialID: "c", AccountID: "a", AccountNumber: 1,
		})
	}},
	{"each of account and credential is active on its own", func(s *suite) {
		for _, on := range []struct{ account, credential bool }{{true, false}, {false, true}} {
			id := map[bool]string{true: "x", false: "y"}[on.account]
			a, c := newAccount(id), newCredential(id+"/c", id)
			a.Active, c.Active = on.account, on.credential
			s.createAll(a, c, newKey(id+"/k", id+"/c"))
			g := s.grant(digestOf(id + "/k"))
			if g.AccountActive != on.account || g.CredentialActive != on.credential {
				s.Errorf("account active %t, credential active %t, want %+v", g.AccountActive, g.CredentialActive, on)
			}
		}
	}},
	{"the keys of deleted accounts and credentials are found, inactive", func(s *suite) {
		s.family("a", "b")
		s.buryAccount("a")
		s.buryCredential("b/c")
		if g := s.grant(digestOf("a/k")); g.AccountActive {
			s.Error("deleted account is active")
		}
		if g := s.grant(digestOf("b/k")); g.CredentialActive || !g.AccountActive {
			s.Errorf("credential active %t, account active %t, want false and true", g.CredentialActive, g.AccountActive)
		}
	}},
	{"a key is found whatever its state", func(s *suite) {
		s.family("a")
		for _, change := range []func(*keystore.Key){
			func(k *keystore.Key) { k.RevokedAt = 1 },
			func(k *keystore.Key) { k.ExpiresAt = 1 },
			func(k *keystore.Key) { k.ActivatesAt = 1 << 50 },
		} {
			s.must(func(tx keystore.Tx) error {
				k := newKey("a/k", "a/c")
				change(k)
				return tx.UpdateKey(k)
			})
			s.grant(digestOf("a/k"))
		}
	}},
	{"each look-up returns a grant of its own", func(s *suite) {
		s.createAll(newAccount("a"), fullCredential("c", "a"), newKey("k", "c"))
		first, second := s.grant(digestOf("k")), s.grant(digestOf("k"))
		if first == second {
			s.Fatal("two look-ups returned the same grant")
		}
		first.Roles[0] = "changed"
		if second.Roles[0] == "changed" {
			s.Error("two grants share their roles")
		}
	}},
	{"a look-up sees every update that returned", func(s *suite) {
		s.family("a")
		for i := range 50 {
			want := keystore.Instant(i + 1)
			s.must(func(tx keystore.Tx) error {
				k := newKey("a/k", "a/c")
				k.RevokedAt = want
				return tx.UpdateKey(k)
			})
			if got := s.grant(digestOf("a/k")).RevokedAt; got != want {
				s.Fatalf("revoked at %d, want %d", got, want)
			}
		}
	}},
	{"a look-up does not wait for an update that is running, nor see it", func(s *suite) {
		s.family("a")
		s.must(func(tx keystore.Tx) error {
			k := newKey("a/k", "a/c")
			k.RevokedAt = 5
			if err := tx.UpdateKey(k); err != nil {
				return err
			}
			if got := s.grant(digestOf("a/k")).RevokedAt; got != 0 {
				s.Errorf("revoked at %d before the commit", got)
			}
			return nil
		})
	}},
}

// grant looks up a key that has to be there.
func (s *suite) grant(d keystore.Digest) *keystore.Grant {
	s.Helper()
	g, err := s.Lookup(s.ctx, d)
	if err != nil {
		s.Fatalf("Lookup: %v", err)
	}
	return g
}

func (s *suite) createAll(a *keystore.Account, c *keystore.Credential, k *keystore.Key) {
	s.Helper()
	s.must(func(tx keystore.Tx) error {
		if err := tx.CreateAccount(a); err != nil {
			return err
		}
		if err := tx.CreateCredential(c); err != nil {
			return err
		}
		return tx.CreateKey(k)
	})
}
