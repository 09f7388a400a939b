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
// A Grant is four lines of the processor's cache, and lies on their bounds. Of many
// keys each is cold, and each line that a verdict reads is fetched from memory: what
// every verdict reads is the first, what a route may ask for is the second.
type Grant struct {
	Digest Digest
	// generation is that of the digest's shard before the store was read.
	generation uint64
	// The grant by itself is OK from ActivatesAt until then; see prepare.
	until       Instant
	ActivatesAt Instant
	// noted is the second, cut to 32 bits, in which a use was last handed to the
	// batch of uses.
	noted atomic.Uint32
	// AccountActive and CredentialActive are false for tombstones too.
	AccountActive    bool
	CredentialActive bool
	// Superseded tells a key that a rotation bounds from one that merely has
	// an expiry.
	Superseded bool
	marks      marks

	Package    string
	AllowedIPs []netip.Prefix
	Roles      []string

	ExpiresAt           Instant
	CredentialExpiresAt Instant // ends every key of the credential
	UnusedExpiresAt     Instant
	FirstUsedAt         Instant
	RevokedAt           Instant

	DigestKind    DigestKind
	KeyID         string
	CredentialID  string
	AccountID     string
	AccountNumber int64
	AccountEmail  string
}

// marks are what else a verdict must look at, so that most need not.
type marks uint8

const (
	// awaitsFirstUse: accepting the key would be the use that stops older ones.
	awaitsFirstUse marks = 1 << iota
	// restricted: the key has a package or addresses, which routes and clients must
	// fit.
	restricted
)

// prepare makes a grant that is going to be cached quick to judge.
func (g *Grant) prepare() {
	g.until = g.StopsAt()
	if g.until == 0 {
		g.until = math.MaxInt64
	}
	if g.RevokedAt != 0 || !g.AccountActive || !g.CredentialActive {
		g.until = g.ActivatesAt // never
	}
	if g.UnusedExpiresAt != 0 && g.FirstUsedAt == 0 {
		g.marks |= awaitsFirstUse
	}
	if g.Package != "" || len(g.AllowedIPs) > 0 {
		g.marks |= restricted
	}
	// Names that many grants have in common become one text in memory, which is
	// warm when it is compared.
	g.Package = unique.Make(g.Package).Value()
	g.DigestKind = DigestKind(unique.Make(string(g.DigestKind)).Value())
	for i, r := range g.Roles {
		g.Roles[i] = unique.Make(r).Value()
	}
}

func (g *Grant) is(m marks) bool { return g.marks&m != 0 }

// StopsAt is the moment at which the key stops on its own, zero if none is
// known.
func (g *Grant) StopsAt() Instant {
	stop := earlier(g.ExpiresAt, g.CredentialExpiresAt)
	if g.FirstUsedAt == 0 {
		stop = earlier(stop, g.UnusedExpiresAt)
	}
	return stop
}
