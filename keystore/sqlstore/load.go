package sqlstore

import (
	"errors"
	"fmt"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file stores records as they are elsewhere. The common case, in which
// nothing is in the way and the owner was stored in the same transaction, is one
// statement.

// owners are the ids of accounts and credentials that a transaction knows to exist,
// and not to be tombstones.
type owners map[owner]bool

type owner struct {
	kind statement // accountDeleted or credentialDeleted, which find it
	id   string
}

// LoadAccount implements keystore.Tx.
func (t *transaction) LoadAccount(a *keystore.Account) (*keystore.Account, error) {
	const op = "load account"
	values, err := accountValues(a, int64(a.CreatedAt))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	stored, err := t.load(op, loadAccount, append(values, a.Number))
	if stored && a.DeletedAt == 0 {
		t.live(owner{accountDeleted, a.ID})
	}
	if stored || err != nil {
		return nil, err
	}
	ways := []way{{anyAccount, a.ID}}
	if key := emailKey(a); key != nil {
		ways = append(ways, way{anyAccountByEmail, key})
	}
	return inTheWay(t, op, scanAccount, append(ways, way{anyAccountByNumber, a.Number}))
}

// LoadCredential implements keystore.Tx.
func (t *transaction) LoadCredential(c *keystore.Credential) (*keystore.Credential, error) {
	const op = "load credential"
	values, err := credentialValues(c, int64(c.CreatedAt))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	ways := []way{{anyCredential, c.ID}}
	stored, err := t.loadOwned(op, owner{accountDeleted, c.AccountID}, c.DeletedAt != 0, loadCredential, values)
	if stored && c.DeletedAt == 0 {
		t.live(owner{credentialDeleted, c.ID})
	}
	if stored || err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return nil, err
	}
	return inTheWay(t, op, scanCredential, ways)
}

// LoadKey implements keystore.Tx.
func (t *transaction) LoadKey(k *keystore.Key) (*keystore.Key, error) {
	const op = "load key"
	ends := k.RevokedAt != 0 || k.ExpiresAt != 0
	stored, err := t.loadOwned(op, owner{credentialDeleted, k.CredentialID}, ends, loadKey, insertKeyValues(k))
	if stored {
		stored, err = t.loadGrant(op, k)
	}
	if stored || err != nil && !errors.Is(err, keystore.ErrNotFound) {
		return nil, err
	}
	return inTheWay(t, op, scanKey, []way{{keyByID, k.ID}, {keyByDigest, k.Digest[:]}})
}

// loadGrant makes the grant of a key that was stored. If another key has the
// digest, the key is taken back.
func (t *transaction) loadGrant(op string, k *keystore.Key) (stored bool, err error) {
	stored, err = t.load(op, loadGrant, newGrant(k))
	if stored || err != nil {
		return stored, err
	}
	return false, t.put(op, takeKeyBack, k.ID)
}

// KeyOf implements keystore.Tx.
func (t *transaction) KeyOf(digest keystore.Digest) (*keystore.Key, error) {
	return one(&t.reader, "read key by digest", scanKey, keyByDigest, digest[:])
}

// loadOwned is load for a record with an owner, which must be no tombstone unless
// the record ends by itself.
func (t *transaction) loadOwned(op string, by owner, ends bool, id statement, values []any) (stored bool, err error) {
	if !t.owners[by] {
		deleted, err := one(&t.reader, op, scanNumber, by.kind, by.id)
		if err != nil {
			return false, err
		}
		if deleted != 0 && !ends {
			return false, notFound(op)
		}
		if deleted == 0 {
			t.live(by)
		}
	}
	return t.load(op, id, values)
}

// live notes an owner.
func (t *transaction) live(o owner) {
	if t.owners == nil {
		t.owners = owners{}
	}
	t.owners[o] = true
}

// load runs a statement that stores a record, or nothing.
func (t *transaction) load(op string, id statement, values []any) (stored bool, err error) {
	err = t.with(op, func(s *session) error {
		result, err := s.exec(id, values...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		stored = n > 0
		return err
	})
	return stored, err
}

// way is where a record can be that is in the way of another.
type way struct {
	find statement
	by   any
}

// inTheWay returns the first record that is in the way of one that was not
// stored. If there is none, its owner is missing.
func inTheWay[T any](t *transaction, op string, scan func(row) (*T, error), ways []way) (*T, error) {
	for _, w := range ways {
		there, err := one(&t.reader, op, scan, w.find, w.by)
		if !errors.Is(err, keystore.ErrNotFound) {
			return there, err
		}
	}
	return nil, notFound(op)
}
