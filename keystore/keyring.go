package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Config is what a configuration decides about keys.
type Config struct {
	// Packages are the declared packages. With at least one declared, every new
	// credential must be of one.
	Packages []Package
	// Prefix of token keys. Default: "key".
	Prefix string
	// Pepper, if set, makes new digests HMAC-SHA-256 under it. The store
	// remembers its fingerprint.
	Pepper []byte
	// MasterKey, if set, is the 32 bytes of an AES-256 key under which the
	// texts of new keys are sealed, so that they can be shown again.
	MasterKey []byte
	// OnChange, if set, is called after each change, outside of transactions.
	OnChange func(Change)
}

// Validate reports what is wrong with the prefix and the packages.
func (c Config) Validate() error {
	_, err := c.packages()
	return err
}

func (c Config) packages() (packages, error) {
	prefix := c.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if !ValidPrefix(prefix) {
		return packages{}, fmt.Errorf("key_prefix %q: use a lower-case letter and 1 to 15 lower-case letters or digits", prefix)
	}
	return newPackages(c.Packages, prefix)
}

// Change says what was changed, by ids only.
type Change struct {
	// Kind is one of the Change constants.
	Kind ChangeKind
	// The ids concerned; empty where a kind has none.
	AccountID, CredentialID, KeyID string
}

// ChangeKind names a kind of change, as in the event "api_keys.<kind>".
type ChangeKind string

// The kinds of changes.
const (
	ChangeAccountCreated    ChangeKind = "account_created"
	ChangeAccountUpdated    ChangeKind = "account_updated"
	ChangeAccountDeleted    ChangeKind = "account_deleted"
	ChangeIssued            ChangeKind = "issued"
	ChangeCredentialUpdated ChangeKind = "credential_updated"
	ChangeCredentialDeleted ChangeKind = "credential_deleted"
	ChangeRotated           ChangeKind = "rotated"
	ChangeKeyUpdated        ChangeKind = "key_updated"
	ChangeFirstUsed         ChangeKind = "first_used"
	ChangeRevoked           ChangeKind = "revoked"
	ChangeImported          ChangeKind = "imported"
)

// Keyring is every rule of the domain, once, over a [Vault]. All methods may be
// called concurrently. Refusals that a caller may see are of type [*Error];
// beside those, methods return ErrNotFound and ErrUnavailable of the store.
type Keyring struct {
	vault    *Vault
	packages packages
	hasher   hasher
	sealer   *sealer
	onChange func(Change)
}

// ErrPepper means that the store holds keys made under another pepper than the
// one configured, or that none is configured.
var ErrPepper = errors.New("the store holds keys made under another pepper than the one configured, or none is configured: configure the pepper that was used with this store")

const pepperSetting = "pepper"

// NewKeyring makes a keyring. It returns ErrPepper if the store holds keys made
// under another pepper.
func NewKeyring(ctx context.Context, vault *Vault, config Config) (*Keyring, error) {
	packages, err := config.packages()
	if err != nil {
		return nil, err
	}
	sealer, err := newSealer(config.MasterKey)
	if err != nil {
		return nil, err
	}
	kr := &Keyring{vault, packages, newHasher(config.Pepper), sealer, config.OnChange}
	if kr.onChange == nil {
		kr.onChange = func(Change) {}
	}
	return kr, kr.checkPepper(ctx)
}

// checkPepper refuses a store that is held to another pepper.
func (kr *Keyring) checkPepper(ctx context.Context) error {
	return kr.vault.View(ctx, func(r Reader) error {
		_, err := kr.pepperClaimed(r)
		return err
	})
}

// claimPepper holds the store to one pepper for ever. It is part of the
// transaction that stores the first key made under it: a configuration that was
// tried and refused leaves no trace.
func (kr *Keyring) claimPepper(tx Tx) error {
	claimed, err := kr.pepperClaimed(tx)
	switch {
	case errors.Is(err, ErrPepper):
		return conflict(ErrConflict, "", "keys of this store are made under another pepper than the one configured here")
	case claimed || err != nil:
		return err
	}
	return tx.SetSetting(pepperSetting, kr.hasher.fingerprint())
}

// pepperClaimed reports whether nothing is left to be claimed.
func (kr *Keyring) pepperClaimed(r Reader) (bool, error) {
	known, err := r.Setting(pepperSetting)
	if err == nil && known != nil && !slices.Equal(known, kr.hasher.fingerprint()) {
		err = ErrPepper
	}
	return known != nil || !kr.hasher.peppered(), err
}

// Now is the time by which verdicts are made.
func (kr *Keyring) Now() Instant { return kr.vault.Now() }

// Cluster returns what is known of the cluster, false if the store is not shared.
func (kr *Keyring) Cluster() (ClusterInfo, bool) { return kr.vault.Cluster() }

// Packages returns the names of the declared packages, sorted.
func (kr *Keyring) Packages() []string { return kr.packages.names() }

// View runs read with a consistent snapshot of the records. Everything that
// reads without a rule of its own goes through it.
func (kr *Keyring) View(ctx context.Context, read func(Reader) error) error {
	return kr.vault.View(ctx, read)
}

// Also is what a change does beside, in its own transaction, with what it made:
// it reads, or writes what must be there if and only if the change is. Like the
// change it may run more than once. Its error undoes the change.
type Also[T any] func(Tx, T) error

func runAlso[T any](tx Tx, made T, also []Also[T]) error {
	for _, run := range also {
		if err := run(tx, made); err != nil {
			return err
		}
	}
	return nil
}

