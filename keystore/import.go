package keystore

import (
	"context"
	"errors"
	"maps"
	"slices"
)

// This file brings records in that are elsewhere: keys that are in use already,
// and whole stores. What a record must be is in import_record.go.

// Record is something to import. The Record functions of a [Keyring] make it, and
// check all that can be known of it without the store.
type Record interface {
	// load stores the record, or finds that it is there.
	load(*importing) error
}

// Imported counts what an import stored. What was there already is not counted.
type Imported struct {
	Accounts, Credentials, Keys int
}

// Add adds what another import stored.
func (i *Imported) Add(other Imported) {
	i.Accounts += other.Accounts
	i.Credentials += other.Credentials
	i.Keys += other.Keys
}

// importing is the transaction of an import.
type importing struct {
	Tx
	kr     *Keyring
	now    Instant
	stored Imported
	// claimed says that the store is held to the pepper.
	claimed bool
	// accounts are the ids of those that grants named, by what they named.
	accounts map[named]string
}

// Import stores records in one transaction and in their order. The error, if any,
// is about records[done]; those before it are stored, and that one and those
// behind it are not. Of an error that is not about a record, done is 0.
//
// A record that is there already changes nothing, so that an import can be
// repeated. One that is there with another content is an ErrConflict: an import
// changes nothing that exists. What became of a key since, its uses and its end,
// is no other content.
func (kr *Keyring) Import(ctx context.Context, records []Record) (stored Imported, done int, err error) {
	var refusal error
	for done = len(records); done > 0; {
		bad := 0
		err := kr.vault.Update(ctx, func(tx Tx) (err error) {
			in := &importing{Tx: tx, kr: kr, now: kr.Now(), accounts: map[named]string{}}
			bad, err = in.loadAll(records[:done])
			stored = in.stored
			return err
		})
		if err == nil {
			return stored, done, refusal
		}
		if _, refused := errors.AsType[*Error](err); !refused {
			return Imported{}, 0, err
		}
		// Everything was rolled back, so that no record is half there. What stands
		// before the bad one is stored in another transaction.
		done, refusal = bad, err
	}
	return Imported{}, 0, refusal
}

