package keystore

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"slices"
	"strings"
)

// This file says what can be imported, as far as that is known without the store.

type (
	accountRecord    struct{ Account }
	credentialRecord struct{ Credential }
	// keyRecord is a key without the id and times that it did not bring.
	keyRecord struct {
		Key
		// made is the id that the key gets if it brings none.
		made string
		// plain, if set, is the other digest under which the text may be there.
		plain *Digest
	}
)

// Material is what an imported key is recognised by: its text, or a digest of it.
type Material struct {
	// Text is the key's text. It is digested as that of a new key is.
	Text string
	// Digest is that of the text if there is no Text, of the kind Kind.
	Digest []byte
	// Kind of Digest. Default: sha256.
	Kind DigestKind
	// Pepper is the fingerprint of the pepper of an HMAC: see
	// [Keyring.PepperFingerprint].
	Pepper []byte
}

// PepperFingerprint tells peppers apart: the first 16 bytes of the HMAC-SHA-256 of
// "api_keys pepper fingerprint" under the pepper. It is nil without one.
func (kr *Keyring) PepperFingerprint() []byte { return kr.hasher.fingerprint() }

// AccountRecord checks an account to import. What is not set of ID, Number and
// times is made.
func (kr *Keyring) AccountRecord(a Account) (Record, error) {
	if a.ID == "" {
		return nil, invalid("id", "is required, so that the import can be repeated")
	}
	if a.Number < 0 {
		return nil, invalid("number", "must be 1 or more")
	}
	if err := a.validate(); err != nil {
		return nil, err
	}
	if a.DeletedAt != 0 {
		a = Account{ID: a.ID, Number: a.Number, CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, DeletedAt: a.DeletedAt}
	}
	return &accountRecord{a}, nil
}

// CredentialRecord checks a credential to import, as it is elsewhere: it gets no
// roles of its package, which must be declared.
func (kr *Keyring) CredentialRecord(c Credential) (Record, error) {
	if c.DeletedAt == 0 {
		if _, err := kr.packages.find(c.Package); err != nil {
			return nil, err
		}
	}
	return kr.ExportedCredentialRecord(c)
}

