package storetest

import (
	"errors"
	"fmt"
	"net/netip"

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
	{"a grant follows every change of its key, credential and account", func(s *suite) {
		a, c, k := newAccount("a"), newCredential("c", "a"), newKey("k", "c")
		other := newAccount("b")
		s.createAll(a, c, k)
		s.createAll(other, newCredential("d", "b"), newKey("l", "d"))
		untouched := s.grant(digestOf("l"))
		for _, change := range changesOf(a, c, k, other) {
			s.must(change.write)
			s.Log(change.what)
			s.same(s.grant(k.Digest), joined(a, c, k))
		}
		s.same(s.grant(digestOf("l")), untouched)
	}},
	{"a grant follows its credential to another account", func(s *suite) {
		c, k := newCredential("c", "a"), newKey("k", "c")
		a, b := newAccount("a"), newAccount("b")
		s.createAll(a, c, k)
		s.must(func(tx keystore.Tx) error { return tx.CreateAccount(b) })
		c.AccountID = "b"
		s.must(func(tx keystore.Tx) error { return tx.UpdateCredential(c) })
		s.same(s.grant(k.Digest), joined(b, c, k))
		a.Email, b.Active = "a@example.com", false
		s.must(func(tx keystore.Tx) error { return errors.Join(tx.UpdateAccount(a), tx.UpdateAccount(b)) })
		s.same(s.grant(k.Digest), joined(b, c, k))
	}},
	{"a grant follows a change to each of many keys", func(s *suite) {
		a, c := newAccount("a"), newCredential("c", "a")
		s.createAll(a, c, newKey("k", "c"))
		s.must(func(tx keystore.Tx) error {
			for i := range 300 {
				if err := tx.CreateKey(newKey(fmt.Sprint(i), "c")); err != nil {
					return err
				}
			}
			return nil
		})
		a.Email, c.Roles = "a@example.com", []string{"new"}
		s.must(func(tx keystore.Tx) error { return errors.Join(tx.UpdateAccount(a), tx.UpdateCredential(c)) })
		for i := range 300 {
			s.same(s.grant(digestOf(fmt.Sprint(i))), joined(a, c, newKey(fmt.Sprint(i), "c")))
		}
	}},
	{"a change that was rolled back is in no grant", func(s *suite) {
		s.family("a")
		before := s.grant(digestOf("a/k"))
		s.refuses(errTest, func(tx keystore.Tx) error {
			k, c, a := newKey("a/k", "a/c"), newCredential("a/c", "a"), newAccount("a")
			k.RevokedAt, c.Active, a.Active = 9, false, false
			return errors.Join(tx.UpdateKey(k), tx.UpdateCredential(c), tx.UpdateAccount(a),
				tx.RecordUses([]keystore.Use{{KeyID: "a/k", First: 1, Last: 1}}), errTest)
		})
		s.same(s.grant(digestOf("a/k")), before)
	}},
	{"a key that is refused for its digest leaves the grant of the key that has it", func(s *suite) {
		s.family("a", "b")
		twin := newKey("twin", "b/c")
		twin.Digest = digestOf("a/k")
		before := s.grant(twin.Digest)
		s.refuses(keystore.ErrConflict, func(tx keystore.Tx) error { return tx.CreateKey(twin) })
		s.must(func(tx keystore.Tx) error { _, err := tx.LoadKey(twin); return err })
		s.same(s.grant(twin.Digest), before)
		s.view(func(r keystore.Reader) error {
			if _, err := r.Key("twin"); !errors.Is(err, keystore.ErrNotFound) {
				s.Errorf("the refused key is there: %v", err)
			}
			return nil
		})
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

// changeOf is a change of one thing that a grant tells.
type changeOf struct {
	what  string
	write func(keystore.Tx) error
}

// changesOf are all of them, to be made in order. Each also changes the record that
// is given, so that the grant must be theirs joined. The account other has no part in it.
func changesOf(a *keystore.Account, c *keystore.Credential, k *keystore.Key, other *keystore.Account) []changeOf {
	account := func(what string, edit func()) changeOf {
		return changeOf{"account " + what, func(tx keystore.Tx) error { edit(); return tx.UpdateAccount(a) }}
	}
	credential := func(what string, edit func()) changeOf {
		return changeOf{"credential " + what, func(tx keystore.Tx) error { edit(); return tx.UpdateCredential(c) }}
	}
	key := func(what string, edit func()) changeOf {
		return changeOf{"key " + what, func(tx keystore.Tx) error { edit(); return tx.UpdateKey(k) }}
	}
	return []changeOf{
		account("gets an address", func() { a.Email = "a@example.com" }),
		account("is deactivated", func() { a.Active = false }),
		account("is activated", func() { a.Active = true }),
		{"another account changes", func(tx keystore.Tx) error {
			other.Company = "Other"
			return tx.UpdateAccount(other)
		}},
		credential("gets roles", func() { c.Roles = []string{"read", "write"} }),
		credential("gets a package", func() { c.Package = "Coverage" }),
		credential("gets addresses", func() { c.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }),
		credential("gets an end", func() { c.ExpiresAt = 1_900_000_000_000 }),
		credential("is deactivated", func() { c.Active = false }),
		credential("is activated, without roles", func() { c.Active, c.Roles = true, nil }),
		key("waits", func() { k.ActivatesAt = 10 }),
		key("gets an end", func() { k.ExpiresAt = 1_800_000_000_000 }),
		key("gets an end unless used", func() { k.UnusedExpiresAt = 1_700_000_000_000 }),
		key("is superseded", func() { k.SupersededBy, k.SupersededAt = "l", 11 }),
		key("is superseded no more", func() { k.SupersededBy, k.SupersededAt = "", 0 }),
		{"key is used", func(tx keystore.Tx) error {
			k.FirstUsedAt = 12
			return tx.RecordUses([]keystore.Use{{KeyID: k.ID, First: 12, Last: 13}})
		}},
		{"key is used again", func(tx keystore.Tx) error {
			return tx.RecordUses([]keystore.Use{{KeyID: k.ID, First: 14, Last: 15}})
		}},
		key("is revoked", func() { k.RevokedAt, k.RevokedReason = 16, "leaked" }),
		credential("is deleted", func() { c.DeletedAt = 17 }),
		account("is deleted", func() { a.DeletedAt = 18 }),
	}
}

// joined is the grant of a key.
func joined(a *keystore.Account, c *keystore.Credential, k *keystore.Key) *keystore.Grant {
	return &keystore.Grant{
		Digest: k.Digest, DigestKind: k.DigestKind, KeyID: k.ID, CredentialID: c.ID, AccountID: a.ID,
		AccountNumber: a.Number, AccountEmail: a.Email, Package: c.Package, Roles: c.Roles, AllowedIPs: c.AllowedIPs,
		AccountActive: a.Active && a.DeletedAt == 0, CredentialActive: c.Active && c.DeletedAt == 0,
		ActivatesAt: k.ActivatesAt, ExpiresAt: k.ExpiresAt, UnusedExpiresAt: k.UnusedExpiresAt,
		FirstUsedAt: k.FirstUsedAt, RevokedAt: k.RevokedAt, Superseded: k.SupersededBy != "",
		CredentialExpiresAt: c.ExpiresAt,
	}
}
