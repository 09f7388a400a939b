package sqlstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file turns records into the values of a statement and rows into
// records. The order of columns is that of the statements.

// errContent is the error of a value that this program did not write. It says
// nothing against the transaction that read it.
var errContent = errors.New("unreadable record")

// row is *sql.Row or *sql.Rows.
type row interface{ Scan(...any) error }

// encode is the JSON text of a list or a map, and empty for an empty one.
func encode[T any](value T, length int) (string, error) {
	if length == 0 {
		return "", nil
	}
	text, err := json.Marshal(value)
	return string(text), err
}

// decode reads what encode wrote.
func decode[T any](text string, into *T) error {
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	return nil
}

// emailKey is the value of the column that is unique, NULL where nothing is to
// be unique.
func emailKey(a *keystore.Account) any {
	if a.Email == "" || a.DeletedAt != 0 {
		return nil
	}
	return keystore.EmailKey(a.Email)
}

// sealed is NULL where there is none.
func sealed(k *keystore.Key) any {
	if len(k.Sealed) == 0 {
		return nil
	}
	return k.Sealed
}

// accountValues are the values that an insertion and an update of an account
// share, around those that only an insertion has.
func accountValues(a *keystore.Account, inserting ...any) ([]any, error) {
	roles, err := encode(a.Roles, len(a.Roles))
	if err != nil {
		return nil, err
	}
	attributes, err := encode(a.Attributes, len(a.Attributes))
	if err != nil {
		return nil, err
	}
	values := []any{a.ID, a.Email, emailKey(a), a.Active, roles, a.FirstName, a.LastName,
		a.Company, a.Phone, a.Address, a.SIREN, attributes}
	values = append(values, inserting...)
	return append(values, int64(a.UpdatedAt), int64(a.DeletedAt)), nil
}

func scanAccount(r row) (*keystore.Account, error) {
	a := new(keystore.Account)
	var roles, attributes string
	err := r.Scan(&a.Number, &a.ID, &a.Email, &a.Active, &roles, &a.FirstName, &a.LastName,
		&a.Company, &a.Phone, &a.Address, &a.SIREN, &attributes, &a.CreatedAt, &a.UpdatedAt, &a.DeletedAt)
	if err != nil {
		return nil, err
	}
	if err := decode(roles, &a.Roles); err != nil {
		return nil, err
	}
	return a, decode(attributes, &a.Attributes)
}

// credentialValues are the values that an insertion and an update of a
// credential share, around those that only an insertion has.
func credentialValues(c *keystore.Credential, inserting ...any) ([]any, error) {
	roles, err := encode(c.Roles, len(c.Roles))
	if err != nil {
		return nil, err
	}
	ips, err := encode(c.AllowedIPs, len(c.AllowedIPs))
	if err != nil {
		return nil, err
	}
	metadata, err := encode(c.Metadata, len(c.Metadata))
	if err != nil {
		return nil, err
	}
	values := []any{c.ID, c.AccountID, c.Package, roles, c.Active, c.Description, ips, metadata, int64(c.ExpiresAt)}
	values = append(values, inserting...)
	return append(values, int64(c.UpdatedAt), int64(c.DeletedAt)), nil
}

func scanCredential(r row) (*keystore.Credential, error) {
	c := new(keystore.Credential)
	var roles, ips, metadata string
	err := r.Scan(&c.Seq, &c.ID, &c.AccountID, &c.Package, &roles, &c.Active, &c.Description,
		&ips, &metadata, &c.ExpiresAt, &c.CreatedAt, &c.UpdatedAt, &c.DeletedAt)
	if err != nil {
		return nil, err
	}
	if err := decodeUse(roles, ips, &c.Roles, &c.AllowedIPs); err != nil {
		return nil, err
	}
	return c, decode(metadata, &c.Metadata)
}

