//go:build reliability

package reliability

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
	"github.com/caddy-apikeys/caddy-apikeys/keystore/sqlstore"
)

// keyringGate is a keyring as a gate.
type keyringGate struct {
	*keystore.Keyring
	t     *testing.T
	vault *keystore.Vault
}

// newKeyringGate is a keyring over a store, with a cache that is too small.
func newKeyringGate(t *testing.T, store keystore.Store) gate {
	t.Helper()
	vault, err := keystore.OpenVault(t.Context(), store, keystore.MinCacheSize, func(problem string, err error) {
		t.Errorf("in the background: %s: %v", problem, err)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vault.Close() })
	kr, err := keystore.NewKeyring(t.Context(), vault, keystore.Config{Packages: []keystore.Package{{Name: "a"}, {Name: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	return keyringGate{kr, t, vault}
}

func (g keyringGate) judge(text string) keystore.Verdict {
	_, v, err := g.Accept(g.t.Context(), text, keystore.Request{
		Requirement: &keystore.Requirement{Packages: [][]string{{"a"}}},
	})
	g.check(err)
	return v
}

func (g keyringGate) issue() raced {
	account, err := g.CreateAccount(g.t.Context(), keystore.Account{})
	g.check(err)
	issued, err := g.Issue(g.t.Context(), keystore.Operator(), keystore.Credential{AccountID: account.ID, Package: "a"})
	g.check(err)
	return raced{issued.Text, issued.Key.ID, issued.Credential.ID, account.ID}
}

func (g keyringGate) revoke(keyID string) {
	_, err := g.RevokeKey(g.t.Context(), keyID, "")
	g.check(err)
}

func (g keyringGate) rotate(credentialID, overlap string) raced {
	o, err := keystore.ParseOverlap(overlap)
	g.check(err)
	issued, err := g.Rotate(g.t.Context(), keystore.Operator(), keystore.Rotation{CredentialID: credentialID, Overlap: o})
	g.check(err)
	return raced{issued.Text, issued.Key.ID, credentialID, issued.Credential.AccountID}
}

func (g keyringGate) changeCredential(id, member string, value any) {
	_, err := g.UpdateCredential(g.t.Context(), keystore.Operator(), id, func(c *keystore.Credential) error {
		switch member {
		case "active":
			c.Active = value.(bool)
		case "package":
			c.Package = value.(string)
		}
		return nil
	})
	g.check(err)
}

func (g keyringGate) changeAccount(id, _ string, value any) {
	_, err := g.UpdateAccount(g.t.Context(), id, func(a *keystore.Account) error {
		a.Active = value.(bool)
		return nil
	})
	g.check(err)
}

func (g keyringGate) deleteCredential(id string) { g.check(g.DeleteCredential(g.t.Context(), id)) }
func (g keyringGate) deleteAccount(id string)    { g.check(g.DeleteAccount(g.t.Context(), id)) }

func (g keyringGate) check(err error) {
	if err != nil {
		g.t.Error(err)
	}
}

// pausingStore returns some look-ups a moment after they were read: the time that
// a busy machine takes, and in which everything can change.
type pausingStore struct{ keystore.Store }

func openStore(t *testing.T) keystore.Store {
	t.Helper()
	store, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "store", "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	return pausingStore{store}
}

func (s pausingStore) Lookup(ctx context.Context, d keystore.Digest) (*keystore.Grant, error) {
	g, err := s.Store.Lookup(ctx, d)
	if rand.N(4) == 0 {
		time.Sleep(rand.N(time.Millisecond))
	}
	return g, err
}

// deletingCache is a cache as it is often made: filled by who misses, and rid of
// what a change touches when that has been committed, before it is answered.
type deletingCache struct {
	keystore.Store
	mu     sync.Mutex
	grants map[keystore.Digest]*keystore.Grant
}

func newDeletingCache(store keystore.Store) *deletingCache {
	return &deletingCache{Store: store, grants: map[keystore.Digest]*keystore.Grant{}}
}

func (c *deletingCache) Lookup(ctx context.Context, d keystore.Digest) (*keystore.Grant, error) {
	c.mu.Lock()
	g, ok := c.grants[d]
	c.mu.Unlock()
	if !ok {
		var err error
		if g, err = c.Store.Lookup(ctx, d); err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.grants[d] = g
		c.mu.Unlock()
	}
	return freshGrant(g), nil
}

// freshGrant copies what these races look at, for a grant belongs to who gets it.
func freshGrant(g *keystore.Grant) *keystore.Grant {
	return &keystore.Grant{
		Digest: g.Digest, DigestKind: g.DigestKind, KeyID: g.KeyID, CredentialID: g.CredentialID, AccountID: g.AccountID,
		Package: g.Package, AccountActive: g.AccountActive, CredentialActive: g.CredentialActive,
		ExpiresAt: g.ExpiresAt, UnusedExpiresAt: g.UnusedExpiresAt, FirstUsedAt: g.FirstUsedAt, RevokedAt: g.RevokedAt,
		Superseded: g.Superseded,
	}
}

func (c *deletingCache) Update(ctx context.Context, change func(keystore.Tx) error) error {
	var touched []keystore.Digest
	err := c.Store.Update(ctx, func(tx keystore.Tx) error { return change(&notingTx{tx, &touched}) })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range touched {
		delete(c.grants, d)
	}
	return err
}

// notingTx notes the digests of what it changes.
type notingTx struct {
	keystore.Tx
	touched *[]keystore.Digest
}

func (tx *notingTx) UpdateKey(k *keystore.Key) error {
	*tx.touched = append(*tx.touched, k.Digest)
	return tx.Tx.UpdateKey(k)
}

func (tx *notingTx) UpdateCredential(c *keystore.Credential) error {
	ds, err := tx.CredentialDigests(c.ID)
	if err != nil {
		return err
	}
	*tx.touched = append(*tx.touched, ds...)
	return tx.Tx.UpdateCredential(c)
}

func (tx *notingTx) UpdateAccount(a *keystore.Account) error {
	ds, err := tx.AccountDigests(a.ID)
	if err != nil {
		return err
	}
	*tx.touched = append(*tx.touched, ds...)
	return tx.Tx.UpdateAccount(a)
}