// loadAll returns the index of the record that is refused.
func (in *importing) loadAll(records []Record) (int, error) {
	for i, r := range records {
		if err := r.load(in); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// FinishImport tells the world of an import that changed something.
func (kr *Keyring) FinishImport(stored Imported) {
	if stored != (Imported{}) {
		kr.onChange(Change{Kind: ChangeImported})
	}
}

func (r *accountRecord) load(in *importing) error {
	a := r.Account
	if a.CreatedAt == 0 {
		a.CreatedAt = in.now
	}
	if a.UpdatedAt == 0 {
		a.UpdatedAt = a.CreatedAt
	}
	there, err := in.LoadAccount(&a)
	if err != nil {
		return err
	}
	if there != nil {
		return r.sameAs(there)
	}
	in.stored.Accounts++
	return nil
}

// sameAs refuses the record unless it is that of the account in its way.
func (r *accountRecord) sameAs(there *Account) error {
	switch {
	case there.ID != r.ID && r.Email != "" && EmailKey(there.Email) == EmailKey(r.Email):
		return conflict(ErrConflict, "email", "another account has this e-mail address")
	case there.ID != r.ID:
		return conflict(ErrConflict, "number", "another account has this number")
	case there.DeletedAt != 0 && r.DeletedAt == 0:
		return conflict(ErrConflict, "id", "an account with this id existed, and was deleted")
	case there.DeletedAt == 0 && r.DeletedAt != 0:
		return conflict(ErrConflict, "deleted_at", "the account exists, and is not deleted")
	}
	return differs("account",
		member{"number", r.Number == 0 || r.Number == there.Number},
		member{"email", r.Email == there.Email},
		member{"active", r.Active == there.Active || r.DeletedAt != 0},
		member{"roles", slices.Equal(r.Roles, there.Roles)},
		member{"first_name", r.FirstName == there.FirstName},
		member{"last_name", r.LastName == there.LastName},
		member{"company", r.Company == there.Company},
		member{"phone", r.Phone == there.Phone},
		member{"address", r.Address == there.Address},
		member{"siren", r.SIREN == there.SIREN},
		member{"attributes", maps.Equal(r.Attributes, there.Attributes)},
		member{"created_at", r.CreatedAt == 0 || r.CreatedAt == there.CreatedAt})
}

func (r *credentialRecord) load(in *importing) error {
	stored, there, err := in.loadCredential(r.Credential)
	if stored || err != nil {
		return err
	}
	return r.sameAs(there)
}

// loadCredential stores a credential, or returns the one that has its id.
func (in *importing) loadCredential(c Credential) (stored bool, there *Credential, err error) {
	if c.CreatedAt == 0 {
		c.CreatedAt = in.now
	}
	if c.UpdatedAt == 0 {
		c.UpdatedAt = c.CreatedAt
	}
	there, err = in.LoadCredential(&c)
	switch {
	case isNotFound(err):
		return false, nil, invalid("account_id", "there is no such account: it must be in a line before this one")
	case err != nil || there != nil:
		return false, there, err
	}
	in.stored.Credentials++
	return true, nil, nil
}

// sameAs refuses the record unless it is that of the credential there.
func (r *credentialRecord) sameAs(there *Credential) error {
	switch {
	case there.DeletedAt != 0 && r.DeletedAt == 0:
		return conflict(ErrConflict, "id", "a credential with this id existed, and was deleted")
	case there.DeletedAt == 0 && r.DeletedAt != 0:
		return conflict(ErrConflict, "deleted_at", "the credential exists, and is not deleted")
	}
	return differs("credential",
		member{"account_id", r.AccountID == there.AccountID},
		member{"package", r.Package == there.Package},
		member{"active", r.Active == there.Active || r.DeletedAt != 0},
		member{"roles", slices.Equal(r.Roles, there.Roles)},
		member{"description", r.Description == there.Description},
		member{"allowed_ips", slices.Equal(r.AllowedIPs, there.AllowedIPs)},
		member{"metadata", maps.Equal(r.Metadata, there.Metadata)},
		member{"expires_at", r.ExpiresAt == there.ExpiresAt},
		member{"created_at", r.CreatedAt == 0 || r.CreatedAt == there.CreatedAt})
}

func (r *keyRecord) load(in *importing) error {
	there, err := in.keyOf(r)
	if err == nil && there == nil {
		there, err = in.loadKey(r, r.CredentialID)
	}
	if there == nil || err != nil {
		return err
	}
	return r.sameAs(there, r.CredentialID)
}

// keyOf finds the key of a text that was stored before there was a pepper, or
// with a grant; nil if there is none.
func (in *importing) keyOf(r *keyRecord, further ...Digest) (*Key, error) {
	if r.plain != nil {
		further = append(further, *r.plain)
	}
	for _, d := range further {
		if there, err := in.KeyOf(d); !isNotFound(err) {
			return there, err
		}
	}
	return nil, nil
}

// loadKey stores a key, or returns the one in its way.
func (in *importing) loadKey(r *keyRecord, credentialID string) (*Key, error) {
	if r.DigestKind == DigestHMACSHA256 && !in.claimed {
		if err := in.kr.claimPepper(in.Tx); err != nil {
			return nil, err
		}
		in.claimed = true
	}
	k := r.Key
	k.CredentialID = credentialID
	if k.ID == "" {
		k.ID = r.made
	}
	if k.CreatedAt == 0 {
		k.CreatedAt = in.now
	}
	there, err := in.LoadKey(&k)
	switch {
	case isNotFound(err):
		return nil, invalid("credential_id", "there is no such credential: it must be in a line before this one, and not deleted unless the key has ended")
	case err != nil || there != nil:
		return there, err
	}
	in.stored.Keys++
	return nil, nil
}

// sameAs refuses the record unless it is that of the key in its way, which has
// ended since, or will not outlive it.
func (r *keyRecord) sameAs(there *Key, credentialID string) error {
	sameDigest := there.Digest == r.Digest || (r.plain != nil && there.Digest == *r.plain)
	switch {
	case !sameDigest:
		return conflict(ErrConflict, "id", "another key has this id")
	case r.ID != "" && r.ID != there.ID:
		return conflict(ErrConflict, "id", "the key exists under the id %s", there.ID)
	}
	ended := there.RevokedAt != 0
	return differs("key",
		member{"credential_id", credentialID == there.CredentialID},
		member{"digest_kind", there.Digest != r.Digest || r.DigestKind == there.DigestKind},
		member{"created_at", r.CreatedAt == 0 || r.CreatedAt == there.CreatedAt},
		member{"activates_at", r.ActivatesAt == there.ActivatesAt},
		member{"revoked_at", ended || r.RevokedAt == 0},
		member{"expires_at", ended || earlier(there.ExpiresAt, r.ExpiresAt) == there.ExpiresAt},
		member{"unused_expires_at", ended || r.UnusedExpiresAt == there.UnusedExpiresAt})
}

// member is whether a member of a record is that of what is there.
type member struct {
	name string
	same bool
}

// differs names the first member in which a record is another than what is there.
func differs(kind string, members ...member) error {
	for _, m := range members {
		if !m.same {
			return conflict(ErrConflict, m.name, "the %s exists with another value, and an import changes nothing that exists", kind)
		}
	}
	return nil
}