// decodeUse reads what limits the use of a credential's keys.
func decodeUse(roles, ips string, intoRoles *[]string, intoIPs *[]netip.Prefix) error {
	if err := decode(roles, intoRoles); err != nil {
		return err
	}
	return decode(ips, intoIPs)
}

func insertKeyValues(k *keystore.Key) []any {
	return []any{k.ID, k.CredentialID, k.Digest[:], string(k.DigestKind), k.Hint, string(k.Format), sealed(k),
		int64(k.CreatedAt), int64(k.ActivatesAt), int64(k.ExpiresAt), int64(k.UnusedExpiresAt),
		int64(k.RevokedAt), k.RevokedReason, k.SupersededBy, int64(k.SupersededAt), k.StopsOnUseOf,
		int64(k.FirstUsedAt), int64(k.LastUsedAt), k.Mailed}
}

func updateKeyValues(k *keystore.Key) []any {
	return []any{k.ID, k.CredentialID, k.Hint, string(k.Format), sealed(k),
		int64(k.ActivatesAt), int64(k.ExpiresAt), int64(k.UnusedExpiresAt),
		int64(k.RevokedAt), k.RevokedReason, k.SupersededBy, int64(k.SupersededAt), k.StopsOnUseOf,
		int64(k.FirstUsedAt), k.Mailed}
}

func scanKey(r row) (*keystore.Key, error) {
	k := new(keystore.Key)
	var digest []byte
	err := r.Scan(&k.Seq, &k.ID, &k.CredentialID, &digest, &k.DigestKind, &k.Hint, &k.Format, &k.Sealed,
		&k.CreatedAt, &k.ActivatesAt, &k.ExpiresAt, &k.UnusedExpiresAt, &k.RevokedAt, &k.RevokedReason,
		&k.SupersededBy, &k.SupersededAt, &k.StopsOnUseOf, &k.FirstUsedAt, &k.LastUsedAt,
		&k.Mailed)
	if err != nil {
		return nil, err
	}
	k.Digest, err = digestOf(digest)
	return k, err
}

func scanDigest(r row) (keystore.Digest, error) {
	var digest []byte
	if err := r.Scan(&digest); err != nil {
		return keystore.Digest{}, err
	}
	return digestOf(digest)
}

func digestOf(stored []byte) (d keystore.Digest, err error) {
	if len(stored) != len(d) {
		return d, fmt.Errorf("%w: digest of %d bytes", errContent, len(stored))
	}
	return keystore.Digest(stored), nil
}

// scanGrant reads the row of a look-up into a new Grant.
func scanGrant(r row, digest keystore.Digest) (*keystore.Grant, error) {
	g := &keystore.Grant{Digest: digest}
	var roles, ips string
	err := r.Scan(&g.KeyID, &g.DigestKind, &g.ActivatesAt, &g.ExpiresAt, &g.UnusedExpiresAt, &g.FirstUsedAt,
		&g.RevokedAt, &g.Superseded, &g.CredentialID, &g.Package, &roles, &ips, &g.CredentialActive,
		&g.CredentialExpiresAt, &g.AccountID, &g.AccountNumber, &g.AccountEmail, &g.AccountActive)
	if err != nil {
		return nil, err
	}
	return g, decodeUse(roles, ips, &g.Roles, &g.AllowedIPs)
}

func scanMail(r row) (*keystore.Mail, error) {
	m := new(keystore.Mail)
	return m, r.Scan(&m.ID, &m.AccountID, &m.Package, &m.RequestedAt, &m.DueAt, &m.Attempts)
}

func scanReply(r row) (*keystore.Reply, error) {
	p := new(keystore.Reply)
	var digest, request []byte
	if err := r.Scan(&digest, &request, &p.Sealed, &p.ExpiresAt); err != nil {
		return nil, err
	}
	var err error
	if p.Digest, err = digestOf(digest); err != nil {
		return nil, err
	}
	p.Request, err = digestOf(request)
	return p, err
}
