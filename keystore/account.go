package keystore

import "strings"

// Account is who owns keys: a customer, a team, a machine.
type Account struct {
	// ID is unique for ever: a UUIDv7 unless the operator chose another.
	// See [ValidID] for what is allowed.
	ID string
	// Number counts accounts up from 1, for peers that expect an integer.
	// The store assigns it.
	Number int64
	// Email is optional. It is kept as given; uniqueness and look-ups go by
	// [EmailKey].
	Email string
	// Active is false while the account is deactivated; its keys are refused.
	Active bool
	// Roles is profile text for peers that show it. A verdict never reads it:
	// what a key may do is in its credential's roles.
	Roles []string

	FirstName string
	LastName  string
	Company   string
	Phone     string
	Address   string
	// SIREN is the French company register number.
	SIREN string

	// Attributes is the operator's own data.
	Attributes map[string]string

	CreatedAt Instant
	UpdatedAt Instant
	// DeletedAt is set on the tombstone that a deletion leaves, so that the
	// account's keys stay known as revoked. Readers of a store skip tombstones.
	DeletedAt Instant
}

// EmailKey is the form of an e-mail address under which it is unique.
func EmailKey(email string) string { return strings.ToLower(email) }
