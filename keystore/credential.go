package keystore

import "net/netip"

// Credential is one named use of the API by an account. What a key may do
// belongs to its credential, so a rotation changes none of it.
type Credential struct {
	// ID is a UUIDv7.
	ID        string
	AccountID string
	// Seq orders credentials by their making. The store assigns it.
	Seq int64
	// Package names the declared [Package] this credential is of. Empty only
	// where no packages are declared.
	Package string
	// Roles are what a route can require. See [ValidRole].
	Roles []string
	// Active is false while the credential is deactivated; its keys are refused.
	Active bool
	// Description is free text of at most [MaxDescription] characters.
	Description string
	// AllowedIPs limits the client addresses that may use the keys. Empty
	// allows all.
	AllowedIPs []netip.Prefix
	// Metadata is the operator's own data.
	Metadata map[string]string
	// ExpiresAt ends every key of the credential. Zero means never.
	ExpiresAt Instant

	CreatedAt Instant
	UpdatedAt Instant
	// DeletedAt is set on the tombstone that a deletion leaves.
	DeletedAt Instant
}

// MaxDescription is how many characters a credential's description may have.
const MaxDescription = 256
