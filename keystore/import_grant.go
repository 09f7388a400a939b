package keystore

import (
	"maps"
	"slices"
)

// This file imports keys that are in use elsewhere, each with what it is for in
// one record.

// grantRecord is a key with its credential, whose account is found or made.
type grantRecord struct {
	account    Account // its ID, its Email, or both
	credential Credential
	key        keyRecord
	maxKeys    int
}

// named is how a grant names its account.
type named struct{ id, email string }

// load looks first whether the key is there: the ids that it would make are others
// each time.
func (r *grantRecord) load(in *importing) error {
	there, err := in.keyOf(&r.key, r.key.Digest)
	if err != nil {
		return err
	}
	if there != nil {
		return r.sameAs(in, there)
	}
	c := r.credential
	if c.AccountID, err = in.accountOf(r.account); err != nil {
		return err
	}
	if c.ID == "" {
		c.ID = newID()
	}
	stored, existing, err := in.loadCredential(c)
	if err != nil {
		return err
	}
	if !stored {
		if err := r.mayJoin(in, existing, c.AccountID); err != nil {
			return err
		}
	}
	there, err = in.loadKey(&r.key, c.ID)
	if there != nil {
		return conflict(ErrConflict, "secret", "another key has the id that is in this one's text")
	}
	return err
}

// accountOf returns the id of the account that a grant names, which is made if
// there is none.
func (in *importing) accountOf(a Account) (string, error) {
	name := named{a.ID, EmailKey(a.Email)}
	if id, known := in.accounts[name]; known {
		return id, nil
	}
	there, err := in.findAccount(a)
	if isNotFound(err) {
		if a.ID == "" {
			a.ID = newID()
		}
		a.Active = true
		err = (&accountRecord{a}).load(in)
		there = &a
	}
	if err != nil {
		return "", err
	}
	if a.Email != "" && EmailKey(there.Email) != EmailKey(a.Email) {
		return "", conflict(ErrConflict, "email", "the account has another e-mail address")
	}
	in.accounts[name] = there.ID
	return there.ID, nil
}

func (in *importing) findAccount(a Account) (*Account, error) {
	if a.ID != "" {
		return in.Account(a.ID)
	}
	return in.AccountByEmail(a.Email)
}

// mayJoin refuses a key for a credential that is there, unless that is what the
// grant says and has room for it.
func (r *grantRecord) mayJoin(in *importing, there *Credential, accountID string) error {
	if there.DeletedAt != 0 {
		return conflict(ErrConflict, "credential_id", "a credential with this id existed, and was deleted")
	}
	if err := r.sameCredential(there, accountID); err != nil {
		return err
	}
	return in.kr.underCap(in.Tx, Rotation{CredentialID: there.ID, Overlap: Overlap{UntilFirstUse: true}}, r.maxKeys, in.now)
}

// sameAs refuses the grant unless it is that of the key there.
func (r *grantRecord) sameAs(in *importing, there *Key) error {
	if r.credential.ID != "" && r.credential.ID != there.CredentialID {
		return conflict(ErrConflict, "credential_id", "the key exists, with another credential")
	}
	c, err := in.Credential(there.CredentialID)
	if isNotFound(err) {
		return conflict(ErrConflict, "", "the key existed, and was deleted with its credential")
	}
	if err != nil {
		return err
	}
	a, err := in.Account(c.AccountID)
	if err != nil {
		return err
	}
	if r.account.ID != "" && r.account.ID != a.ID {
		return conflict(ErrConflict, "account_id", "the key exists, with another account")
	}
	if r.account.Email != "" && EmailKey(r.account.Email) != EmailKey(a.Email) {
		return conflict(ErrConflict, "email", "the key exists, and its account has another e-mail address")
	}
	return r.sameCredential(c, a.ID)
}

func (r *grantRecord) sameCredential(there *Credential, accountID string) error {
	c := &r.credential
	return differs("credential",
		member{"account_id", there.AccountID == accountID},
		member{"package", c.Package == there.Package},
		member{"roles", slices.Equal(c.Roles, there.Roles)},
		member{"description", c.Description == there.Description},
		member{"allowed_ips", slices.Equal(c.AllowedIPs, there.AllowedIPs)},
		member{"metadata", maps.Equal(c.Metadata, there.Metadata)},
		member{"expires_at", c.ExpiresAt == there.ExpiresAt})
}