// ExportedCredentialRecord is CredentialRecord for a credential that another store
// has, as an export says: its package may be one that is not declared any more.
func (kr *Keyring) ExportedCredentialRecord(c Credential) (Record, error) {
	if !ValidID(c.AccountID) {
		return nil, invalid("account_id", "must be the id of an account")
	}
	if err := checkCredentialID("id", c.ID); err != nil {
		return nil, err
	}
	if err := checkText("package", c.Package, maxText); err != nil {
		return nil, err
	}
	if c.DeletedAt != 0 {
		return &credentialRecord{Credential{ID: c.ID, AccountID: c.AccountID, Package: c.Package,
			CreatedAt: c.CreatedAt, UpdatedAt: c.UpdatedAt, DeletedAt: c.DeletedAt}}, nil
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &credentialRecord{c}, nil
}

// KeyRecord checks a key to import, as it is elsewhere.
func (kr *Keyring) KeyRecord(k Key, m Material) (Record, error) {
	if err := checkCredentialID("credential_id", k.CredentialID); err != nil {
		return nil, err
	}
	return kr.keyRecord(k, m)
}

// GrantRecord checks a key that is in use elsewhere, with its credential, which
// gets what a new one gets of its package, and with the ID or Email of its account,
// or both. Account and credential are made if they are not there.
func (kr *Keyring) GrantRecord(a Account, c Credential, k Key, m Material) (Record, error) {
	switch {
	case a.ID == "" && a.Email == "":
		return nil, invalid("account_id", "is required, or email")
	case a.ID != "" && !ValidID(a.ID):
		return nil, invalid("account_id", "must be 1 to 128 letters, digits, '.', '_', ':' or '-', beginning with a letter or digit")
	}
	if err := checkEmail(a.Email); err != nil {
		return nil, err
	}
	if c.ID != "" {
		if err := checkCredentialID("credential_id", c.ID); err != nil {
			return nil, err
		}
	}
	p, err := kr.packages.find(c.Package)
	if err != nil {
		return nil, err
	}
	c.Active = true
	c.Roles = append(slices.Clone(p.Roles), c.Roles...)
	if err := c.validate(); err != nil {
		return nil, err
	}
	if p.ExpiresIn > 0 {
		k.ExpiresAt = kr.Now().Add(p.ExpiresIn)
	}
	key, err := kr.keyRecord(k, m)
	if err != nil {
		return nil, err
	}
	return &grantRecord{Account{ID: a.ID, Email: a.Email}, c, *key, p.MaxKeys}, nil
}

func (kr *Keyring) keyRecord(k Key, m Material) (*keyRecord, error) {
	r := &keyRecord{Key: k}
	if k.ID == "" {
		r.made = randomBase62(idLength)
	}
	if err := kr.setMaterial(r, m); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, nil
}

// setMaterial sets what follows from the text or its digest.
func (kr *Keyring) setMaterial(r *keyRecord, m Material) error {
	switch {
	case m.Text != "" && m.Digest != nil:
		return invalid("secret", "and a digest can't both be given")
	case m.Text != "":
		return kr.setText(r, m.Text)
	case len(m.Digest) != sha256.Size:
		return invalid("digest", "must be %d bytes, or secret must be given", sha256.Size)
	}
	r.Digest = Digest(m.Digest)
	switch r.DigestKind = m.Kind; m.Kind {
	case "":
		r.DigestKind = DigestSHA256
	case DigestSHA256:
	case DigestHMACSHA256:
		own := kr.hasher.fingerprint()
		if own == nil || subtle.ConstantTimeCompare(own, m.Pepper) != 1 {
			return invalid("digest_kind", "hmac-sha256 can be imported only where the pepper is that of the digest: configure it, and name its fingerprint in a line before this one")
		}
	default:
		return invalid("digest_kind", "must be %s or %s", DigestSHA256, DigestHMACSHA256)
	}
	if r.Format == "" {
		r.Format = FormatOther
	}
	return nil
}

// setText sets what a text tells. A text that would be refused whenever it is
// presented is not taken.
func (kr *Keyring) setText(r *keyRecord, text string) error {
	if !plausible(text) {
		return invalid("secret", "must be 1 to %d visible ASCII characters, and have a right checksum if it has the shape of a token", MaxText)
	}
	text = canonical(text)
	r.Digest, r.DigestKind = kr.hasher.digest(text), kr.hasher.kind()
	if kr.hasher.peppered() {
		plain := plainDigest(text)
		r.plain = &plain
	}
	made := secret{cmp.Or(r.ID, r.made), text}
	switch {
	case tokenShaped(text):
		id := text[len(text)-tailLength-1-idLength : len(text)-tailLength-1]
		if r.ID != "" && r.ID != id {
			return invalid("id", "must be that in the key's text, or be left out")
		}
		r.ID, made.id, r.Format = id, id, FormatToken
	case uuidShaped(text):
		r.Format = FormatUUID
	case r.Format == "":
		r.Format = FormatOther
	}
	if r.Hint == "" {
		r.Hint = foreignHint(made)
	}
	r.Sealed = kr.sealer.seal(made)
	return nil
}

// foreignHint is what may be shown of a text whose length nobody vouches for.
func foreignHint(s secret) string {
	switch {
	case tokenShaped(s.text):
		return hintOf(s, FormatToken)
	case len(s.text) < MinAlphanumeric:
		return "…"
	}
	return hintOf(s, FormatAlphanumeric)
}

// check is the rules for what a key brings with it.
func (r *keyRecord) check() error {
	for _, id := range []struct{ member, value string }{
		{"id", r.ID}, {"superseded_by", r.SupersededBy}, {"stops_on_use_of", r.StopsOnUseOf},
	} {
		if id.value != "" && (len(id.value) != idLength || !isBase62(id.value)) {
			return invalid(id.member, "must be %d letters and digits", idLength)
		}
	}
	if !slices.Contains([]Format{FormatToken, FormatUUID, FormatAlphanumeric, FormatOther}, r.Format) {
		return invalid("format", "must be token, uuid, alphanumeric or other")
	}
	if err := checkText("hint", r.Hint, maxText); err != nil {
		return err
	}
	if plainDigest(canonical(r.Hint)) == r.Digest || tokenShaped(r.Hint) {
		return invalid("hint", "must not be the key's text")
	}
	return checkText("revoked_reason", r.RevokedReason, maxText)
}

// checkCredentialID accepts a UUID as it is written by this program.
func checkCredentialID(member, id string) error {
	if !uuidShaped(id) || strings.ToLower(id) != id {
		return invalid(member, "must be a UUID in lower case")
	}
	return nil
}
