package keystore

import (
	"math"
	"net/netip"
	"strings"
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
	// plain says that the key has no package and no addresses, and that its first use
	// stops no other: most verdicts need no more than this line then. Only prepare
	// says so.
	plain bool

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

// prepare makes a grant that is going to be cached quick to judge.
func (g *Grant) prepare() {
	g.until = g.StopsAt()
	if g.until == 0 {
		g.until = math.MaxInt64
	}
	if g.RevokedAt != 0 || !g.AccountActive || !g.CredentialActive {
		g.until = g.ActivatesAt // never
	}
	g.plain = g.Package == "" && len(g.AllowedIPs) == 0 && !g.awaitsFirstUse()
	// Names that many grants have in common become one text in memory, which is
	// warm when it is compared.
	g.Package = unique.Make(g.Package).Value()
	g.DigestKind = DigestKind(unique.Make(string(g.DigestKind)).Value())
	for i, r := range g.Roles {
		g.Roles[i] = unique.Make(r).Value()
	}
	together(&g.KeyID, &g.CredentialID, &g.AccountID, &g.AccountEmail)
}

// together moves texts into one piece of memory, for the garbage collector looks at
// each piece of each grant.
func together(texts ...*string) {
	size := 0
	for _, t := range texts {
		size += len(*t)
	}
	var all strings.Builder
	all.Grow(size)
	for _, t := range texts {
		all.WriteString(*t)
	}
	rest := all.String()
	for _, t := range texts {
		*t, rest = rest[:len(*t)], rest[len(*t):]
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