// CreateAccount stores a new account, active, with a UUIDv7 for an id unless it
// has one. ErrConflict says that the id or the e-mail address is taken. Also runs
// last in the transaction.
func (kr *Keyring) CreateAccount(ctx context.Context, a Account, also ...Also[*Account]) (*Account, error) {
	if a.ID == "" {
		a.ID = newID()
	}
	a.Active, a.DeletedAt = true, 0
	a.CreatedAt = kr.Now()
	a.UpdatedAt = a.CreatedAt
	if err := a.validate(); err != nil {
		return nil, err
	}
	err := kr.vault.Update(ctx, func(tx Tx) error {
		if err := emailFree(tx, &a); err != nil {
			return err
		}
		if err := tx.CreateAccount(&a); err != nil {
			return taken(err, "id", "an account with this id exists, or existed")
		}
		return runAlso(tx, &a, also)
	})
	if err != nil {
		return nil, err
	}
	kr.onChange(Change{Kind: ChangeAccountCreated, AccountID: a.ID})
	return &a, nil
}

// UpdateAccount changes an account with edit, which must not change what
// identifies it and may be called more than once.
func (kr *Keyring) UpdateAccount(ctx context.Context, id string, edit func(*Account) error) (*Account, error) {
	var a *Account
	err := kr.vault.Update(ctx, func(tx Tx) (err error) {
		if a, err = tx.Account(id); err != nil {
			return err
		}
		if err := edit(a); err != nil {
			return err
		}
		a.UpdatedAt = kr.Now()
		if err := a.validate(); err != nil {
			return err
		}
		if err := emailFree(tx, a); err != nil {
			return err
		}
		return tx.UpdateAccount(a)
	})
	if err != nil {
		return nil, err
	}
	kr.onChange(Change{Kind: ChangeAccountUpdated, AccountID: id})
	return a, nil
}

// DeleteAccount revokes all keys of the account, for ever, and removes it and
// its credentials. A tombstone without personal data stays, so that the keys
// are known as revoked and the id is not given again.
func (kr *Keyring) DeleteAccount(ctx context.Context, id string) error {
	err := kr.vault.Update(ctx, func(tx Tx) error {
		a, err := tx.Account(id)
		if err != nil {
			return err
		}
		credentials, err := tx.Credentials(id, Page{})
		if err != nil {
			return err
		}
		now := kr.Now()
		for _, c := range credentials {
			if err := bury(tx, c, now, "account deleted"); err != nil {
				return err
			}
		}
		return tx.UpdateAccount(&Account{
			ID: a.ID, Number: a.Number, CreatedAt: a.CreatedAt, UpdatedAt: now, DeletedAt: now,
		})
	})
	if err == nil {
		kr.onChange(Change{Kind: ChangeAccountDeleted, AccountID: id})
	}
	return err
}

// UpdateCredential changes a credential with edit, which must not change what
// identifies it and may be called more than once. The actor must be one who may
// obtain a key of what it becomes.
func (kr *Keyring) UpdateCredential(ctx context.Context, actor Actor, id string, edit func(*Credential) error) (*Credential, error) {
	var c *Credential
	err := kr.vault.Update(ctx, func(tx Tx) (err error) {
		if c, err = tx.Credential(id); err != nil {
			return err
		}
		old := *c
		if err := edit(c); err != nil {
			return err
		}
		actor, err := kr.Current(tx, actor)
		if err != nil {
			return err
		}
		if c.Package != old.Package {
			if _, err := kr.packageFor(actor, c.Package); err != nil {
				return err
			}
		}
		c.UpdatedAt = kr.Now()
		if c.ExpiresAt != old.ExpiresAt && c.ExpiresAt.reached(c.UpdatedAt) {
			return invalid("expires_at", "must be in the future; to stop a credential now, deactivate or delete it")
		}
		if err := c.validate(); err != nil {
			return err
		}
		if err := kr.MayObtain(actor, c); err != nil {
			return err
		}
		return tx.UpdateCredential(c)
	})
	if err != nil {
		return nil, err
	}
	kr.onChange(Change{Kind: ChangeCredentialUpdated, AccountID: c.AccountID, CredentialID: id})
	return c, nil
}

// DeleteCredential revokes all keys of the credential, for ever, and removes
// it.
func (kr *Keyring) DeleteCredential(ctx context.Context, id string) error {
	var account string
	err := kr.vault.Update(ctx, func(tx Tx) error {
		c, err := tx.Credential(id)
		if err != nil {
			return err
		}
		account = c.AccountID
		return bury(tx, c, kr.Now(), "credential deleted")
	})
	if err == nil {
		kr.onChange(Change{Kind: ChangeCredentialDeleted, AccountID: account, CredentialID: id})
	}
	return err
}

// bury revokes what can still work of a credential and leaves its tombstone.
func bury(tx Tx, c *Credential, now Instant, reason string) error {
	keys, err := tx.UnendedKeys(c.ID, now)
	if err != nil {
		return err
	}
	for _, k := range keys {
		k.RevokedAt, k.RevokedReason = now, reason
		if err := tx.UpdateKey(k); err != nil {
			return err
		}
	}
	return tx.UpdateCredential(&Credential{
		ID: c.ID, AccountID: c.AccountID, Package: c.Package,
		CreatedAt: c.CreatedAt, UpdatedAt: now, DeletedAt: now,
	})
}

// emailFree refuses an e-mail address that another account has.
func emailFree(tx Reader, a *Account) error {
	if a.Email == "" {
		return nil
	}
	other, err := tx.AccountByEmail(a.Email)
	if isNotFound(err) || (err == nil && other.ID == a.ID) {
		return nil
	}
	if err != nil {
		return err
	}
	return conflict(ErrConflict, "email", "an account with this e-mail address exists")
}

// newID makes a UUIDv7 (RFC 9562).
func newID() string { return uuid.Must(uuid.NewV7()).String() }
