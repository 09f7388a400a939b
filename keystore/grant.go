package keystore

import (
	"math"
	"net/netip"
	"sync/atomic"
	"unique"
)

// Grant is what a verdict needs to know of one key: the join of the key, its
// credential and its account, as the store held them at one moment. It is
// immutable, shared between requests, and passed by pointer only.
//
// What every verdict reads comes first, so that it lies in as few cache lines as
// possible: of many keys, each is cold.
type Grant struct {
	Digest Digest
	// generation is that of the digest's shard before the store was read.
	generation uint64
	// from and until are between when the grant by itself is OK; see prepare.
	from, until Instant
	// noted is when a use was last handed to the batch of uses.
	noted atomic.Int64

	Package    string
	AllowedIPs []netip.Prefix
	Roles      []string

	RevokedAt           Instant
	ActivatesAt         Instant
	ExpiresAt           Instant
	CredentialExpiresAt Instant // ends every key of the credential
	UnusedExpiresAt     Instant
	FirstUsedAt         Instant
	// AccountActive and CredentialActive are false for tombstones too.
	AccountActive    bool
	CredentialActive bool
	// Superseded tells a key that a rotation bounds from one that merely has
	// an expiry.
	Superseded bool

	DigestKind    DigestKind
	KeyID         string
	CredentialID  string
	AccountID     string
	AccountNumber int64
	AccountEmail  string
}

// prepare makes a grant that is going to be cached quick to judge.
func (g *Grant) prepare() {
	g.from, g.until = g.ActivatesAt, g.StopsAt()
	if g.until == 0 {
		g.until = math.MaxInt64
	}
	if g.RevokedAt != 0 || !g.AccountActive || !g.CredentialActive {
		g.until = g.from // never
	}
	// Names that many grants have in common become one text in memory, which is
	// warm when it is compared.
	g.Package = unique.Make(g.Package).Value()
	g.DigestKind = DigestKind(unique.Make(string(g.DigestKind)).Value())
	for i, r := range g.Roles {
		g.Roles[i] = unique.Make(r).Value()
	}
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
