package rest

import (
	"bufio"
	"context"
	"encoding/hex"
	"io"
	"net/netip"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file writes an export: the lines that import_line.go reads, between one that
// says that it is an export and one that says that it is whole. Members that are not
// set are left out.

const (
	// exportVersion is that of the format. What this program can't read is another.
	exportVersion = 1
	// exportBuffer is how much is sent at a time, in bytes.
	exportBuffer = 64 << 10
)

func (api *API) export(ctx context.Context, w io.Writer) error {
	keyring, err := api.keyring(ctx)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, exportBuffer)
	if err := keyring.Export(ctx, &exporter{lines: jsontext.NewEncoder(out)}); err != nil {
		return err
	}
	return out.Flush()
}

// exporter writes records as lines. It implements keystore.Exporter.
type exporter struct {
	lines *jsontext.Encoder
	whole exportedEnd
}

// line writes one. The members of maps are sorted, so that the same store is the same
// bytes.
func (e *exporter) line(kind string, of any) error {
	return json.MarshalEncode(e.lines, map[string]any{kind: of}, json.Deterministic(true))
}

// Begin implements keystore.Exporter.
func (e *exporter) Begin(pepper []byte) error {
	if err := e.line("export", exportedHead{exportVersion}); err != nil || pepper == nil {
		return err
	}
	return e.line("pepper", exportedPepper{hex.EncodeToString(pepper)})
}

// Account implements keystore.Exporter.
func (e *exporter) Account(a *keystore.Account) error {
	e.whole.Accounts++
	return e.line("account", exportedAccount{
		a.ID, a.Number, a.Email, a.Active, a.Roles, a.FirstName, a.LastName, a.Company, a.Phone, a.Address, a.SIREN,
		a.Attributes, instant(a.CreatedAt), instant(a.UpdatedAt), instant(a.DeletedAt),
	})
}

// Credential implements keystore.Exporter.
func (e *exporter) Credential(c *keystore.Credential) error {
	e.whole.Credentials++
	return e.line("credential", exportedCredential{
		c.ID, c.AccountID, c.Package, c.Roles, c.Active, c.Description, c.AllowedIPs, c.Metadata,
		instant(c.ExpiresAt), instant(c.CreatedAt), instant(c.UpdatedAt), instant(c.DeletedAt),
	})
}

// Key implements keystore.Exporter.
func (e *exporter) Key(k *keystore.Key) error {
	e.whole.Keys++
	return e.line("key", exportedKey{
		k.ID, k.CredentialID, hex.EncodeToString(k.Digest[:]), k.DigestKind, k.Hint, k.Format, k.Sealed, k.Mailed,
		instant(k.CreatedAt), instant(k.ActivatesAt), instant(k.ExpiresAt), instant(k.UnusedExpiresAt),
		instant(k.RevokedAt), k.RevokedReason, k.SupersededBy, instant(k.SupersededAt), k.StopsOnUseOf,
		instant(k.FirstUsedAt), instant(k.LastUsedAt),
	})
}

// End implements keystore.Exporter.
func (e *exporter) End(mails int) error {
	e.whole.WaitingMails = int64(mails)
	return e.line("end", e.whole)
}

type exportedHead struct {
	Version int64 `json:"version"`
}

type exportedPepper struct {
	Fingerprint string `json:"fingerprint"`
}

// exportedEnd counts the lines of an export.
type exportedEnd struct {
	Accounts    int64 `json:"accounts"`
	Credentials int64 `json:"credentials"`
	Keys        int64 `json:"keys"`
	// WaitingMails are not in the export.
	WaitingMails int64 `json:"waiting_mails"`
}

type exportedAccount struct {
	ID         string            `json:"id"`
	Number     int64             `json:"number"`
	Email      string            `json:"email,omitzero"`
	Active     bool              `json:"active"`
	Roles      []string          `json:"roles,omitempty"`
	FirstName  string            `json:"first_name,omitzero"`
	LastName   string            `json:"last_name,omitzero"`
	Company    string            `json:"company,omitzero"`
	Phone      string            `json:"phone,omitzero"`
	Address    string            `json:"address,omitzero"`
	SIREN      string            `json:"siren,omitzero"`
	Attributes map[string]string `json:"attributes,omitempty"`
	CreatedAt  instant           `json:"created_at,omitzero"`
	UpdatedAt  instant           `json:"updated_at,omitzero"`
	DeletedAt  instant           `json:"deleted_at,omitzero"`
}

type exportedCredential struct {
	ID          string            `json:"id"`
	AccountID   string            `json:"account_id"`
	Package     string            `json:"package,omitzero"`
	Roles       []string          `json:"roles,omitempty"`
	Active      bool              `json:"active"`
	Description string            `json:"description,omitzero"`
	AllowedIPs  []netip.Prefix    `json:"allowed_ips,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	ExpiresAt   instant           `json:"expires_at,omitzero"`
	CreatedAt   instant           `json:"created_at,omitzero"`
	UpdatedAt   instant           `json:"updated_at,omitzero"`
	DeletedAt   instant           `json:"deleted_at,omitzero"`
}

type exportedKey struct {
	ID              string              `json:"id"`
	CredentialID    string              `json:"credential_id"`
	Digest          string              `json:"digest"`
	DigestKind      keystore.DigestKind `json:"digest_kind"`
	Hint            string              `json:"hint"`
	Format          keystore.Format     `json:"format"`
	Sealed          []byte              `json:"sealed,omitempty"`
	Mailed          bool                `json:"mailed,omitzero"`
	CreatedAt       instant             `json:"created_at,omitzero"`
	ActivatesAt     instant             `json:"activates_at,omitzero"`
	ExpiresAt       instant             `json:"expires_at,omitzero"`
	UnusedExpiresAt instant             `json:"unused_expires_at,omitzero"`
	RevokedAt       instant             `json:"revoked_at,omitzero"`
	RevokedReason   string              `json:"revoked_reason,omitzero"`
	SupersededBy    string              `json:"superseded_by,omitzero"`
	SupersededAt    instant             `json:"superseded_at,omitzero"`
	StopsOnUseOf    string              `json:"stops_on_use_of,omitzero"`
	FirstUsedAt     instant             `json:"first_used_at,omitzero"`
	LastUsedAt      instant             `json:"last_used_at,omitzero"`
}

// Interface guard.
var _ keystore.Exporter = (*exporter)(nil)
