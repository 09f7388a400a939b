package rest

import (
	"net/netip"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/caddy-apikeys/caddy-apikeys/keystore"
)

// This file is what the API shows. Every member is always there: what is not
// set is null, and lists and maps are empty.

// resource is what a list is of.
type resource interface {
	// cursor is where the next page begins, if this is the last item of one.
	cursor() string
}

type list[R resource] struct {
	Items []R  `json:"items"`
	Next  text `json:"next"`
}

// text is null if it is empty.
type text string

// MarshalJSONTo writes the text.
func (t text) MarshalJSONTo(enc *jsontext.Encoder) error {
	if t == "" {
		return enc.WriteToken(jsontext.Null)
	}
	return enc.WriteToken(jsontext.String(string(t)))
}

// instant is null if it is not set.
type instant keystore.Instant

const instantFormat = "2006-01-02T15:04:05.000Z"

// MarshalJSONTo writes the instant as RFC 3339 in UTC with milliseconds.
func (i instant) MarshalJSONTo(enc *jsontext.Encoder) error {
	if i == 0 {
		return enc.WriteToken(jsontext.Null)
	}
	return enc.WriteToken(jsontext.String(keystore.Instant(i).Time().Format(instantFormat)))
}

type account struct {
	ID         string            `json:"id"`
	Number     int64             `json:"number"`
	Email      text              `json:"email"`
	Active     bool              `json:"active"`
	Roles      []string          `json:"roles"`
	FirstName  text              `json:"first_name"`
	LastName   text              `json:"last_name"`
	Company    text              `json:"company"`
	Phone      text              `json:"phone"`
	Address    text              `json:"address"`
	SIREN      text              `json:"siren"`
	Attributes map[string]string `json:"attributes"`
	CreatedAt  instant           `json:"created_at"`
	UpdatedAt  instant           `json:"updated_at"`
}

func (a account) cursor() string { return a.ID }

func accountOf(a *keystore.Account) account {
	return account{
		ID: a.ID, Number: a.Number, Email: text(a.Email), Active: a.Active, Roles: a.Roles,
		FirstName: text(a.FirstName), LastName: text(a.LastName), Company: text(a.Company),
		Phone: text(a.Phone), Address: text(a.Address), SIREN: text(a.SIREN),
		Attributes: a.Attributes,
		CreatedAt:  instant(a.CreatedAt), UpdatedAt: instant(a.UpdatedAt),
	}
}

type credential struct {
	ID          string            `json:"id"`
	AccountID   string            `json:"account_id"`
	Package     text              `json:"package"`
	Roles       []string          `json:"roles"`
	Active      bool              `json:"active"`
	Description text              `json:"description"`
	AllowedIPs  []netip.Prefix    `json:"allowed_ips"`
	Metadata    map[string]string `json:"metadata"`
	ExpiresAt   instant           `json:"expires_at"`
	CreatedAt   instant           `json:"created_at"`
	UpdatedAt   instant           `json:"updated_at"`
}

func (c credential) cursor() string { return c.ID }

func credentialOf(c *keystore.Credential) credential {
	return credential{
		ID: c.ID, AccountID: c.AccountID, Package: text(c.Package), Roles: c.Roles, Active: c.Active,
		Description: text(c.Description), AllowedIPs: c.AllowedIPs, Metadata: c.Metadata,
		ExpiresAt: instant(c.ExpiresAt), CreatedAt: instant(c.CreatedAt), UpdatedAt: instant(c.UpdatedAt),
	}
}

// key is a key without its digest, and without its text.
type key struct {
	ID              string          `json:"id"`
	CredentialID    string          `json:"credential_id"`
	Hint            string          `json:"hint"`
	Format          keystore.Format `json:"format"`
	State           keystore.State  `json:"state"`
	CreatedAt       instant         `json:"created_at"`
	ActivatesAt     instant         `json:"activates_at"`
	ExpiresAt       instant         `json:"expires_at"`
	UnusedExpiresAt instant         `json:"unused_expires_at"`
	RevokedAt       instant         `json:"revoked_at"`
	RevokedReason   text            `json:"revoked_reason"`
	SupersededBy    text            `json:"superseded_by"`
	SupersededAt    instant         `json:"superseded_at"`
	StopsOnUseOf    text            `json:"stops_on_use_of"`
	FirstUsedAt     instant         `json:"first_used_at"`
	LastUsedAt      instant         `json:"last_used_at"`
}

func (k key) cursor() string { return k.ID }

func keyOf(k keystore.KeyStatus) key {
	return key{
		ID: k.ID, CredentialID: k.CredentialID, Hint: k.Hint, Format: k.Format, State: k.State,
		CreatedAt: instant(k.CreatedAt), ActivatesAt: instant(k.ActivatesAt),
		ExpiresAt: instant(k.ExpiresAt), UnusedExpiresAt: instant(k.UnusedExpiresAt),
		RevokedAt: instant(k.RevokedAt), RevokedReason: text(k.RevokedReason),
		SupersededBy: text(k.SupersededBy), SupersededAt: instant(k.SupersededAt), StopsOnUseOf: text(k.StopsOnUseOf),
		FirstUsedAt: instant(k.FirstUsedAt), LastUsedAt: instant(k.LastUsedAt),
	}
}

func keysOf(ks []keystore.KeyStatus) []key {
	out := make([]key, len(ks))
	for i, k := range ks {
		out[i] = keyOf(k)
	}
	return out
}

// newKey is a key in the one answer that has its text.
type newKey struct {
	key
	Secret string `json:"secret"`
}

func newKeyOf(made *keystore.Issued) newKey { return newKey{keyOf(made.Key), made.Text} }

type issued struct {
	Credential credential `json:"credential"`
	Key        newKey     `json:"key"`
}

type rotated struct {
	Key      newKey `json:"key"`
	Previous []key  `json:"previous"`
}

type revoked struct {
	Key       key    `json:"key"`
	Effective string `json:"effective"`
}

type self struct {
	Account    account    `json:"account"`
	Credential credential `json:"credential"`
	Key        key        `json:"key"`
}

// verdict is what a key is worth. All but the first two members are null if the
// key is not known.
type verdict struct {
	Active       bool      `json:"active"`
	Code         string    `json:"code"`
	KeyID        text      `json:"key_id"`
	CredentialID text      `json:"credential_id"`
	AccountID    text      `json:"account_id"`
	Package      text      `json:"package"`
	Roles        *[]string `json:"roles"`
	ExpiresAt    instant   `json:"expires_at"`
}

func verdictOf(g *keystore.Grant, v keystore.Verdict) verdict {
	out := verdict{Active: v == keystore.OK, Code: v.String()}
	if g == nil {
		return out
	}
	out.KeyID, out.CredentialID, out.AccountID = text(g.KeyID), text(g.CredentialID), text(g.AccountID)
	out.Package, out.Roles, out.ExpiresAt = text(g.Package), &g.Roles, instant(g.StopsAt())
	return out
}
