package keystore

import (
	"net/netip"
	"sync/atomic"
)

// Grant is what a verdict needs to know of one key: the join of the key, its
// credential and its account, as the store held them at one moment. It is
// immutable, shared between requests, and passed by pointer only.
type Grant struct {
	Digest     Digest
	DigestKind DigestKind

	KeyID        string
	CredentialID string
	AccountID    string

	AccountNumber int64
	AccountEmail  string
	Package       string
	Roles         []string
	AllowedIPs    []netip.Prefix

	// AccountActive and CredentialActive are false for tombstones too.
	AccountActive    bool
	CredentialActive bool

	ActivatesAt     Instant
	ExpiresAt       Instant
	UnusedExpiresAt Instant
	FirstUsedAt     Instant
	RevokedAt       Instant
	// Superseded tells a key that a rotation bounds from one that merely has
	// an expiry.
	Superseded bool
	// CredentialExpiresAt ends every key of the credential.
	CredentialExpiresAt Instant

	// generation is that of the digest's shard before the store was read.
	generation uint64
	// noted is when a use was last handed to the batch of uses.
	noted atomic.Int64
}

// StopsAt is the moment at which the key stops on its own, zero if none is
// known.
func (g *Grant) StopsAt() Instant {
	stop := earlier(g.ExpiresAt, g.CredentialExpiresAt)
	if g.FirstUsedAt == 0 {
		stop = earlier(stop, g.UnusedExpiresAt)
	}
	return stop
}
